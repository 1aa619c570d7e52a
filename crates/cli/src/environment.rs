//! The environment, read once and here only.

use bmslice_host::Root;

/// Every variable that `bmslice` heeds, for `--help` and the man page.
pub const VARIABLES: &str = "\
Environment:
  SSH_CONNECTION       tells which NIC carries this session, and that nothing may be taken from
                       the host's network in it (found through sudo, too)
  BMSLICE_LIBVIRT_URI  libvirt's QEMU driver [default: qemu:///system]
  NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM
                       colour, as usual; `--color` wins";

/// What the environment told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    /// The address that this session comes from, when it comes over ssh.
    pub(crate) session_peer: Option<String>,
    /// libvirt's connection URI, when it was given.
    pub(crate) libvirt_uri: Option<String>,
}

impl Environment {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place where the environment is read"
    )]
    pub(crate) fn read() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            session_peer: variable("SSH_CONNECTION")
                .or_else(|| Root::live().ok().and_then(|root| ancestors_ssh(&root)))
                .as_deref()
                .and_then(peer),
            libvirt_uri: variable("BMSLICE_LIBVIRT_URI"),
        }
    }
}

/// The peer's address of an `SSH_CONNECTION` (`client port server port`).
fn peer(connection: &str) -> Option<String> {
    let address = connection.split(' ').next()?;
    // An IPv6 address may have a zone: `fe80::1%eno1`.
    let bare = address.split('%').next()?;
    bare.parse::<std::net::IpAddr>().ok()?;
    Some(address.to_owned())
}

/// `SSH_CONNECTION` of a process above this one: sudo takes the variable away, and with it the
/// knowledge of which NIC carries the session.
fn ancestors_ssh(root: &Root) -> Option<String> {
    let mut process = parent(root, "self")?;
    // A chain of processes is short; this only ends a damaged one.
    for _ in 0..64 {
        if process.as_str() <= "1" && process.len() == 1 {
            return None;
        }
        // Another user's environment cannot be read, which is no reason to stop.
        if let Ok(bytes) = root.read(format!("/proc/{process}/environ"))
            && let Some(value) = bytes
                .split(|byte| *byte == 0)
                .find_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="))
        {
            return String::from_utf8(value.to_vec()).ok();
        }
        process = parent(root, &process)?;
    }
    None
}

/// The parent's id: `PPid:` of proc_pid_status(5).
fn parent(root: &Root, process: &str) -> Option<String> {
    let status = root.read_text(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a captured tree is made")]
    use super::*;

    #[test]
    fn only_an_address_is_a_peer() {
        assert_eq!(
            peer("192.0.2.7 50000 192.0.2.1 22").as_deref(),
            Some("192.0.2.7")
        );
        assert_eq!(
            peer("fe80::1%eno1 1 fe80::2 22").as_deref(),
            Some("fe80::1%eno1")
        );
        for bad in ["", "UNKNOWN 65535 x 22", "$(reboot)"] {
            assert_eq!(peer(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_session_is_found_through_sudo() {
        let dir = tempfile::tempdir().unwrap();
        let process = |id: &str, parent: &str, environ: &str| {
            let folder = dir.path().join("proc").join(id);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(
                folder.join("status"),
                format!("Name:\tx\nPPid:\t{parent}\n"),
            )
            .unwrap();
            std::fs::write(folder.join("environ"), environ).unwrap();
        };
        process("self", "30", "");
        process("30", "20", "SUDO_USER=ops\0");
        process("20", "1", "A=b\0SSH_CONNECTION=192.0.2.7 1 192.0.2.1 22\0");
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(
            ancestors_ssh(&root).as_deref(),
            Some("192.0.2.7 1 192.0.2.1 22")
        );
        process("20", "1", "");
        assert_eq!(ancestors_ssh(&root), None);
    }
}
