//! Observation over a made-up tree, through a machine that can only be read.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bmslice_host::{
    Command, DomainPins, DomainState, HostError, Hypervisor, Lock, Machine, Output, Root, Version,
};
use bmslice_inventory::LiveInventory;
use bmslice_model::{ByteSize, NumaNodeId};
use bmslice_plan::SlicePlan;
use tempfile::TempDir;

use super::*;
use crate::read::task::Role;
use crate::testing::{BLUE, RED, address, pins, plan, state, vlan};

/// A folder as a machine; libvirt answers when it is there, and knows these domains.
struct TreeMachine {
    dir: TempDir,
    root: Root,
    libvirt: bool,
    domains: Vec<DomainState>,
    commands: RefCell<Vec<String>>,
}

const IP_LINK: &str = r#"[{"ifindex":5,"ifname":"eno3","vfinfo_list":[{"vf":0,"link_type":"ether","address":"52:54:00:6d:90:02","broadcast":"ff:ff:ff:ff:ff:ff","vlan_list":[{"vlan":102}],"spoofchk":true,"link_state":"auto","trust":false}]}]"#;

#[allow(
    clippy::disallowed_methods,
    reason = "the test's own folder is made here"
)]
impl TreeMachine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Self {
            root: Root::open(dir.path()).unwrap(),
            dir,
            libvirt: true,
            domains: Vec::new(),
            commands: RefCell::default(),
        };
        machine.put(
            "proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: GenuineIntel\n\n",
        );
        machine.put("proc/uptime", "1000.00 23000.00\n");
        let pf = "sys/devices/pci0000:80/0000:81:00.0";
        for (name, value) in [
            ("vendor", "0x8086"),
            ("device", "0x10c9"),
            ("class", "0x020000"),
        ] {
            machine.put(&format!("{pf}/{name}"), &format!("{value}\n"));
        }
        machine.put(&format!("{pf}/net/eno3/address"), "52:54:00:00:81:00\n");
        machine.link(
            "sys/bus/pci/devices/0000:81:00.0",
            "../../../devices/pci0000:80/0000:81:00.0",
        );
        machine.link(
            "sys/class/net/eno3",
            "../../devices/pci0000:80/0000:81:00.0/net/eno3",
        );
        machine.link(&format!("{pf}/net/eno3/device"), "../../../0000:81:00.0");
        machine
    }

    fn put(&self, path: &str, text: &str) {
        let at = self.dir.path().join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let at = self.dir.path().join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, at).unwrap();
    }

    fn thread(&self, pid: u32, tid: u32, comm: &str, flags: u64, allowed: &str, last: u32) {
        let stat = format!(
            "{tid} ({comm}) S 1 {pid} {pid} 0 -1 {flags} 1 0 0 0 812 97 0 0 20 0 14 0 40000 9500000000 120000 1 1 1 0 0 0 0 0 0 0 0 0 0 -1 {last} 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        let status = format!("Name:\t{comm}\nCpus_allowed_list:\t{allowed}\n");
        let mut folders = vec![format!("proc/{pid}/task/{tid}")];
        if pid == tid {
            folders.push(format!("proc/{pid}"));
        }
        for folder in folders {
            self.put(&format!("{folder}/stat"), &stat);
            self.put(&format!("{folder}/status"), &status);
        }
    }

    /// The QEMU process of a slice, as libvirt would have started it.
    fn qemu(&self, slice: &SlicePlan, pid: u32, group: u32) {
        let (name, uuid) = (&slice.name, &slice.uuid);
        let (size, node) = (slice.memory.bytes(), slice.cells[0].node);
        let arguments = [
            "/usr/bin/qemu-system-x86_64".to_owned(),
            "-name".into(),
            format!("guest={name},debug-threads=on"),
            "-object".into(),
            format!(
                r#"{{"qom-type":"memory-backend-memfd","id":"ram-node0","hugetlb":true,"size":{size},"host-nodes":[{node}],"policy":"bind"}}"#
            ),
            "-numa".into(),
            "node,nodeid=0,cpus=0-7,memdev=ram-node0".into(),
            "-uuid".into(),
            uuid.clone(),
        ];
        self.put(
            &format!("proc/{pid}/cmdline"),
            &(arguments.join("\0") + "\0"),
        );
        let emulator = slice.emulator.to_string();
        let first = slice.emulator.first().unwrap().number();
        self.thread(pid, pid, "qemu-system-x86", 0x400_0100, &emulator, first);
        self.thread(pid, pid + 1, "IO iothread1", 0x400_0040, &emulator, first);
        for (number, cpu) in (0..).zip(&slice.vcpus) {
            let comm = format!("CPU {number}/KVM");
            let cpu = cpu.number();
            self.thread(
                pid,
                pid + 10 + number,
                &comm,
                0x400_0040,
                &cpu.to_string(),
                cpu,
            );
        }
        let pages = slice.memory.bytes() >> 30;
        self.put(
            &format!("proc/{pid}/numa_maps"),
            &format!("7f0000000000 bind:{node} file=/memfd:memory-backend-memfd\\040(deleted) huge dirty={pages} N{node}={pages} kernelpagesize_kB=1048576\n"),
        );
        let end = 0x7f00_0000_0000 + size;
        self.put(
            &format!("proc/{pid}/maps"),
            &format!("7f0000000000-{end:x} rw-s 00000000 00:01 12 /memfd:memory-backend-memfd (deleted)\n"),
        );
        self.link(&format!("proc/{pid}/fd/3"), "/dev/vfio/vfio");
        self.link(&format!("proc/{pid}/fd/4"), &format!("/dev/vfio/{group}"));
        self.link(&format!("proc/{pid}/fd/5"), "socket:[123]");
    }

    fn observe(&self) -> Observed {
        let inventory = LiveInventory::read(self, None).unwrap();
        observe(self, &inventory, &plan())
    }
}

