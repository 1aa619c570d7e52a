//! The nearest change with which everything fits (planning rule 10).
//!
//! Takes a refusal and the server as it stands; tries changes from the nearest to the farthest there,
//! and gives the first that does. Nothing is proposed that was not tried.

use std::cell::OnceCell;

use bmslice_model::{ByteSize, SliceName};
use bmslice_spec::{SliceSpec, Slicing};

use crate::Running;
use crate::candidates::{
    any_nic, fewer_vcpus, not_apart, other_nics, other_nodes, pack, pool_on_host, reserves, spread,
    virtual_functions, whole, without,
};
use crate::change::Change;
use crate::demand;
use crate::ground::Standing;
use crate::lenders;
use crate::refusal::Refusal;

/// Changes that are put together at most.
const ROUNDS: usize = 6;

/// The nearest change that makes everything fit; or, where no single one does, the nearest one
/// that makes the slices fit that the refusal is about.
pub(crate) fn nearest(
    spec: &Slicing,
    standing: &Standing<'_>,
    refusal: &Refusal,
) -> Option<Change> {
    settles(spec, standing, refusal).or_else(|| {
        let first = in_part(spec, standing, refusal);
        let whole = first
            .as_ref()
            .and_then(|first| one_by_one(spec, standing, first));
        whole
            .or_else(|| leave_out(spec, standing, first.as_ref()))
            .or_else(|| Some(Change::Partly(Box::new(first?))))
    })
}

/// Slices that are left out, after a first change: the last ones, until the others fit, but for
/// those that fit all the same.
fn leave_out(spec: &Slicing, standing: &Standing<'_>, first: Option<&Change>) -> Option<Change> {
    /// Slices that are tried again one by one.
    const TRIED_AGAIN: usize = 16;
    let (mut host, mut slices) = (spec.host.clone(), spec.slices.clone());
    if let Some(first) = first {
        first.make(&mut host, &mut slices);
        // To leave slices out needs no other change of them first.
        if slices.len() < spec.slices.len() {
            return leave_out(spec, standing, None);
        }
    }
    let changed: Vec<bool> = (spec.slices.iter().zip(&slices))
        .map(|(was, now)| was != now)
        .collect();
    let fit = |kept: &[bool]| {
        let kept = slices.iter().zip(kept).filter(|(_, kept)| **kept);
        let kept: Vec<SliceSpec> = kept.map(|(slice, _)| slice.clone()).collect();
        let all: Vec<&SliceSpec> = kept.iter().collect();
        Slicing::holds(&host, &kept).is_ok() && standing.fits(&host, &all, Running::Stays)
    };
    let first_of = |count: usize| (0..slices.len()).map(|at| at < count).collect();
    let (mut low, mut high) = (0, slices.len());
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        let kept: Vec<bool> = first_of(middle);
        if fit(&kept) {
            low = middle;
        } else {
            high = middle;
        }
    }
    let mut kept: Vec<bool> = first_of(low);
    // Of replicas the first are kept, so that their number says which.
    let again = (low..slices.len()).filter(|&at| slices[at].replica.is_none());
    for at in again.take(TRIED_AGAIN) {
        kept[at] = true;
        kept[at] = fit(&kept);
    }
    if changed
        .iter()
        .zip(&kept)
        .any(|(changed, kept)| *changed && !kept)
    {
        return leave_out(spec, standing, None);
    }
    if !kept.contains(&true) {
        return None;
    }
    let mut changes: Vec<Change> = first.cloned().into_iter().collect();
    let mut all: Vec<SliceName> = Vec::new();
    for (slice, _) in slices.iter().zip(&kept).filter(|(_, kept)| !**kept) {
        if slice.replica.as_ref().is_some_and(|it| it.number > 1) {
            let last = all.last() == Some(slice.written());
            let told = matches!(changes.last(), Some(Change::Replicas { slice: of, .. }) if of == slice.written());
            if !last && !told {
                changes.extend(without(slice));
            }
        } else {
            all.push(slice.written().clone());
        }
    }
    match all.as_slice() {
        [] => {}
        [one] => changes.push(Change::Without { slice: one.clone() }),
        _ => {
            let rest = slices.iter().zip(&kept).filter(|(_, kept)| **kept);
            let mut rest: Vec<SliceName> = rest.map(|(s, _)| s.written().clone()).collect();
            rest.dedup();
            changes.push(Change::LeaveOut { slices: all, rest });
        }
    }
    match changes.len() {
        0 => None,
        1 => changes.pop(),
        _ => Some(Change::Together(changes)),
    }
}

