//! Shapes of CPU and memory that servers have: what each becomes.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where its tree cannot be read"
)]

mod tree;

use std::collections::BTreeSet;

use bmslice_inventory::Inventory;
use bmslice_model::CpuSet;
use tree::{Tree, cpus, notes, range};

const CPUS: &str = "/sys/devices/system/cpu";
const NODES: &str = "/sys/devices/system/node";

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

/// The groups that a key makes, as lists.
fn groups<K: Ord>(inventory: &Inventory, key: impl Fn(&bmslice_inventory::Cpu) -> K) -> usize {
    inventory
        .cpus
        .iter()
        .map(key)
        .collect::<BTreeSet<_>>()
        .len()
}

#[test]
fn dies_and_clusters_are_told_apart_in_their_packages() {
    // Two packages of two dies of two clusters of two cores; dies and clusters count anew.
    let tree = cpus(16, |cpu| {
        vec![
            ("physical_package_id", (cpu / 8).to_string()),
            ("package_cpus_list", range(cpu / 8 * 8, 8)),
            ("die_id", (cpu / 4 % 2).to_string()),
            ("die_cpus_list", range(cpu / 4 * 4, 4)),
            ("cluster_id", (cpu / 2 % 4).to_string()),
            ("cluster_cpus_list", range(cpu / 2 * 2, 2)),
            ("core_id", (cpu % 8).to_string()),
            ("core_cpus_list", cpu.to_string()),
        ]
    });
    let inventory = tree.read();
    assert_eq!(groups(&inventory, |c| c.package), 2);
    assert_eq!(groups(&inventory, |c| (c.package, c.die)), 4);
    assert_eq!(groups(&inventory, |c| (c.package, c.cluster)), 8);
    let cpu = &inventory.cpus[13];
    assert_eq!(
        (cpu.package, cpu.die, cpu.cluster),
        (Some(1), Some(1), Some(2))
    );
    assert!(!notes(&inventory).contains("told apart"));
}

#[test]
fn sockets_that_each_book_counts_anew_are_packages_of_their_own() {
    // s390: two drawers of two books of two sockets of two cores.
    let tree = cpus(16, |cpu| {
        vec![
            ("physical_package_id", (cpu / 2 % 2).to_string()),
            ("core_siblings", format!("{:08x}", 0x3u32 << (cpu / 2 * 2))),
            ("book_id", (cpu / 4 % 2).to_string()),
            ("book_siblings", format!("{:08x}", 0xfu32 << (cpu / 4 * 4))),
            ("drawer_id", (cpu / 8).to_string()),
            (
                "drawer_siblings",
                format!("{:08x}", 0xffu32 << (cpu / 8 * 8)),
            ),
            ("core_id", cpu.to_string()),
            ("thread_siblings", format!("{:08x}", 1u32 << cpu)),
        ]
    });
    tree.file(
        "/proc/cpuinfo",
        "vendor_id       : IBM/S390\nprocessor 0: version = FF,  identification = 2733E8,  machine = 3906",
    );
    let inventory = tree.read();
    assert_eq!(groups(&inventory, |c| c.package), 8);
    assert_eq!(groups(&inventory, |c| c.book), 4);
    assert_eq!(groups(&inventory, |c| c.drawer), 2);
    assert_eq!(inventory.machine.architecture, "s390x");
    assert_eq!(inventory.machine.cpu_vendor.as_deref(), Some("IBM/S390"));
    let notes = notes(&inventory);
    assert!(
        notes.contains(
            "8 packages are not told apart by their numbers (4 have number 0, 4 have number 1)"
        ),
        "{notes}"
    );
}

#[test]
fn firmware_that_numbers_nothing_still_has_packages_and_no_dies() {
    // An arm64 kernel without PPTT: -1 for each number, each CPU a die and a cluster of its own.
    let tree = cpus(8, |cpu| {
        vec![
            ("physical_package_id", "-1".into()),
            ("package_cpus_list", range(cpu / 4 * 4, 4)),
            ("die_id", "-1".into()),
            ("die_cpus_list", cpu.to_string()),
            ("cluster_id", "-1".into()),
            ("cluster_cpus_list", cpu.to_string()),
            ("core_id", (cpu % 4).to_string()),
            ("core_cpus_list", cpu.to_string()),
        ]
    });
    tree.file(
        "/proc/cpuinfo",
        "processor\t: 0\nCPU implementer\t: 0xc0\nCPU part\t: 0xac3\n",
    );
    let inventory = tree.read();
    assert_eq!(groups(&inventory, |c| c.package), 2);
    assert!(
        inventory
            .cpus
            .iter()
            .all(|c| c.die.is_none() && c.cluster.is_none())
    );
    assert_eq!(inventory.machine.architecture, "aarch64");
    assert_eq!(inventory.machine.cpu_vendor.as_deref(), Some("Ampere"));
    assert!(notes(&inventory).contains("2 packages have no number; they were counted"));
}

