//! The QEMU process of a running guest, as `/proc` and `/run/libvirt` show it.
//!
//! Keeps true: each thread has the name that QEMU gives it (`debug-threads=on`, which libvirt
//! sets), the affinity of its pin, and `numa_maps` shows the pages on the nodes they came from.

use std::fmt::Display;

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
    let arguments = [
        "/usr/bin/qemu-system-x86_64",
        "-name",
        &format!("guest={name},debug-threads=on"),
        "-uuid",
        &domain.uuid,
        "",
    ];
    tree.put(format!("{at}/cmdline"), arguments.join("\0"), 0o444);
    tree.link(format!("{at}/exe"), "/usr/bin/qemu-system-x86_64");
    let mut tid = pid;
    let pins = &live.pins;
    thread(tree, pid, pid, "qemu-system-x86", &pins.emulator);
    let mut next = |name: String, cpus: &dyn Display| {
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
    let mut maps = "55d000000000 default file=/usr/bin/qemu-system-x86_64 mapped=900 N0=900 \
                    kernelpagesize_kB=4\n"
        .to_owned();
    for (i, (node, kib, count)) in live.pages.iter().enumerate() {
        maps.push_str(&format!(
            "7f{i:02x}00000000 bind:{node} file=/memfd:memory-backend-memfd\\040(deleted) huge \
             dirty={count} N{node}={count} kernelpagesize_kB={kib}\n"
        ));
    }
    for (i, (node, kib)) in live.plain.iter().enumerate() {
        let count = kib / 4;
        maps.push_str(&format!(
            "7f{i:02x}00000000 bind:{node} anon={count} dirty={count} N{node}={count} \
             kernelpagesize_kB=4\n"
        ));
    }
    tree.put(format!("{at}/numa_maps"), maps, 0o444);
}

fn thread(tree: &Tree, pid: u32, tid: u32, name: &str, cpus: &dyn Display) {
    let mut folders = vec![format!("/proc/{pid}/task/{tid}")];
    if pid == tid {
        folders.push(format!("/proc/{pid}"));
    }
    for at in folders {
        tree.show(format!("{at}/comm"), name);
        tree.put(
            format!("{at}/status"),
            format!("Name:\t{name}\nTgid:\t{pid}\nPid:\t{tid}\nCpus_allowed_list:\t{cpus}\n"),
            0o444,
        );
        tree.show(
            format!("{at}/stat"),
            format!("{tid} ({name}) S 1 {pid} {pid} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9000"),
        );
    }
}

/// Ends it.
pub fn hide(tree: &Tree, name: &str, pid: u32) {
    tree.remove(format!("/proc/{pid}"));
    tree.remove(format!("/run/libvirt/qemu/{name}.pid"));
    tree.remove(format!("/run/libvirt/qemu/{name}.xml"));
}
