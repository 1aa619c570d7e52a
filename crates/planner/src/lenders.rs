//! Which slices would have to say `sharing: tenant` so that all fit (planning rules 2 and 10).
//!
//! Takes the slices that have no room, and whether a change fits; gives as few slices as suffice, as
//! the file has them. Keeps true: on an empty server none of them could be left out. That all of a
//! tenant's share is asked first, since sharing is a permission: where it does not help, fewer do not.

use bmslice_model::{SliceName, TenantName};
use bmslice_spec::{Sharing, SliceSpec, Slicing};

use crate::change::Change;
use crate::siblings::is_odd;

/// Slices that are asked at most: a change of more is not near, and each is held against a whole plan.
const MOST: usize = 32;

/// The fewest of one tenant, else of all tenants that have no room.
pub(crate) fn fewest(
    spec: &Slicing,
    slices: &[&SliceSpec],
    fits: &dyn Fn(&Change) -> bool,
) -> Option<Vec<SliceName>> {
    let mut tenants: Vec<&TenantName> = Vec::new();
    for slice in slices.iter().filter(|slice| is_odd(slice)) {
        if !tenants.contains(&&slice.tenant) {
            tenants.push(&slice.tenant);
        }
    }
    let fits = |slices: &[SliceName]| {
        let slices = slices.to_vec();
        !slices.is_empty() && fits(&Change::Share { slices })
    };
    let of = |tenants: &[&TenantName]| {
        let all = lenders(spec, slices, tenants);
        fits(&all).then(|| without_the_needless(all, &fits))
    };
    let each = tenants.iter().filter_map(|&tenant| of(&[tenant]));
    let mut found = each.min_by_key(Vec::len);
    if found.is_none() && tenants.len() > 1 {
        found = of(&tenants);
    }
    let place = |name: &SliceName| spec.slices.iter().position(|it| it.written() == name);
    found.as_mut()?.sort_by_key(place);
    found
}

/// Those of these tenants that do not share, and could; who has no room, and who came last, first.
fn lenders(spec: &Slicing, slices: &[&SliceSpec], tenants: &[&TenantName]) -> Vec<SliceName> {
    let others = spec.slices.iter().rev();
    let mut all: Vec<SliceName> = Vec::new();
    for slice in slices.iter().copied().chain(others) {
        if slice.sharing == Sharing::None
            && tenants.contains(&&slice.tenant)
            && is_odd(slice)
            && !all.contains(slice.written())
        {
            all.push(slice.written().clone());
        }
    }
    all.truncate(MOST);
    all
}

/// One of them that suffices alone, or all but those that are not needed, the last ones first.
fn without_the_needless(
    mut all: Vec<SliceName>,
    fits: &dyn Fn(&[SliceName]) -> bool,
) -> Vec<SliceName> {
    if let Some(one) = all.iter().find(|one| fits(std::slice::from_ref(one))) {
        return vec![one.clone()];
    }
    for at in (0..all.len()).rev() {
        let mut fewer = all.clone();
        fewer.remove(at);
        if fits(&fewer) {
            all = fewer;
        }
    }
    all
}