fn not_for_tests<T>() -> Result<T, HostError> {
    panic!("verification changes nothing")
}

impl Machine for TreeMachine {
    fn root(&self) -> &Root {
        &self.root
    }
    fn write_attribute(&self, _: &Path, _: &str) -> Result<(), HostError> {
        not_for_tests()
    }
    fn install(&self, _: &Path, _: &[u8], _: u32) -> Result<(), HostError> {
        not_for_tests()
    }
    fn append(&self, _: &Path, _: &[u8]) -> Result<(), HostError> {
        not_for_tests()
    }
    fn remove(&self, _: &Path) -> Result<(), HostError> {
        not_for_tests()
    }
    fn rename(&self, _: &Path, _: &Path) -> Result<(), HostError> {
        not_for_tests()
    }
    fn create_dir(&self, _: &Path, _: u32) -> Result<(), HostError> {
        not_for_tests()
    }
    fn sync(&self, _: &Path) -> Result<(), HostError> {
        not_for_tests()
    }
    fn free_space(&self, _: &Path) -> Result<ByteSize, HostError> {
        not_for_tests()
    }
    fn has_program(&self, _: &str) -> bool {
        false
    }
    fn run(&self, command: &Command) -> Result<Output, HostError> {
        self.commands.borrow_mut().push(command.to_string());
        Ok(Output {
            stdout: IP_LINK.into(),
            stderr: String::new(),
        })
    }
    fn lock(&self, _: &Path, _: Duration) -> Result<Box<dyn Lock>, HostError> {
        not_for_tests()
    }
    fn hypervisor(&self) -> Result<Box<dyn Hypervisor + '_>, HostError> {
        if self.libvirt {
            Ok(Box::new(Libvirt(self)))
        } else {
            Err(HostError::Hypervisor {
                action: "connect to `qemu:///system`".into(),
                message: "no such file".into(),
            })
        }
    }
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
    fn sleep(&self, _: Duration) {}
    fn is_root(&self) -> bool {
        true
    }
}

struct Libvirt<'a>(&'a TreeMachine);

