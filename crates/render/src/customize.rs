//! A guest set up offline, as the manual procedure does it: `virt-resize` and `virt-customize` of
//! guestfs-tools, for images without cloud-init.
//!
//! Takes a slice, gives typed operations and their argv. Keeps true: no password and no hash is an
//! argument (the file with the hash goes into the disk, is read there, and is deleted), and what a
//! user may write is quoted for the guest's shell.

use bmslice_plan::SlicePlan;
use bmslice_spec::{GuestUser, ImageFrom, Setup};

/// One operation of virt-customize(1), in the order in which it is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomizeOperation {
    /// `--hostname`: the guest's name.
    Hostname(String),
    /// `--run-command`: a line for the guest's shell, run now, in the disk.
    Run(String),
    /// `--upload`: a file of the host into the disk; owner and mode go with it.
    Upload {
        /// On the host.
        from: String,
        /// In the guest.
        to: String,
    },
    /// `--delete`: a file of the guest.
    Delete(String),
    /// `--write`: a small file of the guest, whole.
    Write {
        /// In the guest.
        path: String,
        /// All of it; never a secret.
        content: String,
    },
    /// `--chmod`: a file's mode, in octal.
    Chmod {
        /// In the guest.
        path: String,
        /// As chmod(2) takes it.
        mode: u32,
    },
    /// `--truncate`: an empty file.
    Truncate(String),
    /// `--ssh-inject USER:string:KEY`: a public key.
    SshKey {
        /// Whose.
        user: String,
        /// As `authorized_keys` has it.
        key: String,
    },
    /// `--firstboot-command`: a line for the guest's shell at its first boot.
    FirstBoot(String),
    /// `--selinux-relabel`; nothing for a guest without SELinux.
    SelinuxRelabel,
}

/// Where the password hash lies in the disk while it is read. Only root may look there.
const HASH_IN_GUEST: &str = "/root/.bmslice-password-hash";

impl CustomizeOperation {
    /// Its arguments.
    #[must_use]
    pub fn args(&self) -> Vec<String> {
        let pair = |option: &str, value: String| vec![option.into(), value];
        match self {
            Self::Hostname(name) => pair("--hostname", name.clone()),
            Self::Run(line) => pair("--run-command", line.clone()),
            Self::Upload { from, to } => pair("--upload", format!("{from}:{to}")),
            Self::Delete(path) => pair("--delete", path.clone()),
            Self::Write { path, content } => pair("--write", format!("{path}:{content}")),
            Self::Chmod { path, mode } => pair("--chmod", format!("{mode:04o}:{path}")),
            Self::Truncate(path) => pair("--truncate", path.clone()),
            Self::SshKey { user, key } => pair("--ssh-inject", format!("{user}:string:{key}")),
            Self::FirstBoot(line) => pair("--firstboot-command", line.clone()),
            Self::SelinuxRelabel => vec!["--selinux-relabel".into()],
        }
    }
}

/// What is done to a slice's disk; nothing unless the plan says `virt-customize`.
#[must_use]
pub fn customize_commands(slice: &SlicePlan) -> Vec<CustomizeOperation> {
    use CustomizeOperation::{FirstBoot, Hostname, Run, SelinuxRelabel, Truncate};
    if slice.disk.setup != Setup::VirtCustomize {
        return Vec::new();
    }
    let guest = &slice.guest;
    let mut all = vec![
        Hostname(guest.hostname.clone()),
        // Guests of one image would share it, and with it their DHCP address; the first boot makes
        // a new one of an empty file (machine-id(5)).
        Truncate("/etc/machine-id".into()),
    ];
    if matches!(slice.disk.from, ImageFrom::Resize { .. }) {
        // virt-resize grows the partition and what it knows of what is in it; XFS grows mounted.
        all.push(Run(
            "if [ \"$(stat -f -c %T /)\" = xfs ]; then xfs_growfs /; fi".into(),
        ));
    }
    if let Some(user) = &guest.user {
        all.extend(user_operations(user));
    }
    all.push(Run(
        "systemctl enable ssh 2>/dev/null || systemctl enable sshd 2>/dev/null || true".into(),
    ));
    // Found later, it would take the guest for a new instance and wait for a datasource.
    all.push(Run(
        "if [ -d /etc/cloud ]; then touch /etc/cloud/cloud-init.disabled; fi".into(),
    ));
    all.extend(guest.first_commands.iter().cloned().map(FirstBoot));
    all.push(SelinuxRelabel);
    all
}

