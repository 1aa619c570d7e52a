//! The QEMU process of a running guest, as `/proc` and `/run/libvirt` show it.
//!
//! Keeps true: each thread has the name that QEMU gives it (`debug-threads=on`, which libvirt
//! sets), the affinity of its pin, and `numa_maps` shows the pages on the nodes they came from;
//! the arguments name the memory object of each guest cell, and the IOMMU groups of what the guest
//! holds are open.

use std::fmt::Write;

use bmslice_model::CpuSet;

use super::domain::{FakeDomain, Live};
use super::tree::Tree;

/// Makes the process.
pub fn show(tree: &Tree, domain: &FakeDomain, live: &Live) {
    let (name, pid) = (&domain.name, live.pid);
    tree.put(
        format!("/run/libvirt/qemu/{name}.pid"),
        pid.to_string(),
        0o600,
    );
    tree.put(
        format!("/run/libvirt/qemu/{name}.xml"),
        live.element.print(),
        0o600,
    );
    let at = format!("/proc/{pid}");
    let mut arguments = vec![
        "/usr/bin/qemu-system-x86_64".to_owned(),
        "-name".into(),
        format!("guest={name},debug-threads=on"),
    ];
    arguments.extend(memory_objects(live));
    arguments.extend(["-uuid".into(), domain.uuid.clone(), String::new()]);
    tree.put(format!("{at}/cmdline"), arguments.join("\0"), 0o444);
    tree.show(
        format!("{at}/cgroup"),
        format!("0::/{}/libvirt/emulator", live.scope),
    );
    tree.link(format!("{at}/exe"), "/usr/bin/qemu-system-x86_64");
    let mut tid = pid;
    let pins = &live.pins;
    thread(tree, pid, pid, "qemu-system-x86", &pins.emulator);
    let mut next = |name: String, cpus: &CpuSet| {
        tid += 1;
        thread(tree, pid, tid, &name, cpus);
    };
    // The RCU thread starts before threads are given names.
    next("qemu-system-x86".into(), &pins.emulator);
    next("worker".into(), &pins.emulator);
    if !live.pages.is_empty() {
        next("TC tc-ram-node0".into(), &pins.emulator);
    }
    for (id, cpus) in &pins.iothreads {
        next(format!("IO iothread{id}"), cpus);
    }
    next("IO mon_iothread".into(), &pins.emulator);
    for (vcpu, cpus) in pins.vcpus.iter().enumerate() {
        next(format!("CPU {vcpu}/KVM"), cpus);
    }
    // Since Linux 6.12 KVM's worker is a thread of QEMU, and has the affinity of the vCPU that
    // first ran.
    if let Some(first) = pins.vcpus.first() {
        next("kvm-nx-lpage-re".into(), first);
    }
    memory(tree, &at, live);
    open_groups(tree, &at, live);
}

/// As libvirt 9 tells QEMU 7.2: huge pages as a memfd, plain memory as itself, each bound.
fn memory_objects(live: &Live) -> Vec<String> {
    let object = |cell: usize, kind: &str, node: u32, bytes: u64| {
        [
            "-object".to_owned(),
            format!(
                r#"{{"qom-type":"memory-backend-{kind}","id":"ram-node{cell}","size":{bytes},"host-nodes":[{node}],"policy":"bind"}}"#
            ),
            "-numa".to_owned(),
            format!("node,nodeid={cell},memdev=ram-node{cell}"),
        ]
    };
    let huge = live
        .pages
        .iter()
        .map(|(node, kib, count)| ("memfd", *node, kib * count * 1024));
    let plain = live
        .plain
        .iter()
        .map(|(node, kib)| ("ram", *node, kib * 1024));
    huge.chain(plain)
        .enumerate()
        .flat_map(|(cell, (kind, node, bytes))| object(cell, kind, node, bytes))
        .collect()
}

