//! `kill -9` and power cuts, at every effect: what is interrupted can be finished, and undone.
//!
//! Whether a crash strikes before effect n + 1 or right after effect n is the same to the server, so
//! two moments are tried: in the midst of an effect, and after it.

use std::cell::Cell;
use std::collections::BTreeMap;

use bmslice_apply::{ApplyError, Outcome, Phase, resume};
use bmslice_host::Machine;
use bmslice_host::fake::{Moment, On};

use crate::support::*;

type State = BTreeMap<String, String>;

/// The server sliced without any crash, and as it was before.
fn reference(server: fn() -> Server) -> (State, State) {
    let server = server();
    let before = state(&server.fake);
    server.slice();
    (before, state(&server.fake))
}

/// What the user does after a crash: the same again, until it is done.
fn finish(server: &Server) {
    for _ in 0..3 {
        match server.apply().unwrap() {
            Outcome::Rebooting => {
                if let Some(outcome) = server.reboot() {
                    outcome.unwrap();
                }
            }
            Outcome::Nothing | Outcome::Done { .. } => return,
            other => panic!("{other:?}"),
        }
    }
    panic!("it never ends");
}

fn assert_same(what: &str, want: &State, got: &State) {
    let mut differences = differences(want, got);
    for line in &mut differences {
        *line = line.chars().take(400).collect();
    }
    assert!(
        differences.is_empty(),
        "{what}:\n{}",
        differences.join("\n")
    );
}

/// Whether half of an effect leaves something else than none of it.
fn has_half(effect: &str) -> bool {
    let halves = ["append", "install", "run qemu-img", "run genisoimage"];
    halves.iter().any(|half| effect.starts_with(half))
}

/// Crashes at effect 1, 2, 3 … of what `strike` does, and hands each broken server to `check`;
/// returns how many there were.
fn at_every_effect(
    prepare: impl Fn() -> Server,
    strike: impl Fn(&Server),
    moment: Moment,
    check: impl Fn(&Server, &str),
) -> u64 {
    for n in 1.. {
        let server = prepare();
        let log = server.fake.effects().len();
        server.fake.crash(On::Nth(n), moment);
        strike(&server);
        if !server.fake.crashed() {
            server.fake.heal();
            return n - 1;
        }
        let effects = server.fake.effects();
        let last = &effects[log..].last().unwrap();
        if moment == Moment::Half && !has_half(last) {
            // Struck before it, which is after the one before.
            continue;
        }
        let what = format!("crash at effect {n} ({moment:?}), `{last}`");
        server.fake.revive();
        check(&server, &what);
    }
    unreachable!()
}

fn first_apply(server: fn() -> Server, moment: Moment) {
    let (before, sliced) = reference(server);
    let strike = |server: &Server| {
        let _ = server.apply();
    };
    let count = at_every_effect(server, strike, moment, |server, what| {
        finish(server);
        assert_same(what, &sliced, &state(&server.fake));
        server.release().unwrap();
        assert_same(what, &before, &state(&server.fake));
    });
    assert!(count > 50, "{count} effects before the reboot");
}

#[test]
fn an_apply_that_was_cut_off_is_finished_by_the_next() {
    first_apply(lab, Moment::After);
}

#[test]
fn an_apply_that_was_cut_off_in_an_effect_is_finished_by_the_next() {
    first_apply(lab, Moment::Half);
}

#[test]
fn an_apply_that_was_cut_off_can_be_undone_at_once() {
    undone(lab);
}

fn undone(server: fn() -> Server) {
    let (before, _) = reference(server);
    let strike = |server: &Server| {
        let _ = server.apply();
    };
    for moment in [Moment::Half, Moment::After] {
        at_every_effect(server, strike, moment, |server, what| {
            server.release().unwrap();
            assert_same(what, &before, &state(&server.fake));
        });
    }
}

/// The power is cut while the units bring the slices up, and comes back.
fn boot(server: fn() -> Server, moment: Moment) {
    let (before, sliced) = reference(server);
    let prepare = || {
        let server = server();
        assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
        server
    };
    let strike = |server: &Server| {
        // The fake forgets a crash when it reboots: the two units are run by hand.
        server.fake.reboot_with(|fake| {
            let _ = resume(fake, Phase::Host, BINARY, &mut |_| {});
        });
        if !server.fake.crashed() {
            let _ = resume(&server.fake, Phase::All, BINARY, &mut |_| {});
        }
    };
    let (went_back, went_on) = (Cell::new(0), Cell::new(0));
    let count = at_every_effect(prepare, strike, moment, |server, what| {
        // The one boot that the new kernel arguments had is over: unless it was confirmed, the next
        // one is without them, and says so.
        match server.reboot() {
            Some(Err(ApplyError::FellBack { .. })) => {
                let line = server.fake.root().read_text("/proc/cmdline").unwrap();
                assert!(!line.contains("isolcpus"), "{what}: {line}");
                assert_eq!(server.try_again().unwrap(), Outcome::Rebooting, "{what}");
                let outcome = server.reboot().unwrap();
                outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
                went_back.set(went_back.get() + 1);
            }
            Some(outcome) => {
                outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
                went_on.set(went_on.get() + 1);
            }
            None => panic!("{what}: no units"),
        }
        assert_same(what, &sliced, &state(&server.fake));
        server.release().unwrap();
        assert_same(what, &before, &state(&server.fake));
    });
    assert!(count > 30, "{count} effects after the reboot");
    assert!(
        went_back.get() > 3 && went_on.get() > 8,
        "{} went back, {} were confirmed",
        went_back.get(),
        went_on.get()
    );
}

