//! KVM, libvirt, QEMU.

use bmslice_inventory::{Inventory, LibvirtFacts};
use bmslice_model::count;

use super::{Examined, Unchecked, fails, holds, unchecked};

/// The oldest QEMU that is looked after: memory from `memfd` with huge pages needs 2.12; the
/// distributions that are served ship 6.2 (Ubuntu 22.04, RHEL 9) or newer.
const QEMU: (u32, u32) = (6, 0);

const NOT_ASKED: &str = "libvirt was not asked when this inventory was read";

pub(super) fn kvm_device(inventory: &Inventory) -> Examined {
    if inventory.hypervisor.kvm_device {
        return match (
            &inventory.hypervisor.kvm_error,
            inventory.hypervisor.kvm_works,
        ) {
            (Some(error), _) => fails(
                format!("/dev/kvm is there, and no VM can be made with it: {error}"),
                "a VM made with /dev/kvm",
                "be root or in the group kvm; turn on VT-x or SVM in the firmware's setup; look for another hypervisor that holds it",
            ),
            (None, true) => holds("/dev/kvm makes a VM"),
            (None, false) => unchecked(
                "/dev/kvm is there, and whether it makes a VM was not tried: `bmslice doctor` does so on the server itself, and `bmslice capture` keeps the answer",
            ),
        };
    }
    let module = match inventory.machine.cpu_vendor.as_deref() {
        Some("AuthenticAMD" | "HygonGenuine") => "kvm_amd",
        Some("GenuineIntel") => "kvm_intel",
        _ => "kvm_intel` or `kvm_amd",
    };
    let mend = if inventory.machine.guest == Some(true) {
        format!(
            "this server is a guest: turn on nested virtualisation for it on its own host, then `modprobe {module}`"
        )
    } else {
        format!("turn on VT-x or SVM in the firmware's setup, then `modprobe {module}`")
    };
    fails("/dev/kvm is not there", "/dev/kvm", mend)
}

pub(super) fn kvm_module(inventory: &Inventory) -> Examined {
    match &inventory.hypervisor.kvm_module {
        Some(module) => holds(format!("{module} is loaded")),
        None if inventory.hypervisor.kvm_device => holds("KVM is built into the kernel"),
        None => fails(
            "neither kvm_intel nor kvm_amd is loaded",
            "one of them loaded before libvirt starts",
            "name it in a file under /etc/modules-load.d, so that libvirt finds KVM after each boot",
        ),
    }
}

fn facts(inventory: &Inventory) -> Result<&LibvirtFacts, Unchecked> {
    inventory.hypervisor.libvirt.as_ref().ok_or_else(|| {
        Unchecked(match &inventory.hypervisor.libvirt_error {
            Some(_) => "libvirt did not answer".into(),
            None => NOT_ASKED.into(),
        })
    })
}

pub(super) fn libvirt(inventory: &Inventory) -> Examined {
    let hypervisor = &inventory.hypervisor;
    match (&hypervisor.libvirt, &hypervisor.libvirt_error) {
        (Some(facts), _) => holds(format!(
            "libvirt {} answers; {}",
            facts.version,
            count(facts.domains.len(), "domain")
        )),
        (None, Some(error)) => fails(
            error.clone(),
            "libvirt's QEMU driver answers on qemu:///system",
            "install libvirt's daemon and its QEMU driver, start it (`systemctl start libvirtd` or `virtqemud.socket`), and run as root or in the group libvirt",
        ),
        (None, None) => unchecked(NOT_ASKED),
    }
}

pub(super) fn libvirt_kvm(inventory: &Inventory) -> Examined {
    if facts(inventory)?.kvm {
        return holds("libvirt has domain type kvm");
    }
    if inventory.hypervisor.kvm_device {
        fails(
            "libvirt has no domain type kvm although /dev/kvm is there",
            "domain type kvm",
            "libvirt looked before KVM was loaded: name the module under /etc/modules-load.d, remove /var/cache/libvirt/qemu/capabilities, restart libvirt",
        )
    } else {
        fails(
            "libvirt has no domain type kvm",
            "domain type kvm",
            "make /dev/kvm work first, then restart libvirt",
        )
    }
}

pub(super) fn qemu_version(inventory: &Inventory) -> Examined {
    let wanted = format!("{}.{} or newer", QEMU.0, QEMU.1);
    let Some(text) = &facts(inventory)?.qemu else {
        return fails(
            "libvirt knows no QEMU",
            wanted,
            "install the package of qemu-system for this architecture",
        );
    };
    let mut parts = text.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        return unchecked(format!("`{text}` is no version"));
    };
    if (major, minor) >= QEMU {
        holds(format!("QEMU {text}"))
    } else {
        fails(
            format!("QEMU {text}"),
            wanted,
            "take QEMU from a newer release of the distribution or from its backports",
        )
    }
}

/// It shuts guests down before the server does, which nobody else here does; starting them is not
/// its to do (ADR 0012).
pub(super) fn libvirt_guests(inventory: &Inventory) -> Examined {
    let Some(guests) = &inventory.host.libvirt_guests else {
        return unchecked("no unit files are told");
    };
    if !guests.enabled {
        return holds(
            "it does not start with the server, which then goes down without shutting guests down",
        );
    }
    let (Some(on_boot), Some(on_shutdown)) = (&guests.on_boot, &guests.on_shutdown) else {
        return unchecked("it is enabled, and neither its script nor its settings are told");
    };
    let mut found = Vec::new();
    let mut mend = Vec::new();
    if on_boot != "ignore" {
        found.push(format!(
            "ON_BOOT={on_boot}: each guest that ran before starts at a boot, whether or not its devices are still its own"
        ));
        mend.push("ON_BOOT=ignore");
    }
    if on_shutdown != "shutdown" {
        found.push(format!(
            "ON_SHUTDOWN={on_shutdown}: QEMU saves no guest that has a card of the server's, so that slices with NICs lose power in the middle of their work, and others would wake up in the past"
        ));
        mend.push("ON_SHUTDOWN=shutdown");
    }
    if found.is_empty() {
        return holds("it shuts guests down with the server, and starts none");
    }
    fails(
        found.join("; "),
        "guests are shut down with the server, and slices are started by bmslice-slices.service, which looks at their devices first",
        format!(
            "set {} in /etc/default/libvirt-guests or /etc/sysconfig/libvirt-guests; where other guests need `start`, it can stay: bmslice-host.service takes slices out of its list",
            mend.join(" and ")
        ),
    )
}