#[test]
fn cores_of_eight_threads_are_cores() {
    let tree = cpus(32, |cpu| {
        vec![
            ("physical_package_id", "-1".into()),
            ("core_siblings", "ffffffff".into()),
            ("core_id", (cpu / 8 * 8).to_string()),
            (
                "thread_siblings",
                format!("{:08x}", 0xffu32 << (cpu / 8 * 8)),
            ),
        ]
    });
    let inventory = tree.read();
    assert_eq!(groups(&inventory, |c| c.siblings.to_string()), 4);
    assert_eq!(inventory.cpus[9].siblings, set("8-15"));
}

#[test]
fn kinds_and_capacities_of_a_hybrid_are_told() {
    let tree = cpus(6, |cpu| {
        let siblings = if cpu < 4 {
            range(cpu / 2 * 2, 2)
        } else {
            cpu.to_string()
        };
        vec![
            ("physical_package_id", "0".into()),
            ("core_id", cpu.to_string()),
            ("thread_siblings_list", siblings),
        ]
    });
    tree.file("/sys/devices/cpu_core/cpus", "0-3")
        .file("/sys/devices/cpu_atom/cpus", "4-5");
    for cpu in 0..6 {
        let (capacity, max) = if cpu < 4 {
            ("1024", "5000000")
        } else {
            ("580", "3900000")
        };
        let policy = format!("{CPUS}/cpu{cpu}/cpufreq");
        tree.file(&format!("{CPUS}/cpu{cpu}/cpu_capacity"), capacity)
            .file(&format!("{policy}/related_cpus"), cpu.to_string())
            .file(&format!("{policy}/scaling_driver"), "intel_pstate")
            .file(&format!("{policy}/scaling_governor"), "powersave")
            .file(&format!("{policy}/cpuinfo_min_freq"), "400000")
            .file(&format!("{policy}/cpuinfo_max_freq"), max);
    }
    tree.file(&format!("{CPUS}/intel_pstate/no_turbo"), "0");
    let inventory = tree.read();
    let of = |cpu: usize| {
        let cpu = &inventory.cpus[cpu];
        (cpu.kind.as_deref(), cpu.capacity)
    };
    assert_eq!(of(3), (Some("core"), Some(1024)));
    assert_eq!(of(4), (Some("atom"), Some(580)));
    assert_eq!(inventory.power.boost, Some(true));
    let groups: Vec<(String, Option<u64>)> = inventory
        .power
        .frequencies
        .iter()
        .map(|group| (group.cpus.to_string(), group.max))
        .collect();
    assert_eq!(
        groups,
        [
            ("0-3".to_owned(), Some(5_000_000)),
            ("4-5".to_owned(), Some(3_900_000))
        ]
    );
}

#[test]
fn cores_of_two_designs_of_arm_are_of_two_kinds() {
    let tree = cpus(3, |cpu| vec![("core_cpus_list", cpu.to_string())]);
    let entry = |cpu: u32, part: &str| {
        format!("processor : {cpu}\nCPU implementer : 0x41\nCPU part : {part}\n\n")
    };
    let entries = [entry(0, "0xd05"), entry(1, "0xd05"), entry(2, "0xd0b")];
    tree.file("/proc/cpuinfo", entries.concat());
    let kinds = tree.read().cpus.into_iter().map(|cpu| cpu.kind.unwrap());
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        ["part 0xd05", "part 0xd05", "part 0xd0b"]
    );
    tree.file("/proc/cpuinfo", entry(0, "0xd05"));
    assert!(
        tree.read().cpus.iter().all(|cpu| cpu.kind.is_none()),
        "all alike"
    );
}

