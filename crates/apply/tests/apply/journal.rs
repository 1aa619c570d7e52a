//! A journal that was torn, damaged, or written by a later bmslice.

use bmslice_apply::{ApplyError, JOURNAL, JournalError, Outcome, status};
use bmslice_host::Machine;

use crate::support::*;

fn text(server: &Server) -> String {
    server.fake.root().read_text(JOURNAL).unwrap()
}

#[test]
fn a_torn_last_line_is_cut_off() {
    let server = lab();
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    let whole = text(&server);
    let cut = whole.len() - 20;
    server.fake.put_with_mode(JOURNAL, &whole[..cut], 0o600);
    // Looking does not repair.
    status(&server.fake).unwrap();
    assert_eq!(text(&server), &whole[..cut]);
    let outcome = server.reboot().unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }));
    assert!(server.is_running("blue-worker1"));
}

#[test]
fn a_last_line_with_a_wrong_checksum_is_cut_off_too() {
    let server = lab();
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    let whole = text(&server);
    let last = whole.trim_end().rfind('\n').unwrap() + 1;
    // What a power cut can leave of a block: the right length, other bytes.
    let broken = format!(
        "{}{}\n",
        &whole[..last],
        "\0".repeat(whole.len() - last - 1)
    );
    server.fake.put_with_mode(JOURNAL, broken, 0o600);
    server.reboot().unwrap().unwrap();
    assert!(server.is_running("blue-worker1"));
}

#[test]
fn damage_in_the_middle_stops_everything_and_says_what_to_do() {
    let server = lab();
    server.slice();
    let damaged = text(&server).replacen("\"total\":0", "\"total\":7", 1);
    assert_ne!(damaged, text(&server));
    server.fake.put_with_mode(JOURNAL, &damaged, 0o600);
    let before = state(&server.fake);
    for error in [server.apply().unwrap_err(), server.release().unwrap_err()] {
        assert!(
            matches!(&error, ApplyError::Journal(JournalError::Damaged { line, .. }) if *line > 1),
            "{error}"
        );
        assert!(error.to_string().contains("checksum"), "{error}");
        assert!(!error.hints().is_empty());
    }
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn a_journal_of_a_later_version_is_left_to_it() {
    let server = lab();
    server.slice();
    let newer = text(&server).replacen("{\"v\":2,", "{\"v\":3,\"more\":true,", 1);
    server.fake.put_with_mode(JOURNAL, &newer, 0o600);
    let error = server.release().unwrap_err();
    assert!(
        matches!(
            error,
            ApplyError::Journal(JournalError::Newer { found: 3, .. })
        ),
        "{error}"
    );
    assert_eq!(text(&server), newer);
    // Also when it is the last line, which could else pass for a torn one.
    server.fake.put_with_mode(
        JOURNAL,
        newer.lines().next().unwrap().to_owned() + "\n",
        0o600,
    );
    assert!(matches!(
        server.release(),
        Err(ApplyError::Journal(JournalError::Newer { .. }))
    ));
}

#[test]
fn the_journal_is_for_root_alone() {
    let server = lab();
    server.slice();
    assert_eq!(server.fake.root().mode(JOURNAL).unwrap(), 0o600);
    assert_eq!(server.fake.root().mode("/var/lib/bmslice").unwrap(), 0o700);
    assert_eq!(
        server
            .fake
            .root()
            .mode("/var/lib/bmslice/plan.json")
            .unwrap(),
        0o600
    );
}
