//! Whether a plan is right, judged by somebody who did not make it.
//!
//! Takes what was asked, the server and the plan; gives every rule that does not hold. The rules
//! are a table, [`INVARIANTS`], written from the product's rules and not from the planner: the two
//! crates share no line, so that a mistake in one cannot hide in the other. Never stops at the
//! first violation, and never panics on a plan that somebody edited.

mod alone;
mod boot;
mod cpus;
mod document;
mod fleet;
mod memory;
mod network;
mod pci;
mod server;
mod smt;

use std::fmt;

use bmslice_inventory::Inventory;
use bmslice_model::SliceName;
use bmslice_plan::{Plan, SlicePlan};
use bmslice_spec::{SliceSpec, Slicing};

pub use alone::check_alone;
use server::Server;

/// A rule that a plan breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The [`Invariant::code`]: stable, for programs.
    pub code: &'static str,
    /// The slice that breaks it; `None` is the host, or all of them together.
    pub slice: Option<SliceName>,
    /// What is there and what should be; lower case, no final stop.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.slice {
            Some(slice) => write!(f, "slice `{slice}`: {} [{}]", self.text, self.code),
            None => write!(f, "{} [{}]", self.text, self.code),
        }
    }
}

/// A rule that every plan keeps.
#[derive(Debug, Clone, Copy)]
pub struct Invariant {
    /// Its name, stable.
    pub code: &'static str,
    /// What it says, for people.
    pub rule: &'static str,
    test: fn(&Case<'_>, &mut Found),
}

/// Every rule, in the order in which violations are reported.
pub const INVARIANTS: &[Invariant] = &[
    document::SPEC_DIGEST,
    document::FINGERPRINT,
    document::SLICES,
    document::APART,
    fleet::SELECTOR,
    document::AS_ASKED,
    document::IDENTITY,
    document::DISK,
    cpus::HOST_RESERVE,
    cpus::ISOLATED,
    cpus::USABLE,
    cpus::UNSHARED_CORES,
    cpus::SIBLINGS,
    cpus::WHOLE_CORES,
    cpus::IDLE,
    cpus::POOL,
    fleet::HEADROOM,
    cpus::FOREIGN_DOMAINS,
    smt::VCPU_COUNT,
    smt::PLACEMENT,
    smt::TOPOLOGY,
    memory::NUMA,
    memory::CELLS,
    memory::FITS,
    memory::HUGE_PAGES,
    boot::KERNEL_ARGS,
    boot::ISOLATION,
    boot::IOMMU,
    boot::HUGE_PAGE_ARGS,
    pci::EXISTS,
    pci::HOST_NEEDED,
    pci::GROUP,
    pci::WHOLE_OR_SPLIT,
    pci::VIRTUAL_FUNCTIONS,
    pci::QUEUES,
    network::AS_ASKED,
    network::MAC,
    network::LOCALITY,
    network::REMOTE_REPORTED,
];

/// Every rule that `plan` breaks; none when it is right.
#[must_use]
pub fn check(spec: &Slicing, inventory: &Inventory, plan: &Plan) -> Vec<Violation> {
    check_following(spec, inventory, plan, None)
}

/// As [`check`], on a server where a plan is in force: the guests that run by it are no strangers,
/// and those that are not asked for any more end before their place is taken.
#[must_use]
pub fn check_following(
    spec: &Slicing,
    inventory: &Inventory,
    plan: &Plan,
    in_force: Option<&Plan>,
) -> Vec<Violation> {
    let case = Case {
        spec,
        inventory,
        plan,
        in_force,
        server: Server::of(inventory),
    };
    all(&case, INVARIANTS)
}

/// What breaks these rules.
fn all(case: &Case<'_>, rules: &[Invariant]) -> Vec<Violation> {
    let mut found = Found::default();
    for invariant in rules {
        found.code = invariant.code;
        (invariant.test)(case, &mut found);
    }
    found.violations
}

/// What a rule looks at.
struct Case<'a> {
    spec: &'a Slicing,
    inventory: &'a Inventory,
    plan: &'a Plan,
    in_force: Option<&'a Plan>,
    server: Server<'a>,
}

impl<'a> Case<'a> {
    /// Each slice of the plan with what was asked for it. One that nobody asked for is a violation
    /// of its own and is left out here.
    fn slices(&self) -> impl Iterator<Item = (&'a SlicePlan, &'a SliceSpec)> {
        let asked = &self.spec.slices;
        self.plan.slices().iter().filter_map(|slice| {
            let spec = asked.iter().find(|spec| spec.name == slice.name)?;
            Some((slice, spec))
        })
    }
}

/// Collects violations.
#[derive(Default)]
struct Found {
    code: &'static str,
    violations: Vec<Violation>,
}

impl Found {
    /// About the host or the whole plan.
    fn host(&mut self, text: impl Into<String>) {
        self.push(None, text.into());
    }

    fn slice(&mut self, slice: &SlicePlan, text: impl Into<String>) {
        self.push(Some(slice.name.clone()), text.into());
    }

    fn push(&mut self, slice: Option<SliceName>, text: String) {
        self.violations.push(Violation {
            code: self.code,
            slice,
            text,
        });
    }

    /// What `what` is in the plan, and what it should be.
    fn differs<T: PartialEq + fmt::Debug>(
        &mut self,
        slice: &SlicePlan,
        what: &str,
        plan: &T,
        asked: &T,
    ) {
        if plan != asked {
            self.slice(slice, format!("{what} is {plan:?}, asked was {asked:?}"));
        }
    }
}