#[test]
fn base_frequencies_tell_kinds_apart_where_no_name_does() {
    let tree = cpus(4, |cpu| vec![("core_cpus_list", cpu.to_string())]);
    let clocks = |cpu: u32, base: &str| {
        let policy = format!("{CPUS}/cpu{cpu}/cpufreq");
        tree.file(&format!("{policy}/related_cpus"), cpu.to_string())
            .file(&format!("{policy}/base_frequency"), base)
            .file(
                &format!("{policy}/cpuinfo_max_freq"),
                format!("500{cpu}000"),
            );
    };
    for cpu in 0..4 {
        clocks(cpu, "1900000");
    }
    assert!(
        tree.read().cpus.iter().all(|cpu| cpu.kind.is_none()),
        "a core that may be clocked higher than others is of no other kind"
    );
    clocks(3, "1400000");
    let kinds: Vec<_> = tree.read().cpus.into_iter().map(|cpu| cpu.kind).collect();
    let kind = |text: &str| Some(text.to_owned());
    assert_eq!(
        (&kinds[0], &kinds[3]),
        (&kind("base 1900 MHz"), &kind("base 1400 MHz"))
    );
    // What ACPI rates them at says the same.
    for cpu in 0..4 {
        let folder = format!("{CPUS}/cpu{cpu}");
        tree.remove(&format!("{folder}/cpufreq/base_frequency"));
        let mhz = if cpu == 3 { "1400" } else { "1900" };
        tree.file(&format!("{folder}/acpi_cppc/nominal_freq"), mhz);
    }
    let again: Vec<_> = tree.read().cpus.into_iter().map(|cpu| cpu.kind).collect();
    assert_eq!(again, kinds);
}

#[test]
fn the_deepest_idle_state_is_the_last_that_is_not_disabled() {
    let tree = cpus(1, |_| vec![("core_cpus_list", "0".into())]);
    for (state, name, latency, disable) in [
        (0, "POLL", "0", "0"),
        (1, "C1", "2", "0"),
        (2, "C6", "133", "1"),
    ] {
        let folder = format!("{CPUS}/cpu0/cpuidle/state{state}");
        tree.file(&format!("{folder}/name"), name)
            .file(&format!("{folder}/latency"), latency)
            .file(&format!("{folder}/disable"), disable);
    }
    tree.file(&format!("{CPUS}/cpuidle/current_driver"), "intel_idle");
    let idle = tree.read().power.idle.unwrap();
    assert_eq!(idle.driver.as_deref(), Some("intel_idle"));
    assert_eq!(idle.states.len(), 3);
    assert_eq!(idle.deepest().unwrap().name, "C1");
}

#[test]
fn mitigations_microcode_and_the_hypervisor_above_are_told() {
    let tree = cpus(1, |_| vec![("core_cpus_list", "0".into())]);
    tree.file(
        "/proc/cpuinfo",
        "processor : 0\nvendor_id : GenuineIntel\nmicrocode : 0x2b000603\nflags : fpu lm hypervisor",
    )
    .file(&format!("{CPUS}/vulnerabilities/l1tf"), "Not affected")
    .file(&format!("{CPUS}/vulnerabilities/mds"), "Vulnerable; SMT Host state unknown")
    .file(&format!("{CPUS}/smt/control"), "notsupported")
    .file("/sys/class/dmi/id/sys_vendor", "QEMU")
    .file("/sys/class/dmi/id/product_name", "Standard PC (Q35 + ICH9, 2009)");
    let machine = tree.read().machine;
    assert_eq!(machine.vulnerabilities["l1tf"], "Not affected");
    assert_eq!(machine.vulnerabilities.len(), 2);
    assert_eq!(machine.microcode.as_deref(), Some("0x2b000603"));
    assert_eq!(machine.smt.as_deref(), Some("notsupported"));
    assert_eq!(
        (machine.guest, machine.guest_of.as_deref()),
        (Some(true), Some("kvm"))
    );
}

#[test]
fn cpu_0_may_be_offline_and_numbers_may_be_huge() {
    let tree = Tree::new();
    for cpu in [0u32, 4095, 8191] {
        tree.file(
            &format!("{CPUS}/cpu{cpu}/topology/core_cpus_list"),
            cpu.to_string(),
        )
        .file(
            &format!("{CPUS}/cpu{cpu}/topology/physical_package_id"),
            "0",
        );
    }
    tree.file(&format!("{CPUS}/present"), "0,4095,8191")
        .file(&format!("{CPUS}/online"), "4095,8191")
        .node(0, "4095,8191", 1 << 20, 1 << 19, "10");
    let inventory = tree.read();
    assert_eq!(inventory.cpus.len(), 3);
    assert!(!inventory.cpus[0].online && inventory.cpus[2].online);
    assert_eq!(inventory.cpus[0].node, None);
    assert_eq!(inventory.nodes[0].cpus, set("4095,8191"));
}

#[test]
fn a_cpu_list_beyond_all_numbers_is_noted_and_not_followed() {
    let tree = cpus(2, |cpu| vec![("core_cpus_list", cpu.to_string())]);
    tree.file(&format!("{NODES}/node0/cpulist"), "0-4294967295")
        .file(&format!("{NODES}/node0/meminfo"), "Node 0 MemTotal: 1 kB");
    let inventory = tree.read();
    assert!(inventory.nodes[0].cpus.is_empty());
    assert!(
        notes(&inventory).contains("node0/cpulist"),
        "{}",
        notes(&inventory)
    );
}

