//! Kernel arguments that are not in force, and a boot loader that cannot be given them by us.
//!
//! Takes the boot loader of an inventory and the steps; gives a problem with the very commands that
//! do it by hand. Keeps true: once the running kernel has the arguments, nobody asks how they came
//! there.

use bmslice_inventory::{BlsObstacle, BootLoader, GrubEntries, Inventory};
use bmslice_model::KernelArg;

use crate::error::Problem;
use crate::site::Look;
use crate::step::Step;

/// Why a plan's arguments cannot be written here; `None` when they can, or need not be.
pub(super) fn refused(look: &Look<'_>, inventory: &Inventory, steps: &[Step]) -> Option<Problem> {
    let reboot = steps.iter().find_map(|step| {
        if let Step::Reboot(reboot) = step {
            Some(reboot)
        } else {
            None
        }
    })?;
    if reboot.lacking(look).is_empty() {
        return None;
    }
    let by_hand = || {
        let args: Vec<&str> = reboot.args.iter().map(KernelArg::as_str).collect();
        format!(
            "add `{}` to the kernel's arguments by hand, reboot, and apply again",
            args.join(" ")
        )
    };
    let (what, hint) = match &inventory.boot.loader {
        BootLoader::Grub {
            drop_ins: Some(_), ..
        }
        | BootLoader::SystemdBoot { entries: Some(_) } => return None,
        BootLoader::Bls(found) | BootLoader::Ostree(found) if found.usable().is_some() => {
            return None;
        }
        BootLoader::Grub { drop_ins: None, .. } => (
            "a GRUB that reads no `/etc/default/grub.d`".to_owned(),
            by_hand(),
        ),
        BootLoader::Bls(GrubEntries { obstacle, .. }) => (
            match obstacle {
                Some(obstacle) => format!("GRUB with boot loader entries, and {obstacle}"),
                None => "GRUB with boot loader entries that could not be read".into(),
            },
            mended(obstacle.as_ref()).unwrap_or_else(|| grubby(&reboot.args)),
        ),
        BootLoader::Ostree(GrubEntries { obstacle, .. }) => (
            match obstacle {
                Some(obstacle) => format!("ostree's deployments, and {obstacle}"),
                None => "ostree's deployments, whose entries GRUB does not read".into(),
            },
            mended(obstacle.as_ref()).unwrap_or_else(|| rpm_ostree(&reboot.args)),
        ),
        // Only root may look into most EFI system partitions.
        BootLoader::SystemdBoot { entries: None } if !look.machine.is_root() => return None,
        BootLoader::SystemdBoot { entries: None } => {
            ("systemd-boot without entries to be found".into(), by_hand())
        }
        BootLoader::Unknown => ("no boot loader that is known here".into(), by_hand()),
    };
    Some(
        Problem::new(format!(
            "the plan needs kernel arguments, and this host has {what}, for which this bmslice cannot write them"
        ))
        .hint(hint),
    )
}

/// What takes the obstacle away, so that nothing is to be done by hand: of a mount that cannot be
/// written, what lets it be, also in the boot that confirms the arguments.
fn mended(obstacle: Option<&BlsObstacle>) -> Option<String> {
    let Some(BlsObstacle::MountedReadOnly { at }) = obstacle else {
        return None;
    };
    let unit = at.trim_start_matches('/').replace('/', "-");
    Some(format!(
        "have it mounted so that it can be written, also after a boot: `systemctl edit {unit}.mount`, with the lines `[Mount]` and `Options=rw`; then `mount -o remount,rw {at}`, and apply again"
    ))
}

/// What gives them to every entry, and to the kernels to come.
fn grubby(args: &[KernelArg]) -> String {
    let args: Vec<&str> = args.iter().map(KernelArg::as_str).collect();
    let args = args.join(" ");
    format!(
        "`grubby --update-kernel=ALL --args='{args}'`, reboot, and apply again; nothing goes back by itself. Before a release: `--remove-args` in place of `--args`"
    )
}

/// What makes a deployment with them. With each kind of option rpm-ostree goes through all of that
/// kind, so that a list with repeats (sizes of huge pages) has to be of one kind.
fn rpm_ostree(args: &[KernelArg]) -> String {
    let repeats = (1..args.len()).any(|at| args[..at].contains(&args[at]));
    let option = if repeats {
        "append"
    } else {
        "append-if-missing"
    };
    let each = |option: &str| {
        let words = args
            .iter()
            .map(|arg| format!(" --{option}={}", quoted(arg)));
        words.collect::<String>()
    };
    format!(
        "`rpm-ostree kargs{}`, `systemctl reboot`, and apply again; the deployment before stays in GRUB's menu, but nothing goes back to it by itself. Before a release: `rpm-ostree kargs{}`",
        each(option),
        each("delete-if-present")
    )
}

/// As a shell takes it.
fn quoted(arg: &KernelArg) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/@%+".contains(c);
    if arg.as_str().chars().all(plain) {
        arg.to_string()
    } else {
        format!("'{}'", arg.as_str().replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_can_be_typed_as_they_are() {
        let args = |words: &[&str]| -> Vec<KernelArg> {
            words.iter().map(|word| word.parse().unwrap()).collect()
        };
        let hint = rpm_ostree(&args(&["isolcpus=domain,managed_irq,2-11", "iommu=pt"]));
        assert!(
            hint.starts_with(
                "`rpm-ostree kargs --append-if-missing=isolcpus=domain,managed_irq,2-11 --append-if-missing=iommu=pt`"
            ),
            "{hint}"
        );
        assert!(hint.contains(" --delete-if-present=iommu=pt`"), "{hint}");
        // The second `hugepages=2` is another size's.
        let pages = [
            "hugepagesz=1G",
            "hugepages=2",
            "hugepagesz=2M",
            "hugepages=2",
        ];
        let hint = rpm_ostree(&args(&pages));
        assert_eq!(hint.matches(" --append=hugepages=2").count(), 2, "{hint}");
        assert!(!hint.contains("if-missing"), "{hint}");
        assert_eq!(
            quoted(&"dyndbg=\"file x +p\"".parse().unwrap()),
            "'dyndbg=\"file x +p\"'"
        );
    }
}
