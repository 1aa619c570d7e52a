//! What ostree and rpm-ostree do between `apply` and its reboot, in the boot on trial, and after it: each
//! deployment makes the folder of the entries anew, and takes its arguments from the one before.

use bmslice_apply::{ApplyError, ApplyOptions, Event, Outcome, Phase, resume, status};
use bmslice_host::Machine;

use crate::ostree::{ENTRIES, count, kargs, read, rpm_ostree, said};
use crate::support::*;

#[test]
fn an_update_has_the_arguments_and_a_release_takes_them_out_of_both_deployments() {
    let server = iot();
    let own = kargs(&server.fake);
    server.slice();
    rpm_ostree(&server.fake, &["upgrade"]);
    server.reboot().unwrap().unwrap();
    let line = cmdline(&server.fake);
    assert!(
        line.contains("6.8.11") && line.contains("isolcpus="),
        "{line}"
    );
    assert_eq!(server.apply().unwrap(), Outcome::Nothing, "all of it holds");
    // Somebody's own, by rpm-ostree: among them one that ours have, too.
    let theirs = [
        "kargs",
        "--append=nosmt",
        "--append=iommu=pt",
        "--delete=rw",
    ];
    rpm_ostree(&server.fake, &theirs);
    server.reboot().unwrap().unwrap();
    assert_eq!(server.apply().unwrap(), Outcome::Nothing);
    assert_eq!(count(&kargs(&server.fake), "iommu=pt"), 2);
    server.release().unwrap();
    let left = kargs(&server.fake);
    let words = left.iter().filter(|word| !word.starts_with("ostree="));
    let mut wanted: Vec<&String> = own
        .iter()
        .filter(|word| *word != "rw" && !word.starts_with("ostree="))
        .collect();
    let added = ["nosmt".to_owned(), "iommu=pt".to_owned()];
    wanted.extend(&added);
    assert_eq!(words.collect::<Vec<_>>(), wanted);
    for name in server.fake.root().list(ENTRIES).unwrap() {
        let text = read(&server.fake, &format!("{ENTRIES}/{name}"));
        assert!(!text.contains("bmslice"), "{name}: {text}");
    }
}

#[test]
fn a_deployment_that_waits_is_refused_until_it_runs_or_is_dropped() {
    for way in ["drop", "boot"] {
        let server = iot();
        rpm_ostree(&server.fake, &["upgrade"]);
        let before = state(&server.fake);
        let error = server.apply().unwrap_err();
        for part in ["a deployment is staged", "rpm-ostree cleanup --pending"] {
            assert!(said(&error).contains(part), "{part} in {}", said(&error));
        }
        assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
        if way == "drop" {
            rpm_ostree(&server.fake, &["cleanup", "--pending"]);
        } else {
            server.fake.reboot();
        }
        server.slice();
        assert_eq!(cmdline(&server.fake).contains("6.8.11"), way == "boot");
    }
}

#[test]
fn an_update_between_apply_and_the_reboot_costs_the_trial_and_is_told() {
    let server = iot();
    let options = ApplyOptions {
        allow_reboot: false,
        ..server.options()
    };
    server.apply_with(&options, &mut |_| {}).unwrap();
    rpm_ostree(&server.fake, &["upgrade"]);
    // To arm it anew would be in vain.
    let error = server.apply().unwrap_err();
    assert!(said(&error).contains("a deployment is staged"), "{error}");
    assert!(!server.fake.reboot_requested());
    let error = server.reboot().unwrap().unwrap_err();
    assert!(matches!(error, ApplyError::FellBack { .. }), "{error}");
    assert!(
        error.to_string().contains("ostree makes that folder anew"),
        "{error}"
    );
    let line = cmdline(&server.fake);
    assert!(
        line.contains("6.8.11") && !line.contains("isolcpus"),
        "{line}"
    );
    // Nor is it forgotten why.
    never_again_unasked(&server);
    let fell_back = status(&server.fake).unwrap().fell_back.unwrap();
    assert!(fell_back.contains("was gone"), "{fell_back}");
    assert_eq!(server.try_again().unwrap(), Outcome::Rebooting);
    server.reboot().unwrap().unwrap();
    assert!(cmdline(&server.fake).contains("isolcpus"));
}

#[test]
fn an_update_in_the_boot_on_trial_is_told_and_gets_the_arguments_by_a_trial_of_its_own() {
    let server = iot();
    server.apply().unwrap();
    server.fake.reboot();
    rpm_ostree(&server.fake, &["upgrade"]);
    let mut events: Vec<Event> = Vec::new();
    for phase in [Phase::Host, Phase::All] {
        resume(&server.fake, phase, BINARY, &mut |event| events.push(event)).unwrap();
    }
    let told = notes(&events);
    assert!(told.contains("was staged in the meantime"), "{told}");
    server.fake.reboot();
    let line = cmdline(&server.fake);
    assert!(
        line.contains("6.8.11") && !line.contains("isolcpus"),
        "{line}"
    );
    server.slice();
    let line = cmdline(&server.fake);
    assert!(
        line.contains("6.8.11") && line.contains("isolcpus"),
        "{line}"
    );
    server.release().unwrap();
    assert!(!rpm_ostree(&server.fake, &["kargs"]).contains("bmslice"));
}

#[test]
fn an_rpm_ostree_that_does_not_see_the_arguments_is_told() {
    for (answer, text) in [
        (
            Ok("rw quiet\n".to_owned()),
            "does not see these kernel arguments yet",
        ),
        (Err((1, "error: no bus".to_owned())), "could not be asked"),
    ] {
        let server = iot();
        server.apply().unwrap();
        server.fake.reboot();
        server.fake.act_out("rpm-ostree", move |_| answer.clone());
        let mut events: Vec<Event> = Vec::new();
        for phase in [Phase::Host, Phase::All] {
            resume(&server.fake, phase, BINARY, &mut |event| events.push(event)).unwrap();
        }
        assert!(notes(&events).contains(text), "{}", notes(&events));
        server.assert_kept_for_good();
    }
    // Without it there is nobody to be asked.
    let server = iot();
    server.fake.uninstall("rpm-ostree");
    server.slice();
}

#[test]
fn a_release_says_that_a_staged_deployment_still_has_the_arguments() {
    for way in ["drop", "boot"] {
        let server = iot();
        server.slice();
        rpm_ostree(&server.fake, &["upgrade"]);
        let error = server.release().unwrap_err();
        for part in ["that is staged has our kernel arguments", "release` again"] {
            assert!(said(&error).contains(part), "{part} in {}", said(&error));
        }
        if way == "drop" {
            rpm_ostree(&server.fake, &["cleanup", "--pending"]);
        } else {
            server.fake.reboot();
            assert!(cmdline(&server.fake).contains("isolcpus"));
        }
        server.release().unwrap();
        server.fake.reboot();
        assert!(!cmdline(&server.fake).contains("bmslice"));
        assert!(!rpm_ostree(&server.fake, &["kargs"]).contains("isolcpus"));
    }
}