impl Hypervisor for Libvirt<'_> {
    fn versions(&self) -> Result<(Version, Option<Version>), HostError> {
        Ok(((9, 0, 0), None))
    }
    fn capabilities(&self) -> Result<String, HostError> {
        Ok("<capabilities/>".into())
    }
    fn domains(&self) -> Result<Vec<DomainState>, HostError> {
        Ok(self.0.domains.clone())
    }
    fn xml(&self, name: &str, _: bool) -> Result<String, HostError> {
        Ok(format!(
            "<domain type='kvm'><name>{name}</name><cputune><emulatorpin cpuset='2,14'/></cputune></domain>"
        ))
    }
    fn pins(&self, name: &str) -> Result<DomainPins, HostError> {
        match plan().slice(name) {
            Some(slice) => Ok(pins(slice)),
            None => Ok(pins(&captured_plan().slices()[0])),
        }
    }
    fn define(&self, _: &str) -> Result<(), HostError> {
        not_for_tests()
    }
    fn undefine(&self, _: &str) -> Result<(), HostError> {
        not_for_tests()
    }
    fn start(&self, _: &str) -> Result<(), HostError> {
        not_for_tests()
    }
    fn shutdown(&self, _: &str) -> Result<(), HostError> {
        not_for_tests()
    }
    fn destroy(&self, _: &str) -> Result<(), HostError> {
        not_for_tests()
    }
    fn set_autostart(&self, _: &str, _: bool) -> Result<(), HostError> {
        not_for_tests()
    }
    fn reattach(&self, _: &str) -> Result<(), HostError> {
        not_for_tests()
    }
}

/// Both slices run.
fn running() -> TreeMachine {
    let mut machine = TreeMachine::new();
    let plan = plan();
    for (slice, (pid, group)) in plan.slices().iter().zip([(4700, 25), (5700, 26)]) {
        machine.qemu(slice, pid, group);
        machine.domains.push(state(slice));
    }
    machine
}

#[test]
fn a_process_is_found_by_its_arguments_and_read_thread_by_thread() {
    let observed = running().observe();
    let red = observed.guests[0].process.as_ref().unwrap();
    assert_eq!((red.pid, red.threads.len()), (4700, 10));
    assert_eq!(red.uuid.as_deref(), Some(plan().slices()[0].uuid.as_str()));
    let vcpu3 = &red.threads[5];
    assert_eq!(
        vcpu3.role(red.pid),
        Role::Vcpu {
            number: 3,
            kvm: true
        }
    );
    assert_eq!(vcpu3.allowed.to_string(), "10");
    assert_eq!(red.age, Some(Duration::from_secs(600)));
    assert_eq!(
        red.vfio.as_ref().unwrap(),
        &["/dev/vfio/25", "/dev/vfio/vfio"]
    );
    let ram = &red.memory.as_ref().unwrap()[0];
    assert_eq!(ram.touched[&NumaNodeId(0)], ByteSize::from_gib(8));
    assert_eq!(ram.length, Some(ByteSize::from_gib(8)));
    assert_eq!(red.backends[0].bound, Some(vec![NumaNodeId(0)]));
    let live = observed.guests[0].live.as_ref().unwrap();
    assert_eq!(live.emulator.as_ref().unwrap().to_string(), "2,14");
}

#[test]
fn a_guest_that_does_not_run_is_not_there_yet_and_two_are_not_told_apart() {
    let machine = TreeMachine::new();
    let observed = machine.observe();
    assert_eq!(
        observed.guests[0].process,
        Err(NotSeen::NotYet(format!("the domain `{RED}` is started")))
    );
    assert_eq!(
        observed.guests[1].next.as_ref().map(|_| ()),
        Err(&NotSeen::NotYet(format!("the domain `{BLUE}` is defined")))
    );
    // What only speaks of a guest is not its process.
    machine.put("proc/77/cmdline", &format!("virsh\0-name\0guest={RED}\0"));
    assert!(machine.observe().guests[0].process.is_err());

    let machine = running();
    machine.qemu(&plan().slices()[0], 4900, 25);
    let reason = machine.observe().guests[0].process.clone().unwrap_err();
    assert!(
        matches!(&reason, NotSeen::Unreadable(why) if why.contains("4700 and 4900")),
        "{reason}"
    );
}

