//! Guests that start and do not come up, and who else might start them.

use std::time::Duration;

use bmslice_apply::{Event, GuestState, NotUp, Outcome, Phase, resume, status};
use bmslice_host::Machine;

use crate::support::*;

const RED: &str = "red-worker1";
const HUNG: &str = "Booting `Debian GNU/Linux'\r\n[    0.9] Run /init as init process\r\n[    1.4] waiting for the root device\r\n";
const PANICKED: &str = "[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs\n[    2.2] ---[ end Kernel panic ]---\n";

/// Applied and rebooted; the guests are what the second unit is left to start.
fn before_the_guests() -> Server {
    let server = lab();
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    server.fake.reboot_with(|fake| {
        resume(fake, Phase::Host, BINARY, &mut |_| {}).unwrap();
    });
    server
}

fn start(server: &Server) -> (Outcome, String) {
    let mut events: Vec<Event> = Vec::new();
    let outcome = resume(&server.fake, Phase::All, BINARY, &mut |event| {
        events.push(event);
    });
    (outcome.unwrap(), notes(&events))
}

fn not_up(outcome: &Outcome) -> &NotUp {
    match outcome {
        Outcome::NotUp { guests, .. } if guests.len() == 1 => &guests[0],
        _ => panic!("{outcome:?}"),
    }
}

#[test]
fn a_guest_that_never_comes_up_is_told_with_its_console_and_left_running() {
    let server = before_the_guests();
    server.fake.without_agent(RED, HUNG);
    let (outcome, said) = start(&server);
    let red = not_up(&outcome);
    assert_eq!(red.slice.as_str(), RED);
    assert_eq!(
        red.why,
        "runs, but its agent did not answer within 300 s, and its console shows no login"
    );
    let last = "[    1.4] waiting for the root device";
    assert_eq!(red.console.last().map(String::as_str), Some(last));
    assert!(red.describe().contains(last), "{}", red.describe());
    assert!(
        said.contains("waiting for `red-worker1` (at most 300 s)"),
        "{said}"
    );
    assert!(server.fake.elapsed() >= Duration::from_secs(300));

    // Nothing was stopped, and nothing is open.
    assert!(server.is_running(RED) && server.is_running("blue-worker1"));
    let effects = server.fake.effects();
    assert!(
        !effects
            .iter()
            .any(|effect| effect.contains("destroy") || effect.contains("shutdown"))
    );
    let seen = status(&server.fake).unwrap();
    assert_eq!(seen.open, None);
    let (red, blue) = (&seen.slices[0], &seen.slices[1]);
    assert_eq!(
        (red.state, blue.state),
        (GuestState::Running, GuestState::Running)
    );
    let why = red.not_up.as_deref().unwrap();
    assert!(why.contains("its console shows no login"), "{why}");
    assert_eq!(red.console.last().map(String::as_str), Some(last));
    assert_eq!((&blue.not_up, &blue.console[..]), (&None, &[][..]));

    // It is nobody's change to do again: it may come up yet.
    assert_eq!(server.apply().unwrap(), Outcome::Nothing);
    server.release().unwrap();
    assert!(server.domains().is_empty());
}

#[test]
fn a_guest_that_panicked_is_told_long_before_its_deadline_and_each_time() {
    let server = before_the_guests();
    server.fake.without_agent(RED, PANICKED);
    let begun = server.fake.elapsed();
    let (outcome, _) = start(&server);
    assert_eq!(not_up(&outcome).why, "runs, but its kernel panicked");
    let waited = server.fake.elapsed() - begun;
    assert!(waited < Duration::from_secs(100), "{waited:?}");
    assert!(
        waited > Duration::from_secs(40),
        "it may have rebooted by itself: {waited:?}"
    );
    let again = server.apply().unwrap();
    assert!(
        matches!(again, Outcome::NotUp { changed: 0, .. }),
        "{again:?}"
    );
    assert_eq!(not_up(&again).why, "runs, but its kernel panicked");
    let seen = status(&server.fake).unwrap();
    assert_eq!(
        seen.slices[0].not_up.as_deref(),
        Some("its kernel panicked")
    );
}

#[test]
fn a_guest_without_an_agent_is_up_when_it_asks_for_a_login() {
    let server = before_the_guests();
    server
        .fake
        .without_agent(RED, "Debian GNU/Linux 12 red ttyS0\r\n\r\nred login: ");
    let begun = server.fake.elapsed();
    let (outcome, _) = start(&server);
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    // Blue's agent is what it waited for.
    assert!(server.fake.elapsed() - begun < Duration::from_secs(60));
    assert_eq!(status(&server.fake).unwrap().slices[0].not_up, None);
}

#[test]
fn of_a_guest_that_says_nothing_at_all_it_is_said_that_it_cannot_be_told() {
    let server = before_the_guests();
    server.fake.without_agent(RED, "");
    let (outcome, said) = start(&server);
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert!(
        said.contains("`red-worker1` runs; whether it came up cannot be told"),
        "{said}"
    );
}