/// Every page is touched: VFIO pins them all, and libvirt asks for it with huge pages.
fn memory(tree: &Tree, at: &str, live: &Live) {
    let program = "55d000000000";
    let mut numa_maps = format!(
        "{program} default file=/usr/bin/qemu-system-x86_64 mapped=900 N0=900 kernelpagesize_kB=4\n"
    );
    let mut maps =
        format!("{program}-55d000384000 r-xp 00000000 fe:01 1424 /usr/bin/qemu-system-x86_64\n");
    let memfd = "/memfd:memory-backend-memfd";
    let huge = live
        .pages
        .iter()
        .map(|(node, kib, count)| (true, *node, *kib, *count));
    let plain = live
        .plain
        .iter()
        .map(|(node, kib)| (false, *node, 4, kib / 4));
    // Far enough apart for any guest.
    let starts = (0x7f00_0000_0000u64..).step_by(1 << 36);
    for (start, (huge, node, kib, count)) in starts.zip(huge.chain(plain)) {
        let end = start + kib * count * 1024;
        let kind = if huge {
            format!("file={memfd}\\040(deleted) huge dirty={count}")
        } else {
            format!("anon={count} dirty={count}")
        };
        let _ = writeln!(
            numa_maps,
            "{start:x} bind:{node} {kind} N{node}={count} kernelpagesize_kB={kib}"
        );
        let file = if huge {
            format!("00:01 12 {memfd} (deleted)")
        } else {
            "00:00 0".into()
        };
        let _ = writeln!(maps, "{start:x}-{end:x} rw-s 00000000 {file}");
    }
    tree.put(format!("{at}/numa_maps"), numa_maps, 0o444);
    tree.put(format!("{at}/maps"), maps, 0o444);
}

fn open_groups(tree: &Tree, at: &str, live: &Live) {
    let fds = format!("{at}/fd");
    tree.remove(&fds);
    tree.dir(&fds);
    let mut open: Vec<String> = live
        .devices
        .iter()
        .filter_map(|held| {
            let link = format!("/sys/bus/pci/devices/{}/iommu_group", held.address);
            let group = std::fs::read_link(tree.at(link)).ok()?;
            Some(format!(
                "/dev/vfio/{}",
                group.file_name()?.to_string_lossy()
            ))
        })
        .collect();
    if !open.is_empty() {
        open.push("/dev/vfio/vfio".into());
    }
    open.sort();
    open.dedup();
    for (fd, target) in (20..).zip(open) {
        // procfs links are absolute, unlike those of sysfs.
        let _ = std::os::unix::fs::symlink(target, tree.at(format!("{fds}/{fd}")));
    }
}

fn thread(tree: &Tree, pid: u32, tid: u32, name: &str, cpus: &CpuSet) {
    let mut folders = vec![format!("/proc/{pid}/task/{tid}")];
    if pid == tid {
        folders.push(format!("/proc/{pid}"));
    }
    // PF_USER_WORKER: the kernel's own thread inside the process.
    let flags = if name == "kvm-nx-lpage-re" { 0x4000 } else { 0 };
    let last = cpus.first().map_or(0, bmslice_model::CpuId::number);
    // Field 22 is the start, field 39 the last CPU (proc(5)).
    let stat = format!(
        "{tid} ({name}) S 1 {pid} {pid} 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 9000 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 -1 {last} 0 0 0"
    );
    for at in folders {
        tree.show(format!("{at}/comm"), name);
        tree.put(
            format!("{at}/status"),
            format!("Name:\t{name}\nTgid:\t{pid}\nPid:\t{tid}\nCpus_allowed_list:\t{cpus}\n"),
            0o444,
        );
        tree.show(format!("{at}/stat"), &stat);
    }
}

/// Ends it.
pub fn hide(tree: &Tree, name: &str, pid: u32) {
    tree.remove(format!("/proc/{pid}"));
    tree.remove(format!("/run/libvirt/qemu/{name}.pid"));
    tree.remove(format!("/run/libvirt/qemu/{name}.xml"));
}
