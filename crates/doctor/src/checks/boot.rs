//! Boot loader, isolation, control groups; what was odd.

use bmslice_inventory::{BlsObstacle, BootLoader, GrubEntries, Inventory};
use bmslice_model::CpuSet;

use super::{Examined, Unchecked, fails, holds, unchecked};

pub(super) fn loader(inventory: &Inventory) -> Examined {
    let wanted = "GRUB with drop-ins under /etc/default/grub.d or with boot loader entries, or systemd-boot with entries";
    let by_hand = "put the arguments that `bmslice plan` shows into the boot entry by hand";
    match &inventory.boot.loader {
        BootLoader::Grub {
            config,
            drop_ins: Some(folder),
        } => holds(format!("GRUB ({config}), with drop-ins in {folder}")),
        BootLoader::Grub {
            config,
            drop_ins: None,
        } => fails(
            format!("GRUB ({config}), whose grub-mkconfig reads no drop-ins"),
            wanted,
            by_hand,
        ),
        BootLoader::Bls(found) if let Some((folder, env)) = found.usable() => holds(format!(
            "GRUB, with entries in {folder} and its block in {env}"
        )),
        BootLoader::Bls(found) => fails(
            match &found.obstacle {
                Some(obstacle) => format!("GRUB with boot loader entries, and {obstacle}"),
                None => "GRUB with boot loader entries that could not be read".to_owned(),
            },
            "entries with their arguments in them, and a /boot/grub2/grubenv that GRUB can write: on a plain partition with ext4, XFS or FAT",
            "put the arguments that `bmslice plan` shows there with `grubby --update-kernel=ALL --args='…'`, and reboot",
        ),
        BootLoader::Ostree(found) if let Some((folder, env)) = found.usable() => holds(format!(
            "GRUB, with the entries of ostree's deployments in {folder} and its block in {env}"
        )),
        BootLoader::Ostree(GrubEntries {
            obstacle: Some(obstacle @ BlsObstacle::MountedReadOnly { at }),
            ..
        }) => fails(
            format!("GRUB with the entries of ostree's deployments, and {obstacle}"),
            format!("{at} mounted so that it can be written, also after a boot"),
            "`systemctl edit boot.mount`, with `[Mount]` and `Options=rw`; then `mount -o remount,rw /boot`",
        ),
        BootLoader::Ostree(found) => fails(
            match &found.obstacle {
                Some(obstacle) => {
                    format!("GRUB with the entries of ostree's deployments, and {obstacle}")
                }
                None => "ostree, whose entries GRUB does not read".to_owned(),
            },
            "deployments whose entries GRUB reads, and a /boot/grub2/grubenv that GRUB can write: on a plain partition with ext4, XFS or FAT",
            "put the arguments that `bmslice plan` shows there with `rpm-ostree kargs --append-if-missing=…`, and reboot; nothing goes back from them by itself",
        ),
        BootLoader::SystemdBoot {
            entries: Some(folder),
        } => holds(format!("systemd-boot, with entries in {folder}")),
        BootLoader::SystemdBoot { entries: None } => fails(
            "systemd-boot, and no entries where it reads them (unified kernel images, or not to be read)",
            wanted,
            "run this as root; the arguments of unified kernel images are inside them: put those that `bmslice plan` shows into /etc/kernel/cmdline, and build the images anew",
        ),
        BootLoader::Unknown => fails("no boot loader that is known", wanted, by_hand),
    }
}

/// The CPUs that `isolcpus=` keeps from the scheduler: with flags, only `domain` does.
fn asked(inventory: &Inventory) -> Result<CpuSet, Unchecked> {
    let Some(value) = inventory
        .boot
        .cmdline
        .last("isolcpus")
        .and_then(|arg| arg.value())
    else {
        return Ok(CpuSet::new());
    };
    let is_flag = |part: &&str| matches!(*part, "nohz" | "domain" | "managed_irq");
    let flags: Vec<&str> = value.split(',').take_while(is_flag).collect();
    let list: Vec<&str> = value.split(',').skip_while(is_flag).collect();
    if !flags.is_empty() && !flags.contains(&"domain") {
        return Ok(CpuSet::new());
    }
    list.join(",")
        .parse()
        .map_err(|error| Unchecked(format!("in isolcpus={value}: {error}")))
}

pub(super) fn isolation(inventory: &Inventory) -> Examined {
    let asked = asked(inventory)?;
    let present: CpuSet = inventory.cpus.iter().map(|c| c.id).collect();
    let wanted = asked.intersection(&present);
    let found = &inventory.boot.isolated;
    let show = |set: &CpuSet| {
        if set.is_empty() {
            "no CPUs".to_owned()
        } else {
            format!("CPUs {set}")
        }
    };
    if *found != wanted {
        return fails(
            format!("{} isolated", show(found)),
            format!("{} isolated, as the kernel arguments ask", show(&wanted)),
            "look in the kernel's log for why the argument was not taken; the kernel refuses isolcpus that leave no CPU",
        );
    }
    let beyond = asked.difference(&present);
    if !beyond.is_empty() {
        return fails(
            format!("isolcpus names CPUs {beyond}, which are not there"),
            format!("CPUs of this server: {present}"),
            "correct isolcpus in the boot arguments",
        );
    }
    holds(format!("{} isolated, as asked", show(found)))
}

pub(super) fn cgroup(inventory: &Inventory) -> Examined {
    match inventory.boot.cgroup {
        Some(2) => holds("version 2"),
        Some(version) => fails(
            format!("version {version}"),
            "version 2, which isolation without a reboot needs",
            "boot with `systemd.unified_cgroup_hierarchy=1`, or keep `isolation: boot`",
        ),
        None => unchecked("/sys/fs/cgroup tells no version"),
    }
}

pub(super) fn oddities(inventory: &Inventory) -> Examined {
    if inventory.notes.is_empty() {
        return holds("nothing");
    }
    let notes: Vec<String> = inventory
        .notes
        .iter()
        .map(|note| format!("{}: {}", note.about, note.text))
        .collect();
    fails(
        notes.join("\n"),
        "a server that tells of itself without contradiction",
        "look whether each is known and harmless",
    )
}
