//! What disturbs quiet cores: clocks, idle states, interrupts, memory that the kernel moves.

use bmslice_inventory::Inventory;
use bmslice_model::{ByteSize, CpuSet};

use super::{Examined, fails, holds, unchecked};

/// Waking that takes longer than this is seen in a radio's slot of 500 µs (10 %).
const WAKING: u64 = 50;

pub(super) fn governor(inventory: &Inventory) -> Examined {
    let groups = &inventory.power.frequencies;
    let told: Vec<(&CpuSet, &str)> = groups
        .iter()
        .filter_map(|group| Some((&group.cpus, group.governor.as_deref()?)))
        .collect();
    if told.is_empty() {
        return unchecked("no CPU tells a frequency governor");
    }
    let other: Vec<String> = told
        .iter()
        .filter(|(_, governor)| *governor != "performance")
        .map(|(cpus, governor)| format!("{governor} on CPUs {cpus}"))
        .collect();
    if other.is_empty() {
        return holds("performance");
    }
    fails(
        other.join(", "),
        "performance on the CPUs of slices",
        "choose a TuneD profile such as cpu-partitioning, or `cpupower frequency-set -g performance`",
    )
}

pub(super) fn idle_states(inventory: &Inventory) -> Examined {
    let Some(idle) = &inventory.power.idle else {
        return unchecked("no idle driver is told");
    };
    match idle.deepest() {
        Some(state) if state.latency > WAKING => fails(
            format!(
                "{}, from which waking takes {} µs",
                state.name, state.latency
            ),
            format!("at most {WAKING} µs where latency matters"),
            "boot with `processor.max_cstate=1 intel_idle.max_cstate=1`, or hold /dev/cpu_dma_latency (TuneD's force_latency)",
        ),
        Some(state) => holds(format!("{} at most ({} µs)", state.name, state.latency)),
        None => holds("none"),
    }
}

pub(super) fn irqbalance(inventory: &Inventory) -> Examined {
    let host = &inventory.host;
    match (host.irqbalance, &host.irqbalance_banned) {
        (None, _) => unchecked("no control group tells which services run"),
        (Some(false), _) => holds("it does not run"),
        (Some(true), None) => {
            holds("it runs, and leaves isolated CPUs alone, since nothing else is set")
        }
        (Some(true), Some(list)) => fails(
            format!("it runs, and is told to leave CPUs {list} alone"),
            "no such list: irqbalance then leaves all isolated CPUs alone, whichever they are",
            "take IRQBALANCE_BANNED_CPULIST out of its settings",
        ),
    }
}

pub(super) fn transparent_huge_pages(inventory: &Inventory) -> Examined {
    match &inventory.memory.transparent_huge_pages {
        None => unchecked("/sys/kernel/mm/transparent_hugepage is not told"),
        Some(words) if words.enabled == "always" => fails(
            "always",
            "madvise or never: the kernel then does not stop processes to move their pages",
            "boot with `transparent_hugepage=madvise`",
        ),
        Some(words) => holds(words.enabled.as_str()),
    }
}

pub(super) fn ksm(inventory: &Inventory) -> Examined {
    match inventory.memory.ksm {
        None => unchecked("/sys/kernel/mm/ksm is not told"),
        Some(false) => holds("off"),
        Some(true) => fails(
            "on",
            "off: equal pages of two tenants are else shared, which one can tell from timing",
            "`echo 2 > /sys/kernel/mm/ksm/run`, and disable ksm.service and ksmtuned.service",
        ),
    }
}

pub(super) fn swap(inventory: &Inventory) -> Examined {
    match inventory.memory.swap {
        None => unchecked("/proc/meminfo tells no swap"),
        Some(ByteSize::ZERO) => holds("none"),
        Some(size) => fails(
            format!("{size}"),
            "none: huge pages of guests are never swapped, but what serves them is",
            "`swapoff -a`, and take it out of /etc/fstab",
        ),
    }
}

