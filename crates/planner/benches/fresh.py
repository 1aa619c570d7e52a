#!/usr/bin/env python3
"""New cases like the old ones: for looking where `pack` falls short on what it was not tuned for.

Usage: fresh.py [--seed N] [--of N] [--only FAMILY ...] CASES.jsonl > FRESH.jsonl

A family is what the cases' ids share, `mix4-overload` of `dev-mix4-overload-001`. Each new case
takes its servers from cases of its family, with virtual functions and huge pages of other servers of
that model, and its guests from those that cases of its family and mix ask for. Overload: guests until
they ask for 0.9 to 1.25 of the threads. Planted: guests are laid on the nodes until none of many fits,
and what was laid is asked for, in another order, so that the optimum is all of them.
"""
import argparse
import json
import random
from collections import defaultdict
from copy import deepcopy

from cpsat import cell_load, read


def family(case):
    return case["id"].split("-", 1)[1].rsplit("-", 1)[0]


class Room:
    """A server's nodes as numbers, to lay guests on."""

    def __init__(self, host):
        self.tpc = host["tpc"]
        self.nodes = []
        for node in host["nodes"]:
            full = sum(len(c["avail"]) == self.tpc for c in node["cores"])
            half = sum(0 < len(c["avail"]) < self.tpc for c in node["cores"])
            self.nodes.append({"full": full, "half": half, "W": 0, "S": 0, "E": 0,
                               "mem": node["huge_1g"], "vfs": node["vfs"]})

    def _holds(self, node):
        w, s, e, full, half = (node[key] for key in ("W", "S", "E", "full", "half"))
        if self.tpc == 1:
            return s <= full and node["mem"] >= 0 and node["vfs"] >= 0
        spare = min(e, half)
        return (w + e - spare <= full and s <= 2 * (full - w - e + spare) + half - spare
                and node["mem"] >= 0 and node["vfs"] >= 0)

    def lay(self, request, dice):
        cells = request["numa_nodes"]
        order = list(range(len(self.nodes)))
        dice.shuffle(order)
        if len(order) < cells or request["vcpus"] % cells:
            return False
        before, laid, vfs = deepcopy(self.nodes), 0, request["vfs"]
        for at in order:
            old, node = dict(self.nodes[at]), self.nodes[at]
            load = cell_load(request["thread_policy"], request["vcpus"] // cells,
                             request["emulator"] if laid == 0 else 0, self.tpc, "m1")
            if load is None:
                break
            for name, amount in zip("WSE", load):
                node[name] += amount
            node["mem"] -= -(-request["mem_gib"] // cells)
            share = min(vfs, node["vfs"])
            node["vfs"] -= share
            if self._holds(node) and (share == vfs or cells > laid + 1):
                laid, vfs = laid + 1, vfs - share
            else:
                self.nodes[at] = old
            if laid == cells:
                return True
        self.nodes = before
        return False


def servers(like, models, dice):
    hosts = []
    for number, host in enumerate(like["hosts"]):
        pool = models[dice.choice(like["hosts"])["model"]] if len(like["hosts"]) == 4 else models[host["model"]]
        host = deepcopy(dice.choice(pool))
        other, third = (dice.choice(models[host["model"]]) for _ in range(2))
        for node, a, b in zip(host["nodes"], other["nodes"], third["nodes"]):
            node["vfs"], node["huge_1g"] = a["vfs"], b["huge_1g"]
        host["id"] = number
        hosts.append(host)
    return hosts


def weight(request, hosts):
    doubled = request["thread_policy"] == "isolate" and any(host["tpc"] > 1 for host in hosts)
    return request["vcpus"] * (2 if doubled else 1) + request["emulator"]


def guests(kind, hosts, pool, dice):
    pick = lambda: dict(dice.choice(pool))
    asked = []
    if kind == "planted":
        for host in hosts:
            room, missed = Room(host), 0
            while missed < 60:
                request = pick()
                if room.lay(request, dice):
                    asked.append(request)
                else:
                    missed += 1
    else:
        threads = sum(len(c["avail"]) for host in hosts for n in host["nodes"] for c in n["cores"])
        goal = threads * dice.uniform(0.9, 1.25)
        while sum(weight(request, hosts) for request in asked) < goal:
            asked.append(pick())
    dice.shuffle(asked)
    for number, request in enumerate(asked):
        request["id"] = number
    return asked


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--of", type=int, default=240)
    args.add_argument("--only", action="append", default=[])
    args.add_argument("file")
    args = args.parse_args()
    dice = random.Random(args.seed)
    old = read(args.file)
    models, pools = defaultdict(list), defaultdict(list)
    for case in old:
        for host in case["hosts"]:
            models[host["model"]].append(host)
        pools[family(case), case["mix"]] += case["requests"]
    old = [case for case in old if not args.only or family(case) in args.only]
    for number in range(args.of):
        like = dice.choice(old)
        hosts = servers(like, models, dice)
        case = {"id": f"fresh{args.seed}-{family(like)}-{number:03}", "kind": like["kind"], "mix": like["mix"],
                "hosts": hosts}
        case["requests"] = guests(like["kind"], hosts, pools[family(like), like["mix"]], dice)
        print(json.dumps(case))


if __name__ == "__main__":
    main()
