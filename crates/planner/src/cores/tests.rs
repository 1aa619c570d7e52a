//! Cores of one node for a few cells.

use super::*;
use bmslice_model::CpuId;

fn core(number: u32, l3: usize) -> Core {
    Core {
        threads: vec![CpuId::new(number).unwrap()],
        l3,
        class: 0,
    }
}

fn need(vcpus: u32, pool: u32) -> CellNeed {
    CellNeed {
        vcpus: vec![vcpus],
        pool: vec![pool],
        odd: None,
    }
}

fn broken(broken: &[usize]) -> InUse<'_> {
    InUse {
        broken,
        ..InUse::default()
    }
}

/// Three L3 domains of 3, 4 and 4 cores, as after the host's reserve.
fn epyc() -> Vec<Core> {
    (1..12).map(|n| core(n, (n / 4) as usize)).collect()
}

#[test]
fn a_slice_that_fits_in_one_l3_lies_in_one() {
    let found = arrange(&epyc(), &[need(4, 0), need(3, 0)], broken(&[0])).unwrap();
    assert_eq!(found.cost, [2, 0, 1, 0]);
    // 4 cores fit only in the second or third domain; the 3 take the first, which is broken
    // anyway.
    assert_eq!(found.cells[0].vcpus, [3, 4, 5, 6]);
    assert_eq!(found.cells[1].vcpus, [0, 1, 2]);
}

#[test]
fn the_pool_lies_in_the_l3_of_its_vcpus() {
    let found = arrange(&epyc(), &[need(3, 1)], broken(&[0])).unwrap();
    assert_eq!(found.cost, [1, 0, 1, 0]);
    assert_eq!(found.cells[0].pool, [3]);
    assert_eq!(found.cells[0].vcpus, [4, 5, 6]);
}

#[test]
fn one_l3_for_the_vcpus_matters_more_than_a_near_pool() {
    let found = arrange(&epyc(), &[need(4, 1)], broken(&[0])).unwrap();
    assert_eq!(found.cost, [1, 1, 1, 0]);
}

#[test]
fn whole_l3_domains_are_kept_free() {
    let found = arrange(&epyc(), &[need(1, 0), need(1, 0), need(1, 0)], broken(&[0])).unwrap();
    assert_eq!(found.cost, [3, 0, 0, 0]);
    let found = arrange(&epyc(), &[need(2, 0), need(4, 0), need(2, 0)], broken(&[])).unwrap();
    assert_eq!(found.cost, [3, 0, 2, 0], "2 and 2 share a domain of 4");
}

#[test]
fn what_fits_by_count_is_always_found() {
    let found = arrange(&epyc(), &[need(5, 1), need(4, 1)], broken(&[])).unwrap();
    let all: std::collections::BTreeSet<usize> = found
        .cells
        .iter()
        .flat_map(|cell| cell.vcpus.iter().chain(&cell.pool))
        .copied()
        .collect();
    assert_eq!(all.len(), 11, "each core is given once");
    assert!(arrange(&epyc(), &[need(12, 0)], broken(&[])).is_none());
}

fn odd(whole: u32) -> CellNeed {
    CellNeed {
        odd: Some(Odd {
            tenant: 0,
            class: 0,
        }),
        ..need(whole + 1, 0)
    }
}

/// Cores of two threads in domains of two.
fn pairs(count: u32) -> Vec<Core> {
    let pair = |n: u32| Core {
        threads: vec![CpuId::new(2 * n).unwrap(), CpuId::new(2 * n + 1).unwrap()],
        l3: (n / 2) as usize,
        class: 0,
    };
    (0..count).map(pair).collect()
}

#[test]
fn an_odd_one_lies_beside_another_in_its_l3_else_opens_a_core_there() {
    // Of two and a half cores each, none can lie in one domain, and they share in the third.
    let found = arrange(&pairs(6), &[odd(2), odd(2)], InUse::default()).unwrap();
    assert_eq!(found.cost, [4, 0, 3, 1]);
    assert_eq!(found.cells[0].odd, Some(OddCore::Own(2)));
    assert_eq!(found.cells[1].odd, Some(OddCore::Beside(2)));
    // Of one and a half, both can; to share would touch one more.
    let found = arrange(&pairs(6), &[odd(1), odd(1)], InUse::default()).unwrap();
    assert_eq!(found.cost, [2, 0, 2, 2]);
    // Unless cores are to be spared, or are too few.
    let sparing = InUse {
        sparing: true,
        ..InUse::default()
    };
    for (cores, in_use) in [(6, sparing), (3, InUse::default())] {
        let found = arrange(&pairs(cores), &[odd(1), odd(1)], in_use).unwrap();
        assert_eq!(found.cost[3], 1, "{cores} cores");
    }
}

#[test]
fn an_open_sibling_of_what_stays_is_found_in_a_domain_without_free_cores() {
    let open = [vec![9]];
    let in_use = InUse {
        broken: &[9],
        open: &open,
        sparing: false,
    };
    // Two cores, two halves, and of the third core one half is all that is left over.
    let found = arrange(&pairs(3), &[odd(2), odd(0)], in_use).unwrap();
    let lies = found.cells.iter().map(|cell| cell.odd);
    assert_eq!(lies.filter(|odd| *odd == Some(OddCore::Open(0))).count(), 1);
    assert!(arrange(&pairs(2), &[odd(2), odd(0)], in_use).is_none());
}