#[test]
fn without_libvirt_processes_are_still_seen() {
    let mut machine = running();
    machine.libvirt = false;
    let observed = machine.observe();
    assert!(observed.guests[0].process.is_ok());
    let NotSeen::Unreadable(why) = observed.domains.clone().unwrap_err() else {
        panic!("libvirt is not there")
    };
    assert_eq!(
        why,
        "libvirt could not connect to `qemu:///system`: no such file"
    );
    assert_eq!(observed.guests[0].live, Err(NotSeen::Unreadable(why)));
}

#[test]
fn the_physical_function_is_asked_for_its_virtual_ones() {
    let machine = running();
    let observed = machine.observe();
    let state = observed.guests[1].vfs[&address("0000:81:10.0")]
        .as_ref()
        .unwrap();
    assert_eq!(state.vlan, Some(vlan(102)));
    assert_eq!(*machine.commands.borrow(), ["ip -j link show dev eno3"]);
}

#[test]
fn tasks_on_a_slices_cpu_are_strangers_unless_the_kernels_for_all_or_the_guests_own() {
    let machine = running();
    const KTHREAD: u64 = 0x0020_8040;
    machine.thread(1, 1, "systemd", 0x400_0100, "0-1,12-13", 0);
    machine.thread(33, 33, "migration/4", KTHREAD, "4", 4);
    machine.thread(4750, 4750, "kvm-pit/4700", KTHREAD, "0-23", 4);
    machine.thread(5750, 5750, "kvm-pit/5700", KTHREAD, "0-23", 4);
    machine.thread(900, 900, "sshd", 0x400_0100, "0-23", 12);
    machine.thread(900, 901, "sshd", 0x400_0100, "0-23", 6);
    let strangers = machine.observe().strangers.unwrap();
    let seen: Vec<_> = strangers.iter().map(|s| (s.pid, s.task.tid)).collect();
    assert_eq!(seen, [(900, 901), (5750, 5750)]);
}

#[test]
fn isolated_partitions_are_read_where_the_kernel_has_them() {
    let machine = running();
    assert!(machine.observe().partitioned.is_empty());
    machine.put("sys/fs/cgroup/cpuset.cpus.isolated", "2-11\n");
    assert_eq!(machine.observe().partitioned.to_string(), "2-11");
}

#[test]
fn what_the_tree_shows_goes_through_the_checks_to_the_report() {
    let machine = running();
    let inventory = LiveInventory::read(&machine, None).unwrap();
    let report = crate::verify(&machine, &inventory, &plan(), None);
    let of = |check: &str, slice: &str| {
        let found = report
            .findings
            .iter()
            .find(|f| f.check == check && f.slice.as_ref().is_some_and(|s| s.as_str() == slice));
        found.unwrap().verdict.clone()
    };
    for check in [
        "domain",
        "process",
        "pins",
        "vcpu-threads",
        "iothreads",
        "emulator-threads",
        "alone",
        "memory-binding",
        "memory",
    ] {
        let verdict = of(check, RED);
        assert!(verdict.is_satisfied(), "{check}: {verdict:?}");
    }
    assert!(of("vf-settings", BLUE).is_satisfied());
    assert!(!of("devices", RED).is_satisfied(), "no such function there");
    assert!(!report.holds());
}

