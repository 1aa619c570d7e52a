//! Kernel arguments that GRUB tries once, and keeps only when they were confirmed.
//!
//! Takes arguments; gives a drop-in for `grub-mkconfig`, a script of `/etc/grub.d` and GRUB's
//! environment block. ADR 0008 has the states. Keeps true:
//! * the drop-in names a variable of GRUB and no argument, so that every half of this (the drop-in
//!   without the script, a script without the block) boots with no argument of ours;
//! * what is tried is struck from the block *before* a kernel is loaded, so that a kernel that
//!   panics or hangs is not tried again;
//! * a script can be read back into what it was made of.

use std::fmt::Write;

use bmslice_model::{KernelArg, KernelCmdline};
use sha2::{Digest, Sha256};

/// Where GRUB's own configuration reads our variable from. 90: after the distribution's, so that
/// what is set there is extended and not overwritten.
pub const GRUB_DROP_IN: &str = "/etc/default/grub.d/90-bmslice.cfg";
/// The script whose output becomes a part of `grub.cfg`, before the entries that `10_linux` writes.
pub const GRUB_SCRIPT: &str = "/etc/grub.d/09_bmslice";
/// The environment block, beside `grub.cfg`: a file of our own, since `grubenv` is the
/// distribution's and others write it too.
pub const GRUB_ENV: &str = "bmslice.env";
/// The variable, as it stands in each entry of `grub.cfg`.
pub const GRUB_VARIABLE: &str = "${bmslice_args}";
/// The kernel argument by which a boot on trial is known, with the digest of what it tries. The
/// kernel leaves alone what has a dot and belongs to no module.
pub const TRIAL: &str = "bmslice.trial";

/// What a boot on trial gets besides: a panic reboots after so many seconds
/// (Documentation/admin-guide/kernel-parameters.txt), and systemd feeds a hardware watchdog, where
/// there is one (systemd(1), version 250 and later), that reboots a server whose kernel hangs.
pub(crate) const ON_TRIAL: &str = "panic=30 systemd.watchdog_sec=60";

/// The arguments as one line, for people and for boot loaders that `bmslice` does not know.
#[must_use]
pub fn kernel_args(args: &[KernelArg]) -> String {
    format!("{}\n", line(args))
}

pub(crate) fn line(args: &[KernelArg]) -> String {
    args.iter().cloned().collect::<KernelCmdline>().to_string()
}

/// A shell fragment that `grub-mkconfig` sources: it adds our variable to `GRUB_CMDLINE_LINUX` (all
/// entries, also recovery), and leaves what is there alone.
#[must_use]
pub fn grub_drop_in() -> String {
    format!(
        "# Written by bmslice; `bmslice release` removes it. Run update-grub after a change.\n\
         # GRUB itself fills the variable in: {GRUB_SCRIPT} says with what.\n\
         GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX \"'{GRUB_VARIABLE}'\n"
    )
}

/// By what boot loaders tell one set of arguments from another: 16 hexadecimal digits.
#[must_use]
pub fn args_digest(args: &[KernelArg]) -> String {
    let digest = Sha256::digest(line(args).as_bytes());
    digest.iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether GRUB hands an argument on through a variable as it is written. It splits at white space,
/// compares wildcards with files, and escapes quotes and backslashes for the kernel, which knows no
/// escapes.
#[must_use]
pub fn grub_can_carry(arg: &KernelArg) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !"\"'\\$`*?[]".contains(c);
    arg.as_str().chars().all(plain)
}

/// What the script in `/etc/grub.d` decides between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrubScript {
    /// The arguments that are tried, and kept once they are confirmed.
    pub args: Vec<KernelArg>,
    /// Those that were confirmed before, to which the server goes back.
    pub before: Option<Vec<KernelArg>>,
    /// Whether GRUB can write the environment block. Where it cannot (LVM, RAID, btrfs, ZFS), what
    /// is tried is struck by the system that came up, and not by GRUB beforehand.
    pub one_shot: bool,
}

