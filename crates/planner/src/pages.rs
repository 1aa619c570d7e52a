//! Which huge pages there are to be, and which stay though nobody needs them any more.
//!
//! Takes what was placed and the plan in force; gives pages by node and size.

use bmslice_model::{ByteSize, KernelArg};
use bmslice_plan::{HugePagePlan, Plan, SlicePlan};
use bmslice_spec::Slicing;

use crate::kernel;
use crate::problem::Site;
use crate::server::Node;

/// The pages of each size that slices need on each node, or at boot no fewer than these.
pub(crate) fn needed(
    spec: &Slicing,
    site: &Site<'_>,
    slices: &[SlicePlan],
    no_fewer: &[HugePagePlan],
) -> Vec<HugePagePlan> {
    let memory = &site.problem.memory;
    let mut all = Vec::new();
    for node in &site.server.nodes {
        for &bytes in &memory.sizes {
            let size = ByteSize::from_bytes(bytes);
            let each = slices.iter().map(|slice| slice.pages_on(node.id, size));
            let needed: u64 = each.sum();
            let at_boot = kernel::at_boot(spec.host.isolation, size);
            let before = no_fewer
                .iter()
                .find(|pages| at_boot && (pages.node, pages.size) == (node.id, size));
            let count = needed.max(before.map_or(0, |pages| pages.count));
            if count > 0 {
                all.push(HugePagePlan {
                    node: node.id,
                    size,
                    count,
                    at_boot,
                });
            }
        }
    }
    all
}

/// The pages with those of the boot arguments in force that no slice needs any more, where nothing
/// but they would have the server reboot, with all guests that nobody touched, and where their
/// memory is not needed for something else.
pub(crate) fn that_stay(
    spec: &Slicing,
    site: &Site<'_>,
    slices: &[SlicePlan],
    args: &[KernelArg],
    previous: &Plan,
) -> Option<Vec<HugePagePlan>> {
    let in_force = &previous.host().kernel_args;
    let others = |args: &[KernelArg]| -> Vec<KernelArg> {
        let args = args.iter().filter(|arg| !kernel::is_about_pages(arg));
        args.cloned().collect()
    };
    if args == in_force || others(args) != others(in_force) {
        return None;
    }
    let asked = kernel::pages(in_force);
    let all = needed(spec, site, slices, &asked);
    // With more than there are the server reboots in any case, and then it gets what is needed.
    let at_boot = all.iter().filter(|pages| pages.at_boot);
    if at_boot.clone().count() != asked.len() || !at_boot.clone().all(|it| asked.contains(it)) {
        return None;
    }
    let memory = &site.problem.memory;
    let plain = |slices: &[SlicePlan], node: &Node| -> u64 {
        let slices = slices.iter().filter(|slice| slice.huge_pages.is_none());
        let cells = slices.flat_map(|slice| &slice.cells);
        let cells = cells.filter(|cell| cell.node == node.id);
        cells.map(|cell| cell.memory.bytes()).sum()
    };
    // What fitted before does so now, though memory differs a little from boot to boot.
    let as_before = all == previous.host().huge_pages;
    let fits = |(at, node): (usize, &Node)| {
        let of = |&bytes: &u64| {
            let size = ByteSize::from_bytes(bytes);
            let mut all = all.iter();
            let pages = all.find(|pages| (pages.node, pages.size) == (node.id, size));
            pages.map_or(0, |pages| pages.count)
        };
        let pages: Vec<u64> = memory.sizes.iter().map(of).collect();
        let asked = plain(slices, node);
        (as_before && asked <= plain(previous.slices(), node)) || memory.fits(at, &pages, asked)
    };
    let mut nodes = site.server.nodes.iter().enumerate();
    nodes.all(fits).then_some(all)
}