/// A guest of libvirt 9.0 and QEMU 7.2 on Linux 6.12, as it was captured: 4 vCPUs, 512 MiB in 2 MiB
/// pages, pins as in [`captured_plan`].
#[test]
fn a_captured_process_is_as_its_plan_said() {
    let mut machine = TreeMachine::new();
    for section in include_str!("../../tests/fixtures/lab/process.txt").split("== ") {
        let Some((path, text)) = section.split_once('\n') else {
            continue;
        };
        if path.ends_with("/cmdline") {
            machine.put(path, &text.replace('\n', "\0"));
        } else {
            machine.put(path, text);
        }
    }
    // /proc/PID/{stat,status} are those of the main thread.
    for file in ["stat", "status"] {
        machine.link(&format!("proc/688/{file}"), &format!("task/688/{file}"));
    }
    machine.link("proc/688/fd/15", "/dev/kvm");
    let plan = captured_plan();
    machine.domains.push(state(&plan.slices()[0]));
    let inventory = LiveInventory::read(&machine, None).unwrap();
    let observed = observe(&machine, &inventory, &plan);
    let guest = observed.guests[0].process.as_ref().unwrap();
    assert_eq!(guest.age, Some(Duration::from_secs(257 - 154)));
    let report = crate::compare(&plan, &observed, None);
    let verdicts: Vec<_> = report
        .findings
        .iter()
        .filter(|f| {
            [
                "process",
                "vcpu-threads",
                "iothreads",
                "emulator-threads",
                "memory-binding",
                "memory",
            ]
            .contains(&f.check)
        })
        .map(|f| match &f.verdict {
            crate::Verdict::Satisfied { what } => what.as_str(),
            other => panic!("{}: {other:?}", f.check),
        })
        .collect();
    assert_eq!(
        verdicts,
        [
            "QEMU runs it as process 688",
            "4 vCPU threads, each bound to its CPU; they last ran on 4 5 6 7",
            "1 IOThread(s) bound to 2-3",
            "the emulator is bound to 2-3, and so are its other threads (qemu-system-x86, TC tc-ram-node0, IO mon_iothread, worker); KVM's huge page recovery (kvm-nx-lpage-re) is on 7, where the kernel starts it",
            "QEMU was told to take 512MiB on node 0",
            "the guest's memory is 512MiB on node 0 in huge pages of 2MiB",
        ]
    );
    let strangers = observed.strangers.unwrap();
    assert_eq!(strangers, []);
}

fn captured_plan() -> Plan {
    let mut parts = crate::testing::parts();
    parts.slices.truncate(1);
    let slice = &mut parts.slices[0];
    slice.name = "fixture".parse().unwrap();
    slice.uuid = "8e7b0d3f-0000-5000-8000-0000000000ff".into();
    slice.vcpus = [4, 5, 6, 7].map(crate::testing::cpu).to_vec();
    slice.emulator = crate::testing::cpus("2-3");
    slice.iothreads = vec![slice.emulator.clone()];
    slice.memory = ByteSize::from_mib(512);
    slice.huge_pages = Some(ByteSize::from_mib(2));
    slice.cells[0].vcpus = crate::testing::cpus("0-3");
    slice.cells[0].memory = slice.memory;
    slice.nics.clear();
    parts.host.split.clear();
    Plan::new(parts).unwrap()
}

#[test]
fn a_captured_definition_after_a_pin_was_changed_by_hand() {
    let domain = DomainXml::parse(include_str!("../../tests/fixtures/lab/domain.xml")).unwrap();
    assert_eq!(domain.kind, "kvm");
    let pins: Vec<String> = domain.vcpus.values().map(CpuSet::to_string).collect();
    assert_eq!(pins, ["4", "6", "6", "7"], "`virsh vcpupin fixture 1 6`");
    assert_eq!(domain.iothreads[&1].to_string(), "2-3");
    assert_eq!(domain.hostdevs, []);
}

#[test]
fn captured_settings_of_virtual_functions() {
    let states = vfinfo::parse(include_str!("../../tests/fixtures/lab/ip-link.json")).unwrap();
    assert_eq!(states.len(), 2);
    assert_eq!(states[0].mac.unwrap().to_string(), "52:54:00:6d:90:02");
    assert_eq!(
        (states[0].vlan, states[0].trust),
        (Some(vlan(102)), Some(false))
    );
    assert_eq!((states[1].vlan, states[1].trust), (None, Some(true)));
}
