//! What systemd-boot and the system tell each other.
//!
//! Takes EFI variables and what `bootctl list` prints; gives ids of entries. Source: the Boot Loader
//! Interface (systemd), bootctl(1).

use bmslice_inventory::loader_variable;

use crate::site::Look;

/// Where the kernel shows EFI variables.
pub const VARIABLES: &str = "/sys/firmware/efi/efivars";

/// An EFI variable of the loader's.
pub fn variable(look: &Look<'_>, name: &str) -> Option<String> {
    loader_variable(look.machine.root(), name)
}

/// A name as the loader's ids have it: lower case, and without the tries that are left.
pub fn id(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let is_counter = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '-');
    match name
        .strip_suffix(".conf")
        .and_then(|stem| stem.rsplit_once('+'))
    {
        Some((stem, tries)) if is_counter(tries) => format!("{stem}.conf"),
        Some(_) | None => name,
    }
}

/// The id of the entry that `bootctl list` calls the default; its text, since not every version has
/// JSON that tells.
pub fn default_in(list: &str) -> Option<String> {
    let mut is_default = false;
    for line in list.lines() {
        let (key, value) = line.split_once(':').unwrap_or((line, ""));
        match key.trim() {
            "title" => is_default = value.contains(" (default)"),
            "id" if is_default => return Some(value.trim().to_owned()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_no_counter_and_the_default_is_read_from_the_list() {
        assert_eq!(id("Deb-6.1+3-1.conf"), "deb-6.1.conf");
        assert_eq!(id("a+b.conf"), "a+b.conf");
        assert_eq!(id("linux.efi"), "linux.efi");
        let list = "         type: Boot Loader Specification Type #1 (.conf)\n        \
            title: T (selected)\n           id: b.conf\n\n        \
            title: T: new (default) (not reported/new)\n           id: a.conf\n       \
            source: /efi/loader/entries/a.conf\n";
        assert_eq!(default_in(list).as_deref(), Some("a.conf"));
        assert_eq!(default_in(""), None);
    }
}