impl GrubScript {
    /// The script.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "#!/bin/sh\n\
             # Written by bmslice; `bmslice release` removes it. Run update-grub after a change.\n\
             cat << 'BMSLICE'\n{}BMSLICE\n",
            self.block()
        )
    }

    /// What stands in `grub.cfg` for it.
    #[must_use]
    pub fn block(&self) -> String {
        let mut text = format!(
            "# The slices' kernel arguments: for good once a boot with them was confirmed, before that\n\
             # for one boot only.\n\
             set bmslice_args=\n\
             set bmslice_confirmed=\n\
             set bmslice_try=\n\
             if [ -s $prefix/{GRUB_ENV} ]; then\n  \
               load_env --file=$prefix/{GRUB_ENV} bmslice_confirmed bmslice_try\n\
             fi\n"
        );
        for args in self.before.iter().chain([&self.args]) {
            let _ = write!(
                text,
                "if [ \"$bmslice_confirmed\" = \"{}\" ]; then\n  set bmslice_args='{}'\nfi\n",
                args_digest(args),
                line(args)
            );
        }
        let digest = args_digest(&self.args);
        let tried = format!(
            "set bmslice_args='{} {TRIAL}={digest} {ON_TRIAL}'",
            line(&self.args)
        );
        let _ = writeln!(text, "if [ \"$bmslice_try\" = \"{digest}\" ]; then");
        if self.one_shot {
            // A block that cannot be written is no reason to try again and again.
            let _ = write!(
                text,
                "  set bmslice_try=\n  \
                   if save_env --file=$prefix/{GRUB_ENV} bmslice_try; then\n    \
                     {tried}\n  fi\n"
            );
        } else {
            let _ = write!(
                text,
                "  # GRUB cannot write here: the system strikes it.\n  {tried}\n"
            );
        }
        // Entries in submenus see only what is exported.
        text.push_str("fi\nexport bmslice_args\n");
        text
    }

    /// Reads a script back; `None` when it is not one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut kept = Vec::new();
        let mut tried = false;
        for line in text.lines() {
            if let Some(value) = line
                .trim_start()
                .strip_prefix("set bmslice_args='")
                .and_then(|rest| rest.strip_suffix('\''))
            {
                let line: KernelCmdline = value.parse().ok()?;
                if line.iter().any(|arg| arg.is(TRIAL)) {
                    tried = true;
                } else {
                    kept.push(line.iter().cloned().collect());
                }
            }
        }
        let args = kept.pop()?;
        let read = Self {
            args,
            before: kept.pop(),
            one_shot: text.contains("save_env "),
        };
        (tried && read.text() == text).then_some(read)
    }
}

/// GRUB's environment block with what we keep in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrubEnv {
    /// The digest of the arguments that the next boot tries.
    pub tried: Option<String>,
    /// The digest of those that were confirmed.
    pub confirmed: Option<String>,
}

/// The size of a block (bytes), as grub-editenv(1) makes it.
const BLOCK: usize = 1024;
/// How a block begins.
const SIGNATURE: &str = "# GRUB Environment Block\n";

impl GrubEnv {
    /// The block: always 1024 bytes, so that it can be written over in place, and what it says in
    /// the first sector, so that a power cut leaves the one or the other.
    #[must_use]
    pub fn text(&self) -> String {
        let value = |value: &Option<String>| value.clone().unwrap_or_default();
        let mut text = format!(
            "{SIGNATURE}bmslice_confirmed={}\nbmslice_try={}\n",
            value(&self.confirmed),
            value(&self.tried)
        );
        text.extend(std::iter::repeat_n('#', BLOCK.saturating_sub(text.len())));
        text
    }

    /// Reads a block, also after GRUB has written it; `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix(SIGNATURE)?;
        let value = |key: &str| {
            let mut lines = body.lines().filter(|line| !line.starts_with('#'));
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        Some(Self {
            tried: value("bmslice_try"),
            confirmed: value("bmslice_confirmed"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<KernelArg> {
        text.split(' ').map(|arg| arg.parse().unwrap()).collect()
    }

    #[test]
    fn a_script_is_read_back_as_it_was_made() {
        for before in [None, Some(args("isolcpus=1 quiet"))] {
            for one_shot in [true, false] {
                let script = GrubScript {
                    args: args("isolcpus=domain,managed_irq,2-11 iommu=pt"),
                    before: before.clone(),
                    one_shot,
                };
                assert_eq!(GrubScript::parse(&script.text()), Some(script.clone()));
                let edited = script.text().replace("panic=30", "panic=0");
                assert_eq!(GrubScript::parse(&edited), None, "not as it was written");
            }
        }
    }

    #[test]
    fn a_block_has_grubs_size_and_is_read_back() {
        let env = GrubEnv {
            tried: Some("0123456789abcdef".into()),
            confirmed: None,
        };
        assert_eq!(env.text().len(), 1024);
        assert!(env.text().trim_end_matches('#').len() < 512);
        assert_eq!(GrubEnv::parse(&env.text()), Some(env));
        assert_eq!(GrubEnv::parse(&"#".repeat(1024)), None);
    }

    #[test]
    fn what_grub_would_change_is_not_carried() {
        for (arg, carried) in [
            ("isolcpus=domain,managed_irq,2-11", true),
            ("hugepages=0:2,1:1", true),
            ("dyndbg=\"file a.c +p\"", false),
            ("x=$y", false),
            ("x=a*", false),
        ] {
            assert_eq!(grub_can_carry(&arg.parse().unwrap()), carried, "{arg}");
        }
    }
}