fn user_operations(user: &GuestUser) -> Vec<CustomizeOperation> {
    use CustomizeOperation::{Chmod, Delete, Run, SshKey, Upload, Write};
    let name = shell_word(&user.name);
    let mut all = vec![Run(format!(
        "id -u -- {name} >/dev/null 2>&1 || useradd -m -s /bin/bash -- {name}"
    ))];
    if let Some(file) = &user.password_hash_file {
        all.extend([
            Upload {
                from: file.clone(),
                to: HASH_IN_GUEST.into(),
            },
            // The hash goes through a pipe, so it is an argument of nothing in the guest either.
            Run(format!(
                "{{ printf '%s:' {name}; head -n 1 {HASH_IN_GUEST}; }} | chpasswd -e"
            )),
            Delete(HASH_IN_GUEST.into()),
            // Images forbid passwords over ssh; a drop-in is read first where drop-ins are read.
            Run("sed -i 's/^#*[[:space:]]*PasswordAuthentication .*/PasswordAuthentication yes/' /etc/ssh/sshd_config; if [ -d /etc/ssh/sshd_config.d ]; then echo 'PasswordAuthentication yes' > /etc/ssh/sshd_config.d/10-bmslice.conf; fi".into()),
        ]);
    }
    all.extend(user.ssh_keys.iter().map(|key| SshKey {
        user: user.name.clone(),
        key: key.clone(),
    }));
    if user.sudo {
        // Not named after the user: sudo skips files with a dot in their name.
        let path = String::from("/etc/sudoers.d/90-bmslice");
        all.extend([
            Write {
                path: path.clone(),
                content: format!("{} ALL=(ALL) NOPASSWD:ALL\n", sudoers_word(&user.name)),
            },
            Chmod { path, mode: 0o440 },
        ]);
    }
    all
}

/// The whole `virt-customize` command for a slice's disk at `disk`; `None` when there is none.
#[must_use]
pub fn customize_argv(slice: &SlicePlan, disk: &str) -> Option<Vec<String>> {
    let operations = customize_commands(slice);
    if operations.is_empty() {
        return None;
    }
    let start = ["virt-customize", "--quiet", "--no-network", "-a", disk].map(String::from);
    let operations = operations.iter().flat_map(CustomizeOperation::args);
    Some(start.into_iter().chain(operations).collect())
}

/// The `virt-resize` command that fills `disk` from the base; `None` unless the plan says so.
///
/// `disk` has to be there, as large as planned: `qemu-img create -f qcow2 DISK SIZE`.
#[must_use]
pub fn resize_argv(slice: &SlicePlan, disk: &str) -> Option<Vec<String>> {
    let ImageFrom::Resize { expand } = &slice.disk.from else {
        return None;
    };
    let base = slice.disk.base.as_str();
    let args = [
        "virt-resize",
        "--quiet",
        "--output-format",
        "qcow2",
        "--expand",
        expand,
        base,
        disk,
    ];
    Some(args.map(String::from).to_vec())
}

/// A word for a POSIX shell, whatever is in it.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A user for sudoers(5), whose special characters need a backslash.
fn sudoers_word(name: &str) -> String {
    let special = |c: char| !c.is_alphanumeric() && !"_-.".contains(c);
    name.chars()
        .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
        .collect()
}