#[test]
fn the_mask_is_believed_before_the_list() {
    let tree = cpus(4, |cpu| {
        vec![
            ("thread_siblings", format!("{:x}", 3 << (cpu / 2 * 2))),
            // As a list too long for its page once ended.
            ("thread_siblings_list", cpu.to_string()),
        ]
    });
    assert_eq!(tree.read().cpus[3].siblings, set("2-3"));
}

#[test]
fn a_kernel_older_than_topology_files_tells_cores_in_cpuinfo() {
    let entry = |cpu: u32, package: u32, core: u32| {
        format!("processor : {cpu}\nphysical id : {package}\nsiblings : 2\ncore id : {core}\n\n")
    };
    let tree = Tree::new();
    tree.file(
        "/proc/cpuinfo",
        [
            entry(0, 0, 0),
            entry(1, 3, 0),
            entry(2, 0, 0),
            entry(3, 3, 0),
        ]
        .concat(),
    );
    for cpu in 0..4 {
        tree.folder(&format!("{CPUS}/cpu{cpu}"));
    }
    let inventory = tree.read();
    assert_eq!(inventory.cpus[2].siblings, set("0,2"));
    assert_eq!(inventory.cpus[3].package, Some(3));
    assert!(notes(&inventory).contains("the cores of CPUs 0-3 are told by /proc/cpuinfo alone"));
}

#[test]
fn a_folder_for_a_cpu_that_could_be_added_is_no_cpu_that_runs() {
    let tree = Tree::new();
    for cpu in 0..2 {
        tree.file(
            &format!("{CPUS}/cpu{cpu}/topology/thread_siblings"),
            (1 << cpu).to_string(),
        );
    }
    tree.folder(&format!("{CPUS}/cpu2"))
        .file("/proc/cpuinfo", "processor : 0\nprocessor : 1");
    let inventory = tree.read();
    assert!(!inventory.cpus[2].online);
    assert!(notes(&inventory).contains("CPUs 2 have neither topology"));
}

#[test]
fn numbers_that_a_hypervisor_makes_up_are_none() {
    let tree = cpus(4, |cpu| {
        vec![
            ("physical_package_id", "0".into()),
            ("package_cpus_list", "0-3".into()),
            ("cluster_id", "65535".into()),
            ("cluster_cpus_list", cpu.to_string()),
            ("core_cpus_list", cpu.to_string()),
            (
                "core_id",
                if cpu == 3 {
                    "4294967295".into()
                } else {
                    cpu.to_string()
                },
            ),
        ]
    });
    let inventory = tree.read();
    assert!(inventory.cpus.iter().all(|cpu| cpu.cluster.is_none()));
    assert_eq!(
        (inventory.cpus[2].core, inventory.cpus[3].core),
        (Some(2), None)
    );
    assert!(
        !notes(&inventory).contains("cluster"),
        "{}",
        notes(&inventory)
    );
}

#[test]
fn a_cpu_that_runs_is_there_whatever_the_list_of_those_present_says() {
    let tree = cpus(6, |cpu| vec![("core_cpus_list", cpu.to_string())]);
    tree.file(&format!("{CPUS}/present"), "0-3")
        .file(&format!("{CPUS}/online"), "0-7");
    let inventory = tree.read();
    assert_eq!(inventory.cpus.len(), 6);
    assert!(inventory.cpus[5].online);
    let notes = notes(&inventory);
    assert!(
        notes.contains("CPUs 4-5 are online and not present"),
        "{notes}"
    );
    assert!(
        notes.contains("CPUs 6-7 are online, and neither present nor shown"),
        "{notes}"
    );
}

#[test]
fn an_empty_share_is_the_cores_own_cache_and_a_kind_need_not_be_told() {
    let tree = cpus(4, |cpu| {
        vec![("thread_siblings", format!("{:x}", 3 << (cpu / 2 * 2)))]
    });
    for cpu in 0..4 {
        let folder = format!("{CPUS}/cpu{cpu}/cache/index0");
        tree.file(&format!("{folder}/level"), "3")
            .file(&format!("{folder}/shared_cpu_map"), "00000000");
    }
    let caches = tree.read().caches;
    let sets: Vec<String> = caches.iter().map(|cache| cache.cpus.to_string()).collect();
    assert_eq!(sets, ["0-1", "2-3"]);
}