pub(super) fn numa_balancing(inventory: &Inventory) -> Examined {
    match inventory.memory.numa_balancing {
        None => unchecked("kernel.numa_balancing is not told"),
        Some(false) => holds("off"),
        Some(true) if inventory.nodes.len() < 2 => holds("on, with one node"),
        Some(true) => fails(
            "on",
            "off: it unmaps pages to see who uses them, which costs each vCPU faults",
            "boot with `numa_balancing=disable`",
        ),
    }
}

pub(super) fn clock_source(inventory: &Inventory) -> Examined {
    let guest = inventory.machine.guest == Some(true);
    match inventory.machine.clock_source.as_deref() {
        None => unchecked("the clock source is not told"),
        Some(source @ ("tsc" | "arch_sys_counter" | "timebase" | "tod")) => holds(source),
        Some(source @ ("kvm-clock" | "hyperv_clocksource_tsc_page")) if guest => holds(source),
        Some(source) => fails(
            source,
            "tsc: others are read through devices, a thousand times slower",
            "look in the kernel's log for why the TSC was found unstable; update the firmware",
        ),
    }
}

pub(super) fn interrupt_remapping(inventory: &Inventory) -> Examined {
    match inventory.host.interrupt_remapping {
        Some(true) => holds("on"),
        Some(false) => fails(
            "interrupts of devices are not remapped",
            "remapped: a guest could else raise any interrupt of the host, and VFIO refuses it",
            "turn on VT-d or AMD-Vi with interrupt remapping in the firmware's setup; boot without `intremap=off`",
        ),
        None => unchecked("/sys/kernel/irq tells no interrupt of a device"),
    }
}

pub(super) fn x2apic(inventory: &Inventory) -> Examined {
    match inventory.host.x2apic {
        Some(true) => holds("the CPUs have it"),
        Some(false) => fails(
            "the CPUs do not show it",
            "x2APIC, which needs no exits for a guest's interrupts, and is a must above 255 CPUs",
            "turn it on in the firmware's setup; boot without `nox2apic`",
        ),
        None => unchecked("the CPU flags are not told"),
    }
}

pub(super) fn smt(inventory: &Inventory) -> Examined {
    let machine = &inventory.machine;
    let vulnerable: Vec<&str> = machine
        .vulnerabilities
        .iter()
        .filter(|(_, text)| text.contains("SMT vulnerable"))
        .map(|(name, _)| name.as_str())
        .collect();
    match (machine.smt.as_deref(), vulnerable.is_empty()) {
        (None, _) => unchecked("/sys/devices/system/cpu/smt is not told"),
        (Some(state), true) => holds(state),
        (Some(state), false) => fails(
            format!(
                "{state}, with {} open between siblings",
                vulnerable.join(" and ")
            ),
            "siblings that cannot read each other, or SMT off",
            "siblings are never given to two tenants here; within one slice turn SMT off (`nosmt`) if its own processes must not trust each other",
        ),
    }
}

/// Nodes where less than half of the free memory lies in blocks that huge pages can be made of.
pub(super) fn huge_page_room(inventory: &Inventory) -> Examined {
    let told: Vec<_> = inventory
        .nodes
        .iter()
        .filter(|node| node.memory_free != ByteSize::ZERO)
        .filter_map(|node| Some((node, node.unfragmented?)))
        .collect();
    if told.is_empty() {
        return unchecked("/proc/buddyinfo is not told");
    }
    let text = |nodes: &[&(&bmslice_inventory::NumaNode, ByteSize)]| {
        nodes
            .iter()
            .map(|(node, room)| {
                format!(
                    "node {}: {} MiB of {} MiB free",
                    node.id,
                    room.mib(),
                    node.memory_free.mib()
                )
            })
            .collect::<Vec<_>>()
            .join(", ")
    };
    let short: Vec<_> = told
        .iter()
        .filter(|(node, room)| room.bytes() < node.memory_free.bytes() / 2)
        .collect();
    if short.is_empty() {
        return holds(text(&told.iter().collect::<Vec<_>>()));
    }
    fails(
        text(&short),
        "most of the free memory in blocks of 2 MiB and larger",
        "`echo 1 > /proc/sys/vm/compact_memory`; better, reserve huge pages in the boot arguments",
    )
}
