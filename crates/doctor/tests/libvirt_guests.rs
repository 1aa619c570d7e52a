//! What libvirt-guests.service may do with slices, and what it may not.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where the example cannot be read"
)]

use bmslice_doctor::{Outcome, examine};
use bmslice_inventory::{CapturedInventory, LibvirtGuests};

/// `(result, text)` of the document's server with this service.
fn says(guests: Option<LibvirtGuests>) -> (&'static str, String) {
    let text = include_str!("../../../examples/seed/inventory.json");
    let mut inventory = CapturedInventory::from_json(text).unwrap().into_inner();
    inventory.host.libvirt_guests = guests;
    let mut findings = examine(&inventory).into_iter();
    let finding = findings.find(|f| f.name == "libvirt-guests").unwrap();
    match finding.outcome {
        Outcome::Holds { found } => ("holds", found),
        Outcome::DoesNotHold { found, mend, .. } => {
            // Each word that is wrong is mended, and no other.
            for word in ["ON_BOOT=", "ON_SHUTDOWN="] {
                assert_eq!(found.contains(word), mend.contains(word), "{found}: {mend}");
            }
            ("fails", found)
        }
        Outcome::CouldNotCheck { why } => ("unchecked", why),
    }
}

#[test]
fn libvirt_guests_may_shut_guests_down_and_neither_start_nor_save_them() {
    let with = |enabled, on_boot: Option<&str>, on_shutdown: Option<&str>| {
        says(Some(LibvirtGuests {
            enabled,
            on_boot: on_boot.map(str::to_owned),
            on_shutdown: on_shutdown.map(str::to_owned),
        }))
    };
    let debian = with(true, Some("ignore"), Some("shutdown"));
    assert_eq!(debian.0, "holds", "{}", debian.1);
    let upstream = with(true, Some("start"), Some("suspend"));
    assert_eq!(upstream.0, "fails");
    for part in ["ON_BOOT=start", "ON_SHUTDOWN=suspend", "lose power"] {
        assert!(upstream.1.contains(part), "{}", upstream.1);
    }
    let (result, found) = with(true, Some("start"), Some("shutdown"));
    assert_eq!(result, "fails");
    assert!(
        found.contains("devices") && !found.contains("ON_SHUTDOWN"),
        "{found}"
    );
    let (result, found) = with(true, Some("ignore"), Some("suspend"));
    assert_eq!((result, found.contains("ON_BOOT")), ("fails", false));
    // What it would do does not matter where it does nothing; that guests then lose power does.
    let (result, found) = with(false, Some("start"), Some("suspend"));
    assert_eq!(result, "holds");
    assert!(found.contains("without shutting guests down"), "{found}");
    assert_eq!(with(true, None, Some("shutdown")).0, "unchecked");
    assert_eq!(says(None).0, "unchecked");
}
