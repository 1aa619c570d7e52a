//! Whether libvirt-guests.service starts with the host, and what it then does with guests.
//!
//! Source: `tools/libvirt-guests.sh.in` of libvirt: a shell script with settings of its own, over
//! which it reads a file; distributions have other ones (Debian's starts no guest).

use crate::facts::LibvirtGuests;
use crate::scan::Scan;

const UNIT: &str = "libvirt-guests.service";
/// Where units are made to start, or kept from it.
const SYSTEM: &str = "/etc/systemd/system";
/// Debian's; Fedora's since libvirt 5.6 and before.
const SCRIPTS: [&str; 3] = [
    "/usr/lib/libvirt/libvirt-guests.sh",
    "/usr/libexec/libvirt-guests.sh",
    "/usr/lib64/libvirt/libvirt-guests.sh",
];
/// Debian's and Fedora's.
const SETTINGS: [&str; 2] = [
    "/etc/default/libvirt-guests",
    "/etc/sysconfig/libvirt-guests",
];

pub(super) fn read(scan: &Scan) -> Option<LibvirtGuests> {
    // A server that tells none of its units is not one that has none.
    if !scan.root.exists(SYSTEM) {
        return None;
    }
    let wanted = scan
        .list(&format!("{SYSTEM}/multi-user.target.wants"))
        .iter()
        .any(|name| name == UNIT);
    let masked = scan.root.link_name(format!("{SYSTEM}/{UNIT}")).as_deref() == Some("null");
    let texts: Vec<String> = SCRIPTS
        .iter()
        .chain(&SETTINGS)
        .map(|path| scan.file(path))
        .collect();
    let of = |key: &str| texts.iter().rev().find_map(|text| setting(text, key));
    Some(LibvirtGuests {
        enabled: wanted && !masked,
        on_boot: of("ON_BOOT"),
        on_shutdown: of("ON_SHUTDOWN"),
    })
}

/// What a shell script sets a variable to outside its functions: the last assignment that begins a
/// line.
fn setting(text: &str, key: &str) -> Option<String> {
    text.lines().rev().find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix('=')?;
        let value = value.split(" #").next().unwrap_or_default().trim();
        let value = value.trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_what_functions_set_are_no_settings() {
        let script = "ON_BOOT=\"ignore\"\ngueststate() {\n    if [ \"x$ON_BOOT\" != xstart ]; then\n        ON_BOOT=\"start\"\n    fi\n}\n";
        assert_eq!(setting(script, "ON_BOOT").as_deref(), Some("ignore"));
        assert_eq!(setting("#ON_BOOT=start\n", "ON_BOOT"), None);
        assert_eq!(setting("ON_BOOT=\n", "ON_BOOT"), None);
        assert_eq!(
            setting("ON_BOOT=ignore\nON_BOOT='start' # all\n", "ON_BOOT").as_deref(),
            Some("start")
        );
    }
}