/// What settles the first refusal, then what settles the next, until nothing is refused.
fn one_by_one(spec: &Slicing, standing: &Standing<'_>, first: &Change) -> Option<Change> {
    let mut changed = first.apply(spec)?;
    let mut changes = vec![first.clone()];
    while changes.len() < ROUNDS {
        let refusal = crate::place(&changed, standing, Running::Stays).err()?;
        refusal.has_change().then_some(())?;
        let whole = settles(&changed, standing, &refusal);
        let (next, last) = match whole {
            Some(change) => (change, true),
            None => (in_part(&changed, standing, &refusal)?, false),
        };
        // To leave slices out settles everything: that is no answer to the first question.
        if matches!(
            next,
            Change::Without { .. }
                | Change::LeaveOut { .. }
                | Change::Replicas { .. }
                | Change::Repack
        ) {
            return None;
        }
        changed = next.apply(&changed)?;
        match next {
            Change::Together(more) => changes.extend(more),
            next => changes.push(next),
        }
        if last {
            return Some(Change::Together(changes));
        }
    }
    None
}

/// What settles the refusal alone, where something else is refused as well.
fn in_part(spec: &Slicing, standing: &Standing<'_>, refusal: &Refusal) -> Option<Change> {
    let about = refusal.slices();
    let among = spec.slices.iter();
    let among = among.filter(|slice| about.contains(&&slice.name));
    let among = Slicing::new(spec.host.clone(), among.cloned().collect()).ok()?;
    // What has room by itself is refused for the sake of others: nothing of it is to be settled.
    let all: Vec<&SliceSpec> = among.slices.iter().collect();
    if all.len() == spec.slices.len() || standing.fits(&among.host, &all, Running::Stays) {
        return None;
    }
    settles(&among, standing, refusal)
}

/// The nearest change of one slice with which it fits beside the others of a spec, and its rank, when
/// that is at most `within`.
pub(crate) fn of_slice(
    spec: &Slicing,
    standing: &Standing<'_>,
    slice: &SliceName,
    within: usize,
) -> Option<(usize, Change)> {
    let slices = spec.slices.iter().filter(|other| other.name == *slice);
    no_room(
        spec,
        standing,
        &slices.collect::<Vec<_>>(),
        within.min(LEFT_OUT - 1),
    )
}

/// Whether a spec fits with a change.
fn fits(spec: &Slicing, standing: &Standing<'_>, change: &Change) -> bool {
    let running = if *change == Change::Repack {
        Running::MayMove
    } else {
        Running::Stays
    };
    let (mut host, mut slices) = (spec.host.clone(), spec.slices.clone());
    change.make(&mut host, &mut slices);
    let all: Vec<&SliceSpec> = slices.iter().collect();
    Slicing::holds(&host, &slices).is_ok() && standing.fits(&host, &all, running)
}

/// The nearest change with which a whole spec fits.
fn settles(spec: &Slicing, standing: &Standing<'_>, refusal: &Refusal) -> Option<Change> {
    // Who came last gives way first.
    let slices: Vec<&SliceSpec> = spec
        .slices
        .iter()
        .rev()
        .filter(|slice| refusal.slices().contains(&&slice.name))
        .collect();
    if matches!(refusal, Refusal::NoRoom { .. }) {
        return no_room(spec, standing, &slices, LEFT_OUT).map(|(_, change)| change);
    }
    let fits = |change: &Change| fits(spec, standing, change);
    let together = slices;
    let slices = hopeful(spec, &together, &fits);
    let each = |changes: &dyn Fn(&SliceSpec) -> Vec<Change>| {
        let mut all = slices.iter().flat_map(|slice| changes(slice));
        all.find(|change| fits(change))
    };
    let split = || virtual_functions(&together).into_iter();
    split()
        .filter(|_| !matches!(refusal, Refusal::NicHostNeeds { .. }))
        .find(|change| fits(change))
        .or_else(|| each(&|slice| other_nics(slice, standing.inventory)))
        .or_else(|| split().find(|change| fits(change)))
        .or_else(|| each(&whole))
        .or_else(|| each(&without).filter(|_| is_contended(refusal)))
}

