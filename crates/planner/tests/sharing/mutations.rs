//! The planner's own plans, on random servers, with one thing of who shares with whom made wrong:
//! the checker, or the plan itself, always catches it.

use super::*;
use bmslice_model::CpuSet;
use bmslice_plan::PlanParts;
use prop::sample::Index;
use proptest::test_runner::TestRunner;

/// What is made wrong; `None` where a plan has nothing of the kind.
type Wrong = fn(&mut Case, Index, Index) -> Option<()>;

struct Case {
    asked: Vec<SliceSpec>,
    server: Inventory,
    parts: PlanParts,
}

impl Case {
    /// One of the CPUs that are there, but for those of a set.
    fn another(&self, but: &CpuSet, which: Index) -> Option<CpuId> {
        let cpus = self.server.cpus.iter().map(|cpu| cpu.id);
        one(cpus.filter(|cpu| !but.contains(*cpu)), which)
    }

    /// A slice that has a core with another one, and that other one.
    fn pair(&self, which: Index) -> Option<(usize, usize)> {
        let slices = &self.parts.slices;
        let all = (0..slices.len()).flat_map(|a| (0..slices.len()).map(move |b| (a, b)));
        one(
            all.filter(|&(a, b)| a != b && slices[a].shares_a_core_with(&slices[b])),
            which,
        )
    }

    /// The vCPU of a slice that lies beside another slice's.
    fn lent(&self, (a, b): (usize, usize)) -> Option<usize> {
        let beside = &self.parts.slices[b].shared_siblings;
        let mut vcpus = self.parts.slices[a].vcpus.iter();
        vcpus.position(|cpu| beside.contains(*cpu))
    }

    /// Two slices have cores in common no more, as each of them says.
    fn unsay(&mut self, (a, b): (usize, usize)) {
        let of = |at: usize| self.parts.slices[at].vcpu_cpus();
        let (mine, theirs) = (of(a), of(b));
        let slices = &mut self.parts.slices;
        slices[a].shared_siblings = slices[a].shared_siblings.difference(&theirs);
        slices[b].shared_siblings = slices[b].shared_siblings.difference(&mine);
    }

    /// What is free is what nobody has.
    fn account(&mut self) {
        let host = &mut self.parts.host;
        host.free = host.isolated.clone();
        for slice in &self.parts.slices {
            host.free = host.free.difference(&slice.held());
        }
    }
}

fn one<T>(all: impl Iterator<Item = T>, which: Index) -> Option<T> {
    let mut all: Vec<T> = all.collect();
    (!all.is_empty()).then(|| all.swap_remove(which.index(all.len())))
}

const WRONG: &[(&str, Wrong)] = &[
    ("a vCPU on another CPU", |case, a, b| {
        let at = one(0..case.parts.slices.len(), a)?;
        let vcpu = b.index(case.parts.slices[at].vcpus.len());
        let was = case.parts.slices[at].vcpus[vcpu];
        case.parts.slices[at].vcpus[vcpu] = case.another(&was.into(), a)?;
        Some(())
    }),
    (
        "a vCPU on another CPU, and what is free by it",
        |case, a, b| {
            let at = one(0..case.parts.slices.len(), a)?;
            let vcpu = b.index(case.parts.slices[at].vcpus.len());
            let was = case.parts.slices[at].vcpus[vcpu];
            case.parts.slices[at].vcpus[vcpu] = case.another(&was.into(), b)?;
            case.account();
            Some(())
        },
    ),
    (
        "one that shares leaves its core, and says so",
        |case, a, b| {
            let pair = case.pair(a)?;
            let vcpu = case.lent(pair)?;
            let was = case.parts.slices[pair.0].vcpus[vcpu];
            let held = case.parts.slices.iter().map(SlicePlan::held);
            let held = held.fold(CpuSet::from(was), |all, held| all.union(&held));
            let to = case.another(&held, b)?;
            case.unsay(pair);
            case.parts.slices[pair.0].vcpus[vcpu] = to;
            case.account();
            Some(())
        },
    ),
    (
        "a sibling that is lent, and nobody says so",
        |case, a, _| {
            let pair = case.pair(a)?;
            case.unsay(pair);
            Some(())
        },
    ),
    ("a sibling that is lent, and one says so", |case, a, _| {
        let (borrower, _) = case.pair(a)?;
        case.parts.slices[borrower].shared_siblings = CpuSet::new();
        Some(())
    }),
    ("a sibling that is lent, and idle too", |case, a, _| {
        let (borrower, _) = case.pair(a)?;
        let slice = &mut case.parts.slices[borrower];
        slice.idle = slice.siblings();
        Some(())
    }),
    ("an idle sibling that is free", |case, a, _| {
        let idle = |slice: &SlicePlan| !slice.idle.is_empty();
        let slices = &case.parts.slices;
        let at = one((0..slices.len()).filter(|&at| idle(&slices[at])), a)?;
        case.parts.slices[at].idle = CpuSet::new();
        case.account();
        Some(())
    }),
    ("one of two is of another tenant", |case, a, _| {
        let (borrower, _) = case.pair(a)?;
        let other: bmslice_model::TenantName = "stranger".parse().ok()?;
        case.asked[borrower].tenant = other.clone();
        case.parts.slices[borrower].tenant = other;
        Some(())
    }),
    (
        "one of two is of another tenant, and nobody says that they share",
        |case, a, _| {
            let pair = case.pair(a)?;
            let other: bmslice_model::TenantName = "stranger".parse().ok()?;
            case.asked[pair.0].tenant = other.clone();
            case.parts.slices[pair.0].tenant = other;
            case.unsay(pair);
            Some(())
        },
    ),
    ("one of two did not ask for it", |case, a, _| {
        let (borrower, _) = case.pair(a)?;
        case.asked[borrower].sharing = Sharing::None;
        Some(())
    }),
    (
        "a full core is lent: a vCPU of each of two slices changes places",
        |case, a, b| {
            let slices = &case.parts.slices;
            let all = (0..slices.len()).flat_map(|x| (0..x).map(move |y| (x, y)));
            // Of slices without an odd vCPU; then two cores have two owners each.
            let full = |at: usize| slices[at].vcpus.len().is_multiple_of(2);
            let (x, y) = one(all.filter(|&(x, y)| full(x) && full(y)), a)?;
            let (i, j) = (
                b.index(slices[x].vcpus.len()),
                a.index(slices[y].vcpus.len()),
            );
            let (mine, theirs) = (slices[x].vcpus[i], slices[y].vcpus[j]);
            case.parts.slices[x].vcpus[i] = theirs;
            case.parts.slices[y].vcpus[j] = mine;
            Some(())
        },
    ),
    (
        "an idle sibling of one goes to the odd vCPU of another that may not have it",
        |case, a, b| {
            let slices = &case.parts.slices;
            let idle = |at: &usize| !slices[*at].idle.is_empty();
            let lender = one((0..slices.len()).filter(idle), a)?;
            let to = one(slices[lender].idle.iter(), b)?;
            let may = |at: usize| {
                let (x, y) = (&case.asked[lender], &case.asked[at]);
                let share = x.sharing == Sharing::Tenant && y.sharing == Sharing::Tenant;
                share && x.tenant == y.tenant && x.vcpus % 2 == 1
            };
            let others = (0..slices.len()).filter(|&at| at != lender && !may(at));
            let borrower = one(others, b)?;
            let vcpu = a.index(slices[borrower].vcpus.len());
            let was = slices[borrower].vcpus[vcpu];
            case.parts.slices[borrower].vcpus[vcpu] = to;
            case.parts.slices[borrower].shared_siblings = slices_beside(case, lender, to)?;
            case.parts.slices[lender].idle = case.parts.slices[lender].idle.difference(&to.into());
            let lent = &case.parts.slices[lender].shared_siblings;
            case.parts.slices[lender].shared_siblings = lent.union(&to.into());
            case.parts.slices[borrower].idle =
                case.parts.slices[borrower].idle.union(&CpuSet::from(was));
            case.account();
            Some(())
        },
    ),
];

