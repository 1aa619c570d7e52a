//! QEMU's command line for a topology: pure, so that it can be pinned by tests.
//!
//! Every option that looks arbitrary was paid for; the reason stands beside it.

use std::ffi::OsString;

use crate::topology::{Nic, Topology};

/// What runs the server's CPUs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Hardware virtualisation, nested for the guests.
    Kvm,
    /// Emulation; it offers AMD's SVM, so there is a `/dev/kvm` inside all the same.
    Tcg,
}

impl Accel {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What boots the server.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// GRUB on the server's own disk, by a BIOS.
    #[default]
    Grub,
    /// systemd-boot on a disk of its own, by UEFI.
    SystemdBoot,
}

impl Loader {
    pub fn name(self) -> &'static str {
        match self {
            Self::Grub => "GRUB",
            Self::SystemdBoot => "systemd-boot",
        }
    }
}

/// All that the command line depends on. Paths are relative to the state folder, QEMU's working
/// directory: a socket's path has room for 108 bytes only.
pub struct Machine {
    pub topology: Topology,
    pub accel: Accel,
    pub loader: Loader,
}

/// Where the server's ssh listens, on 127.0.0.1 of the lab's network namespace.
pub const SSH_PORT: u16 = 2222;

/// Files in the state folder that QEMU reads or makes.
pub const DISK: &str = "server.qcow2";
pub const CONSOLE_LOG: &str = "console.log";
pub const QMP_SOCKET: &str = "qmp.sock";
pub const ESP: &str = "esp.raw";
pub const EFI_VARIABLES: &str = "efivars.fd";
/// The firmware of Debian's and Ubuntu's package `ovmf`.
pub const EFI_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
pub const EFI_VARIABLES_TEMPLATE: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
pub const CLIENT_KEY_PUBLIC: &str = "keys/client.pub";
pub const HOST_KEY: &str = "keys/host";