/// Whether slices are refused only for the sake of others.
fn is_contended(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::VfTotal { .. }
            | Refusal::NicGivenTwice { .. }
            | Refusal::WholeAndSplit { .. }
            | Refusal::GroupShared { .. }
    )
}

/// Those whose changes may make it fit: without them, it does. No change of a slice leaves more room
/// than to leave it out, and of thousands too many none needs to be tried in every way.
fn hopeful<'a>(
    spec: &Slicing,
    slices: &[&'a SliceSpec],
    fits: &dyn Fn(&Change) -> bool,
) -> Vec<&'a SliceSpec> {
    let left_out = |slice: &SliceSpec| Change::Without {
        slice: slice.written().clone(),
    };
    let mut written: Vec<&SliceName> = slices.iter().map(|slice| slice.written()).collect();
    written.dedup();
    let nobody_else = spec.slices.iter().all(|s| written.contains(&s.written()));
    let all = Change::Together(slices.iter().map(|slice| left_out(slice)).collect());
    if !nobody_else && !fits(&all) {
        return Vec::new();
    }
    let helps = |slice: &SliceSpec| written.len() == 1 || fits(&left_out(slice));
    slices
        .iter()
        .copied()
        .filter(|slice| helps(slice))
        .collect()
}

/// The rank of one more server among changes.
pub(crate) const ONE_MORE: usize = 15;
/// The rank of a slice that is left out.
const LEFT_OUT: usize = 18;

/// The nearest change for slices that have no room, and its rank: how much it changes of what is
/// wanted, in the order in which changes are tried. None is tried beyond `within`.
fn no_room(
    spec: &Slicing,
    standing: &Standing<'_>,
    slices: &[&SliceSpec],
    within: usize,
) -> Option<(usize, Change)> {
    let fits = |change: &Change| fits(spec, standing, change);
    // Of those whose changes take several of them to help, all.
    let together = slices;
    let slices = &hopeful(spec, slices, &fits)[..];
    let each = |changes: &dyn Fn(&SliceSpec) -> Vec<Change>| {
        let mut all = slices.iter().flat_map(|slice| changes(slice));
        all.find(|change| fits(change))
    };
    let inventory = standing.inventory;
    let any = |changes: Vec<Change>| changes.into_iter().find(|change| fits(change));
    let most =
        |find: &dyn Fn(&SliceSpec) -> Option<Change>| slices.iter().find_map(|slice| find(slice));
    let in_force = || standing.previous.map(|_| Change::Repack);
    let fewer = |slice: &SliceSpec| fewer_vcpus(slice, slice.vcpus.saturating_sub(2));
    // One slice beside those that share already, or its own replicas, loses nothing of what it asks
    // for. Several give up more together than one that gets two vCPUs fewer.
    let found = OnceCell::new();
    let lenders = || {
        found
            .get_or_init(|| lenders::fewest(spec, together, &fits))
            .clone()
    };
    let lends = |few: &dyn Fn(usize) -> bool| {
        let slices = lenders().filter(|slices| few(slices.len()));
        slices.map(|slices| Change::Share { slices })
    };
    let steps: [(usize, &dyn Fn() -> Option<Change>); 17] = [
        (1, &|| in_force().filter(|change| fits(change))),
        (2, &|| each(&|slice| other_nodes(slice, inventory))),
        (3, &|| each(&any_nic)),
        (4, &|| lends(&|slices| slices == 1)),
        (5, &|| each(&fewer)),
        (6, &|| each(&|slice| spread(slice, inventory))),
        (7, &|| any(virtual_functions(together))),
        (8, &|| lends(&|slices| slices > 1)),
        (9, &|| each(&pack)),
        (10, &|| each(&pool_on_host)),
        (11, &|| most(&|slice| less_memory(spec, slice, &fits))),
        (12, &|| {
            less_headroom(spec, &fits).or_else(|| any(reserves(spec)))
        }),
        (13, &|| most(&|slice| most_vcpus(slice, &fits))),
        (14, &|| each(&|slice| other_nics(slice, inventory))),
        (16, &|| most(&|slice| smaller(spec, slice, &fits))),
        (17, &|| each(&not_apart)),
        (LEFT_OUT, &|| each(&without)),
    ];
    let mut steps = steps.iter().take_while(|(rank, _)| *rank <= within);
    steps.find_map(|(rank, step)| Some((*rank, step()?)))
}