#[test]
fn the_spec_says_how_long_a_guest_has_and_whether_anybody_waits() {
    let spec = |seconds: u32| {
        spec().replacen(
            "  - name: red-worker1\n",
            &format!("  - name: red-worker1\n    upWithinSeconds: {seconds}\n"),
            1,
        )
    };
    for seconds in [0, 70] {
        let fake = machine();
        let plan = plan(&fake, &spec(seconds));
        let server = Server { fake, plan };
        assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
        server.fake.reboot_with(|fake| {
            resume(fake, Phase::Host, BINARY, &mut |_| {}).unwrap();
        });
        server.fake.without_agent(RED, HUNG);
        let begun = server.fake.elapsed();
        let (outcome, _) = start(&server);
        let waited = server.fake.elapsed() - begun;
        if seconds == 0 {
            assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
            assert!(waited < Duration::from_secs(60), "{waited:?}");
            assert_eq!(status(&server.fake).unwrap().slices[0].not_up, None);
        } else {
            assert!(not_up(&outcome).why.contains("within 70 s"), "{outcome:?}");
            assert!(waited < Duration::from_secs(120), "{waited:?}");
        }
    }
}

/// What the kernel tells of a process (proc_pid_stat(5)): its number, its name and its start.
fn stat(pid: u32, started: u64) -> String {
    format!("{pid} (b m) slice) R {}{started} 1 2 3\n", "0 ".repeat(18))
}

#[test]
fn a_guest_that_is_still_waited_for_is_not_up_yet() {
    let server = before_the_guests();
    let fake = &server.fake;
    fake.without_agent(RED, HUNG);
    fake.put("/proc/self/stat", stat(77, 4000));
    let mut seen = Vec::new();
    let _ = resume(fake, Phase::All, BINARY, &mut |event| {
        if !matches!(&event, Event::Note(text) if text.starts_with("waiting for")) {
            return;
        }
        // It lives; it was killed; another process has its number.
        fake.put("/proc/77/stat", stat(77, 4000));
        seen.push(status(fake).unwrap().slices[0].clone());
        fake.put("/proc/77/stat", "");
        seen.push(status(fake).unwrap().slices[0].clone());
        fake.put("/proc/77/stat", stat(77, 4001));
        seen.push(status(fake).unwrap().slices[0].clone());
        fake.put("/proc/77/stat", stat(77, 4000));
    });
    let waited: Vec<Option<u64>> = seen.iter().map(|slice| slice.waited_for).collect();
    assert_eq!(waited, [Some(300), None, None]);
    assert!(seen.iter().all(|slice| slice.not_up.is_some()), "{seen:?}");
    // Its time is over, and nobody waits any more.
    let after = status(fake).unwrap().slices[0].clone();
    assert_eq!((after.not_up.is_some(), after.waited_for), (true, None));
    assert_eq!(fake.root().list("/run/bmslice/waiting").unwrap(), [""; 0]);
}

#[test]
fn while_a_guest_is_waited_for_others_may_work_on_the_server() {
    let server = before_the_guests();
    server.fake.without_agent(RED, HUNG);
    let mut free = None;
    resume(&server.fake, Phase::All, BINARY, &mut |event| {
        if matches!(&event, Event::Note(text) if text.starts_with("waiting for")) {
            let lock = server
                .fake
                .lock("/var/lib/bmslice/lock".as_ref(), Duration::ZERO);
            free = Some((lock.is_ok(), status(&server.fake).unwrap().open));
        }
    })
    .unwrap();
    assert_eq!(free, Some((true, None)));
}

#[test]
fn libvirt_guests_starts_none_of_ours_and_all_of_the_others() {
    const LIST: &str = "/var/lib/libvirt/libvirt-guests";
    const FOREIGN: &str = "11111111-2222-3333-4444-555555555555";
    let server = lab();
    server.slice();
    let uuids: Vec<&str> = server
        .plan
        .slices()
        .iter()
        .map(|s| s.uuid.as_str())
        .collect();
    // As it writes it when the host goes down.
    server.fake.put(
        LIST,
        format!("default {} {FOREIGN} {}\n", uuids[0], uuids[1]),
    );
    server.fake.reboot_with(|fake| {
        let mut events = Vec::new();
        resume(fake, Phase::Host, BINARY, &mut |event| events.push(event)).unwrap();
        assert!(notes(&events).contains("libvirt-guests.service does not start 2 of ours"));
    });
    let list = server.fake.root().read_text(LIST).unwrap();
    assert_eq!(list, format!("default {FOREIGN}\n"));

    // Also when nothing of ours can be brought back.
    server.fake.put(LIST, format!("default {}\n", uuids[1]));
    server.fake.swap_cards("enp65s0", "enp66s0");
    server.fake.reboot_with(|fake| {
        let _ = resume(fake, Phase::Host, BINARY, &mut |_| {});
    });
    assert!(!server.fake.root().exists(LIST), "an empty list is none");
}