/// The CPU beside one, on which a slice runs.
fn slices_beside(case: &Case, slice: usize, cpu: CpuId) -> Option<CpuSet> {
    let mut cpus = case.server.cpus.iter();
    let siblings = &cpus.find(|it| it.id == cpu)?.siblings;
    Some(siblings.intersection(&case.parts.slices[slice].vcpu_cpus()))
}

/// Whether nothing is objected to.
fn passes(case: Case) -> bool {
    let Ok(spec) = Slicing::new(HostSpec::default(), case.asked) else {
        return false;
    };
    let mut parts = case.parts;
    parts.spec_digest.clone_from(&spec.digest);
    let Ok(plan) = Plan::new(parts) else {
        return false;
    };
    bmslice_check::check(&spec, &case.server, &plan).is_empty()
}

/// A server, and slices of two tenants.
fn drawn() -> impl Strategy<Value = (Inventory, Vec<SliceSpec>)> {
    let l3 = prop::sample::select(vec![2u32, 3, 16]);
    let shape = (1..=2u32, 3..=8u32, l3, any::<bool>());
    let vcpus = prop::sample::select(vec![1u32, 1, 2, 3, 3, 4, 5, 7]);
    let asked = (vcpus, any::<bool>(), prop::bool::weighted(0.8), 0..=1u32);
    (shape, prop::collection::vec(asked, 2..9)).prop_map(|(shape, asked)| {
        let (nodes, cores, l3, consecutive) = shape;
        let shape = Shape {
            nodes,
            cores,
            l3,
            consecutive,
            memory: ByteSize::from_gib(64),
            ..Shape::lab()
        };
        let each = asked.into_iter().enumerate();
        let slices = each.map(|(at, (vcpus, blue, shares, pool))| {
            let tenant = if blue { "blue" } else { "red" };
            let mut s = of(red(&format!("s{at}"), vcpus), tenant);
            (s.numa, s.emulator_cores) = (Numa::Single, pool);
            if shares { s } else { alone(s) }
        });
        (shape.server(), slices.collect())
    })
}

#[test]
fn rule_2_whatever_is_made_wrong_in_a_plan_that_shares_is_caught() {
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut tried = vec![0; WRONG.len()];
    let counted = std::cell::RefCell::new(&mut tried);
    let strategy = (drawn(), any::<Index>(), any::<Index>());
    let all = TestRunner::new(config).run(&strategy, |((server, mut asked), a, b)| {
        // As many of them as fit.
        let found = loop {
            if asked.is_empty() {
                return Ok(());
            }
            match plan(&spec(asked.clone()), &server) {
                Ok(found) => break found,
                Err(_) => asked.pop(),
            };
        };
        let right = || Case {
            asked: asked.clone(),
            server: server.clone(),
            parts: found.parts().clone(),
        };
        prop_assert!(passes(right()));
        for (at, (what, wrong)) in WRONG.iter().enumerate() {
            let mut case = right();
            if wrong(&mut case, a, b).is_none() {
                continue;
            }
            counted.borrow_mut()[at] += 1;
            let said = format!("{:#?}", case.parts.slices);
            prop_assert!(!passes(case), "{what}: {said}\n{}", found.to_json());
        }
        Ok(())
    });
    all.unwrap_or_else(|failed| panic!("{failed}"));
    for ((what, _), tried) in WRONG.iter().zip(tried) {
        assert!(tried > 0, "{what}: never tried");
    }
}