/// The largest number below this one that fits, where smaller ones fit when larger ones do, so that
/// halving finds it. 0 is not asked.
fn most_below(mut high: u32, fits: impl Fn(u32) -> bool) -> u32 {
    let mut low = 0;
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The most headroom that leaves room.
fn less_headroom(spec: &Slicing, fits: &dyn Fn(&Change) -> bool) -> Option<Change> {
    let with = |cores: u32| Change::Headroom { cores };
    let asked = spec.host.headroom_cores;
    let some = asked > 0 && fits(&with(0));
    some.then(|| with(most_below(asked, |cores| fits(&with(cores)))))
}

/// The most vCPUs that fit.
fn most_vcpus(slice: &SliceSpec, fits: &dyn Fn(&Change) -> bool) -> Option<Change> {
    let cells = demand::cells(slice);
    let with = |each: u32| Change::Vcpus {
        slice: slice.written().clone(),
        vcpus: each * cells,
    };
    // Where neither one nor two of each cell help, none of the halves is asked.
    let few = (1..=2).filter(|each| each * cells < slice.vcpus);
    if !few.into_iter().any(|each| fits(&with(each))) {
        return None;
    }
    let low = most_below(slice.vcpus / cells, |each| fits(&with(each)));
    (low > 0).then(|| with(low)).filter(|change| fits(change))
}

/// Fewer vCPUs and less memory together, and NICs anywhere if need be: of what is too large in more
/// than one way.
fn smaller(spec: &Slicing, slice: &SliceSpec, fits: &dyn Fn(&Change) -> bool) -> Option<Change> {
    let page = slice.hugepages.unwrap_or(ByteSize::from_gib(1));
    let little = Change::Memory {
        slice: slice.written().clone(),
        size: ByteSize::from_bytes(page.bytes().checked_mul(u64::from(demand::cells(slice)))?),
    };
    let firsts = std::iter::once(None).chain(any_nic(slice).into_iter().map(Some));
    firsts.into_iter().find_map(|first| {
        let first: Vec<Change> = first.into_iter().collect();
        let all = |more: &[Change]| Change::Together([&first[..], more].concat());
        // As many vCPUs as would fit with hardly any memory, then as much memory as they leave.
        let fewer = most_vcpus(slice, &|vcpus| fits(&all(&[vcpus.clone(), little.clone()])));
        let Some(fewer) = fewer else {
            return less_memory(spec, slice, &|size| fits(&all(std::slice::from_ref(size))))
                .map(|size| all(&[size]));
        };
        let less = less_memory(spec, slice, &|size| {
            fits(&all(&[fewer.clone(), size.clone()]))
        })?;
        Some(all(&[fewer.clone(), less]))
    })
}

/// No guest has less memory than this.
const LEAST: ByteSize = ByteSize::from_mib(32);

/// The most memory that fits.
fn less_memory(
    spec: &Slicing,
    slice: &SliceSpec,
    fits: &dyn Fn(&Change) -> bool,
) -> Option<Change> {
    let page = slice.hugepages.unwrap_or(ByteSize::from_mib(1));
    let step = page.bytes().checked_mul(u64::from(demand::cells(slice)))?;
    let with = |steps: u64| Change::Memory {
        slice: slice.written().clone(),
        size: ByteSize::from_bytes(steps * step),
    };
    // What is too little for any guest counts as fitting, to find the most that fits.
    let enough = |steps: u64| {
        let change = with(steps);
        let (mut host, mut slices) = (spec.host.clone(), spec.slices.clone());
        change.make(&mut host, &mut slices);
        Slicing::holds(&host, &slices).is_err() || fits(&change)
    };
    let (mut low, mut high) = (0, slice.memory.bytes().checked_div(step)?);
    // Where even the least does not help, none of the halves is asked.
    let least = LEAST.bytes().div_ceil(step).max(1);
    if least >= high || !fits(&with(least)) {
        return None;
    }
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if enough(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(with(low)).filter(|change| fits(change))
}