impl Machine {
    /// The arguments after `qemu-system-x86_64`.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut line = Line::default();
        line.push("-name", "bmslice-lab");
        line.flag("-nodefaults");
        line.flag("-no-user-config");
        // hpet=off: with it, idle emulated CPUs lose timer wake-ups and the boot hangs.
        // kernel-irqchip=split: what intel-iommu's interrupt remapping needs.
        line.push(
            "-machine",
            "q35,kernel-irqchip=split,hpet=off,usb=off,sata=off,smbus=off,vmport=off",
        );
        match self.accel {
            Accel::Kvm => {
                line.push("-accel", "kvm");
                line.push("-cpu", "host,host-phys-bits=off,phys-bits=36");
            }
            Accel::Tcg => {
                line.push("-accel", "tcg,thread=multi,tb-size=1024");
                // -monitor: with MWAIT, an idle emulated CPU spins instead of sleeping.
                line.push("-cpu", "max,+svm,+npt,+x2apic,-monitor,phys-bits=36");
            }
        }
        // phys-bits=36 above and the small hole here: QEMU before 10.1 maps the registers of VFs
        // only below 4 GiB, and the firmware puts them there when the address space is narrow.
        line.push("-global", "q35-pcihost.pci-hole64-size=2G");
        self.cpus_and_memory(&mut line);
        // eim=on lets the kernel use x2APIC, whose registers are MSRs: no memory-mapped exit per
        // interrupt, and no lost end-of-interrupt.
        line.push("-device", "intel-iommu,intremap=on,caching-mode=on,eim=on");
        line.push("-display", "none");
        line.push("-vga", "none");
        line.push("-rtc", "base=utc");
        line.push("-chardev", format!("file,id=console,path={CONSOLE_LOG}"));
        line.push("-serial", "chardev:console");
        line.push("-qmp", format!("unix:{QMP_SOCKET},server=on,wait=off"));
        for (name, file) in [
            ("ssh.authorized_keys.root", CLIENT_KEY_PUBLIC),
            ("bmslice-lab.host-key", HOST_KEY),
        ] {
            line.push(
                "-fw_cfg",
                format!("name=opt/io.systemd.credentials/{name},file={file}"),
            );
        }
        // num-queues=1: with a queue per CPU, a request from an isolated CPU waits for ever.
        line.push(
            "-drive",
            format!("file={DISK},format=qcow2,if=none,id=disk,cache=unsafe,discard=unmap"),
        );
        let (disk, esp) = match self.loader {
            Loader::Grub => (0, None),
            Loader::SystemdBoot => (1, Some(0)),
        };
        line.push(
            "-device",
            format!("virtio-blk-pci,drive=disk,bus=pcie.0,addr=3,num-queues=1,bootindex={disk},serial=bmslice-lab"),
        );
        if let Some(bootindex) = esp {
            line.push(
                "-drive",
                format!("if=pflash,unit=0,format=raw,readonly=on,file={EFI_CODE}"),
            );
            line.push(
                "-drive",
                format!("if=pflash,unit=1,format=raw,file={EFI_VARIABLES}"),
            );
            line.push(
                "-drive",
                format!("file={ESP},format=raw,if=none,id=esp,cache=unsafe"),
            );
            line.push(
                "-device",
                format!("virtio-blk-pci,drive=esp,bus=pcie.0,addr=4,num-queues=1,bootindex={bootindex},serial=bmslice-esp"),
            );
            // The watchdog is here alone: 24 emulated CPUs may keep systemd from feeding it in time.
            line.push("-device", "i6300esb,bus=pcie.0,addr=5");
            line.push("-action", "watchdog=reset");
        }
        line.push(
            "-netdev",
            format!("user,id=management,hostfwd=tcp:127.0.0.1:{SSH_PORT}-:22"),
        );
        line.push(
            "-device",
            "virtio-net-pci,netdev=management,bus=pcie.0,addr=2,mac=52:54:00:0b:00:01,romfile=",
        );
        self.nics(&mut line);
        line.words
    }

    fn cpus_and_memory(&self, line: &mut Line) {
        let server = &self.topology;
        line.push(
            "-smp",
            format!(
                "{},sockets={},cores={},threads={}",
                server.cpus(),
                server.sockets,
                server.cores,
                server.threads
            ),
        );
        line.push("-m", format!("{}M", server.memory().0));
        for node in 0..server.nodes {
            line.push(
                "-object",
                format!(
                    "memory-backend-ram,id=memory{node},size={}M,reserve=off",
                    server.memory_per_node.0
                ),
            );
            line.push("-numa", format!("node,nodeid={node},memdev=memory{node}"));
        }
        for socket in 0..server.sockets {
            if server.nodes <= server.sockets {
                let node = server.node_of(socket, 0);
                line.push("-numa", format!("cpu,node-id={node},socket-id={socket}"));
            } else {
                for core in 0..server.cores {
                    let node = server.node_of(socket, core);
                    line.push(
                        "-numa",
                        format!("cpu,node-id={node},socket-id={socket},core-id={core}"),
                    );
                }
            }
        }
        let per_socket = (server.nodes / server.sockets).max(1);
        for from in 0..server.nodes {
            for to in (0..server.nodes).filter(|to| *to != from) {
                let same_socket = from / per_socket == to / per_socket;
                let distance = if same_socket { 12 } else { 21 };
                line.push("-numa", format!("dist,src={from},dst={to},val={distance}"));
            }
        }
    }

    fn nics(&self, line: &mut Line) {
        let server = &self.topology;
        for node in 0..server.nodes {
            let bus = Nic::expander_bus(node, server.nodes);
            line.push(
                "-device",
                format!("pxb-pcie,id=expander{node},bus=pcie.0,bus_nr={bus},numa_node={node}"),
            );
        }
        for nic in server.nics() {
            let (port, node, index) = (nic.port(), nic.node, nic.index);
            // slot=0 on all: udev then names NICs by their path, the same on every topology.
            line.push(
                "-device",
                format!(
                    "pcie-root-port,id=root-{port},bus=expander{node},addr={index},chassis={},slot=0,io-reserve=0,hotplug=off",
                    nic.ofport
                ),
            );
            // vnet_hdr=off: QEMU then computes checksums itself; the switch would not.
            line.push(
                "-netdev",
                format!("tap,id={port},ifname={port},script=no,downscript=no,vnet_hdr=off"),
            );
            line.push(
                "-device",
                format!(
                    "igb,netdev={port},bus=root-{port},mac={},romfile=",
                    nic.mac()
                ),
            );
        }
    }
}