#[test]
fn a_boot_that_was_cut_off_is_finished_by_the_next() {
    boot(lab, Moment::After);
}

#[test]
fn a_boot_that_was_cut_off_in_an_effect_is_finished_by_the_next() {
    boot(lab, Moment::Half);
}

#[test]
fn a_release_that_was_cut_off_is_finished_by_the_next() {
    release(lab);
}

fn release(server: fn() -> Server) {
    let (before, _) = reference(server);
    let prepare = || {
        let server = server();
        server.slice();
        server
    };
    let strike = |server: &Server| {
        let _ = server.release();
    };
    for moment in [Moment::Half, Moment::After] {
        let count = at_every_effect(prepare, strike, moment, |server, what| {
            server.release().unwrap();
            assert_same(what, &before, &state(&server.fake));
        });
        assert!(count > 50, "{count} effects of a release");
    }
}

#[test]
fn a_release_that_was_cut_off_by_a_power_cut_is_finished_by_the_units() {
    let (before, _) = reference(lab);
    let prepare = || {
        let server = lab();
        server.slice();
        server
    };
    let strike = |server: &Server| {
        let _ = server.release();
    };
    at_every_effect(prepare, strike, Moment::After, |server, what| {
        if let Some(outcome) = server.reboot() {
            outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        // Without units, or before anything was undone, somebody has to ask again; and pages that
        // the boot loader's old arguments brought back stay until the next boot.
        server.release().unwrap();
        server.fake.reboot();
        assert_same(what, &before, &state(&server.fake));
    });
}

/// The same, where systemd-boot keeps the kernel arguments.
mod systemd_boot {
    use super::*;

    #[test]
    fn an_apply_that_was_cut_off_in_an_effect_is_finished_by_the_next() {
        first_apply(efi, Moment::Half);
    }

    #[test]
    fn an_apply_that_was_cut_off_can_be_undone_at_once() {
        undone(efi);
    }

    #[test]
    fn a_boot_that_was_cut_off_is_finished_by_the_next() {
        boot(efi, Moment::After);
    }

    #[test]
    fn a_boot_that_was_cut_off_in_an_effect_is_finished_by_the_next() {
        boot(efi, Moment::Half);
    }

    #[test]
    fn a_release_that_was_cut_off_is_finished_by_the_next() {
        release(efi);
    }
}

/// The same, where GRUB's entries keep the kernel arguments.
mod bls {
    use super::*;

    #[test]
    fn an_apply_that_was_cut_off_is_finished_by_the_next() {
        first_apply(rocky, Moment::After);
    }

    #[test]
    fn an_apply_that_was_cut_off_in_an_effect_is_finished_by_the_next() {
        first_apply(rocky, Moment::Half);
    }

    #[test]
    fn an_apply_that_was_cut_off_can_be_undone_at_once() {
        undone(rocky);
    }

    #[test]
    fn a_boot_that_was_cut_off_is_finished_by_the_next() {
        boot(rocky, Moment::After);
    }

    #[test]
    fn a_boot_that_was_cut_off_in_an_effect_is_finished_by_the_next() {
        boot(rocky, Moment::Half);
    }

    #[test]
    fn a_release_that_was_cut_off_is_finished_by_the_next() {
        release(rocky);
    }
}

/// The same, where the entry of ostree's deployment keeps the kernel arguments.
mod ostree {
    use super::*;

    #[test]
    fn an_apply_that_was_cut_off_is_finished_by_the_next() {
        first_apply(iot, Moment::After);
    }

    #[test]
    fn an_apply_that_was_cut_off_in_an_effect_is_finished_by_the_next() {
        first_apply(iot, Moment::Half);
    }

    #[test]
    fn an_apply_that_was_cut_off_can_be_undone_at_once() {
        undone(iot);
    }

    #[test]
    fn a_boot_that_was_cut_off_is_finished_by_the_next() {
        boot(iot, Moment::After);
    }

    #[test]
    fn a_boot_that_was_cut_off_in_an_effect_is_finished_by_the_next() {
        boot(iot, Moment::Half);
    }

    #[test]
    fn a_release_that_was_cut_off_is_finished_by_the_next() {
        release(iot);
    }
}
