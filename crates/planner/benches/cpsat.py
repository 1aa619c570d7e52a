#!/usr/bin/env python3
"""What a constraint solver makes of the same cases: the bar for the planner's `pack` example.

Usage: pip install ortools
       cpsat.py [--model m1|m2] [--objective count|vcpus] [--limit SECONDS] [--workers N] CASES.jsonl > OPTIMA.jsonl
       cpsat.py --table OPTIMA.jsonl PACK.jsonl      compares with what `pack --report` wrote

One line a case: id, n, placed, vcpus, bound, proven, secs (of building the model and solving it).
The rules are those of the benchmark, written down a second time and in another way: they share
nothing with the planner. Per node with C full cores and H half ones, W vCPUs that need a whole core
to themselves or in pairs, S single threads and E emulators of isolated guests, a node holds
    W <= C,  W + E <= C + H,  S + 2W + E <= 2C + H,  S + 2W + 2E <= 2C + 2H
which is the condition of `W + E - e <= C and S <= 2(C - W - E + e) + H - e` for e = min(E, H).
"""
import argparse
import json
import os
import sys
import time
from collections import Counter, defaultdict
from itertools import combinations, permutations


def cell_load(policy, vcpus, emulator, tpc, model):
    """What a cell takes of a node: (W, S, E), or None where it can never lie."""
    if tpc == 1:
        return None if policy == "require" else (0, vcpus + emulator, 0)
    if model == "m2":
        if policy == "isolate":
            return (vcpus + emulator, 0, 0)
        return (-(-(vcpus + emulator) // 2), 0, 0)
    if policy == "isolate":
        return (vcpus, 0, emulator)
    if policy == "require":
        return (vcpus // 2, vcpus % 2 + emulator, 0)
    return (0, vcpus + emulator, 0)


def solve(case, model, objective, limit, workers):
    from ortools.sat.python import cp_model

    began = time.perf_counter()
    cp = cp_model.CpModel()
    kinds = Counter(
        (r["vcpus"], r["thread_policy"], r["emulator"], r["numa_nodes"], r["mem_gib"], r["vfs"])
        for r in case["requests"]
    )
    nodes = {}
    for h, host in enumerate(case["hosts"]):
        for node in host["nodes"]:
            full = sum(len(c["avail"]) == host["tpc"] for c in node["cores"])
            half = sum(0 < len(c["avail"]) < host["tpc"] for c in node["cores"])
            if model == "m2":
                half = 0
            nodes[h, node["id"]] = (host["tpc"], full, half, node["huge_1g"], node["vfs"])
    load = {key: defaultdict(list) for key in nodes}
    goal = []
    for kind, count in sorted(kinds.items()):
        vcpus, policy, emulator, cells, memory, vfs = kind
        if vcpus % cells:
            continue
        placed = []
        for h, host in enumerate(case["hosts"]):
            ids = [node["id"] for node in host["nodes"]]
            if cells == 1:
                sites = [(n,) for n in ids]
            elif emulator:
                sites = list(permutations(ids, cells))
            else:
                sites = list(combinations(ids, cells))
            for site in sites:
                loads = [
                    cell_load(policy, vcpus // cells, emulator if i == 0 else 0, host["tpc"], model)
                    for i in range(cells)
                ]
                if None in loads:
                    continue
                x = cp.NewIntVar(0, count, "")
                placed.append(x)
                for n, (w, s, e) in zip(site, loads):
                    for name, amount in (("W", w), ("S", s), ("E", e), ("M", -(-memory // cells))):
                        if amount:
                            load[h, n][name].append(amount * x)
                if vfs and cells == 1:
                    load[h, site[0]]["V"].append(vfs * x)
                elif vfs:
                    parts = [cp.NewIntVar(0, vfs * count, "") for _ in site]
                    cp.Add(sum(parts) == vfs * x)
                    for n, part in zip(site, parts):
                        load[h, n]["V"].append(part)
        if placed:
            cp.Add(sum(placed) <= count)
            goal += [(1 if objective == "count" else vcpus) * x for x in placed]
    for key, (tpc, full, half, memory, vfs) in nodes.items():
        W, S, E, M, V = (sum(load[key][name]) for name in "WSEMV")
        if tpc == 1:
            cp.Add(S <= full)
        else:
            cp.Add(W <= full)
            cp.Add(W + E <= full + half)
            cp.Add(S + 2 * W + E <= 2 * full + half)
            cp.Add(S + 2 * W + 2 * E <= 2 * full + 2 * half)
        cp.Add(M <= memory)
        cp.Add(V <= vfs)
    cp.Maximize(sum(goal))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = limit
    solver.parameters.num_workers = workers
    status = solver.Solve(cp)
    known = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return {
        "id": case["id"],
        "n": len(case["requests"]),
        "objective": objective,
        "best": int(solver.ObjectiveValue()) if known else 0,
        "bound": int(solver.BestObjectiveBound() + 1e-6),
        "proven": status == cp_model.OPTIMAL,
        "secs": round(time.perf_counter() - began, 5),
    }


def read(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines if line.strip()]


def table(optima, packed):
    """One row a family of cases, and each case where the two differ."""
    ours = {row["id"]: row for row in read(packed)}
    rows = defaultdict(list)
    for theirs in read(optima):
        mine = ours[theirs["id"]]
        rows[theirs["id"].rsplit("-", 1)[0]].append((theirs, mine))
        if mine["best"] != theirs["best"] or not (mine["proven"] and theirs["proven"]):
            print(f"  {theirs['id']}: pack {mine['best']} of at most {mine['bound']},"
                  f" CP-SAT {theirs['best']} of at most {theirs['bound']}")
    print("| cases | n | placed by pack | by CP-SAT | proven by pack | by CP-SAT | s, pack | s, CP-SAT | worst ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    total = []
    for name, both in list(rows.items()) + [("all", [b for r in rows.values() for b in r])]:
        worst = max(m["secs"] / t["secs"] for t, m in both)
        print(f"| {name} | {len(both)} | {sum(m['best'] for _, m in both)} | {sum(t['best'] for t, _ in both)} "
              f"| {sum(m['proven'] for _, m in both)} | {sum(t['proven'] for t, _ in both)} "
              f"| {sum(m['secs'] for _, m in both):.4f} | {sum(t['secs'] for t, _ in both):.3f} | 1/{1 / worst:.0f} |")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--model", choices=("m1", "m2"), default="m1")
    args.add_argument("--objective", choices=("count", "vcpus"), default="count")
    args.add_argument("--limit", type=float, default=60.0)
    args.add_argument("--workers", type=int, default=os.cpu_count())
    args.add_argument("--table", action="store_true")
    args.add_argument("files", nargs="+")
    args = args.parse_args()
    if args.table:
        table(*args.files)
        return
    for path in args.files:
        for case in read(path):
            row = solve(case, args.model, args.objective, args.limit, args.workers)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