#[derive(Default)]
struct Line {
    words: Vec<OsString>,
}

impl Line {
    fn flag(&mut self, name: &str) {
        self.words.push(name.into());
    }

    fn push(&mut self, name: &str, value: impl Into<String>) {
        self.words.push(name.into());
        self.words.push(value.into().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(shape: &str, nodes: Option<u32>, accel: Accel) -> String {
        let topology = Topology::new(shape.parse().unwrap(), nodes, None, None).unwrap();
        let loader = Loader::Grub;
        let words = Machine {
            topology,
            accel,
            loader,
        }
        .arguments();
        words
            .iter()
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_documents_server() {
        let line = line("2x6x2", None, Accel::Tcg);
        for part in [
            "-cpu max,+svm,+npt,+x2apic,-monitor,phys-bits=36",
            "-smp 24,sockets=2,cores=6,threads=2 -m 10240M",
            "-numa cpu,node-id=0,socket-id=0 -numa cpu,node-id=1,socket-id=1",
            "-numa dist,src=0,dst=1,val=21 -numa dist,src=1,dst=0,val=21",
            "pxb-pcie,id=expander0,bus=pcie.0,bus_nr=64,numa_node=0",
            "pxb-pcie,id=expander1,bus=pcie.0,bus_nr=128,numa_node=1",
            "igb,netdev=n1p1,bus=root-n1p1,mac=52:54:00:1a:01:01,romfile=",
            "hostfwd=tcp:127.0.0.1:2222-:22",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert_eq!(line.matches("-device igb").count(), 4);
    }

    #[test]
    fn systemd_boot_has_a_disk_and_variables_of_its_own() {
        let topology = Topology::new("1x4x1".parse().unwrap(), None, None, None).unwrap();
        let (accel, loader) = (Accel::Tcg, Loader::SystemdBoot);
        let words = Machine {
            topology,
            accel,
            loader,
        }
        .arguments();
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let line = words.join(" ");
        for part in [
            "drive=disk,bus=pcie.0,addr=3,num-queues=1,bootindex=1",
            "drive=esp,bus=pcie.0,addr=4,num-queues=1,bootindex=0",
            "readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
            "unit=1,format=raw,file=efivars.fd",
            "-device i6300esb,bus=pcie.0,addr=5 -action watchdog=reset",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn a_server_with_one_node() {
        let line = line("1x4x2", None, Accel::Kvm);
        assert!(line.contains("-accel kvm -cpu host,host-phys-bits=off,phys-bits=36"));
        assert!(line.contains("-smp 8,sockets=1,cores=4,threads=2 -m 9216M"));
        assert!(
            line.contains("-numa node,nodeid=0,memdev=memory0 -numa cpu,node-id=0,socket-id=0")
        );
        assert!(!line.contains("dist"));
        assert_eq!(line.matches("-device igb").count(), 2);
    }

    #[test]
    fn more_nodes_than_sockets_split_the_cores() {
        let line = line("1x4x2", Some(2), Accel::Tcg);
        assert!(line.contains("cpu,node-id=0,socket-id=0,core-id=1"));
        assert!(line.contains("cpu,node-id=1,socket-id=0,core-id=2"));
        assert!(line.contains("dist,src=0,dst=1,val=12"));
    }
}
