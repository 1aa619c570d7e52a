//! The live machine against the real kernel and libvirt's own test driver.
#![allow(clippy::disallowed_methods, reason = "tests of the door itself")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use bmslice_host::{HostError, Hypervisor, LibvirtConnection, LiveMachine, Machine};

fn machine() -> LiveMachine {
    LiveMachine::with_hypervisor("test:///default").expect("the root folder opens")
}

/// Runs one of the tests below again as another process, which reads `BMSLICE_TEST_DIR`.
fn again(test: &str, dir: &Path) -> Process {
    let mut process = Process::new(std::env::current_exe().expect("this test has a path"));
    process
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("BMSLICE_TEST_DIR", dir)
        .stdout(Stdio::null());
    process
}

fn dir_of_the_other() -> PathBuf {
    std::env::var_os("BMSLICE_TEST_DIR")
        .expect("run by another test")
        .into()
}

fn wait_for(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(60), "never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_lock_names_its_holder_and_dies_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/lock");
    let mut holder: Child = again("holds_the_lock", dir.path()).spawn().unwrap();
    wait_for(|| dir.path().join("held").exists());

    let start = Instant::now();
    let Err(error) = machine().lock(&path, Duration::from_millis(300)) else {
        panic!("two hold the lock")
    };
    assert!(start.elapsed() >= Duration::from_millis(300));
    let HostError::Locked { holder: pid } = &error else {
        panic!("{error}")
    };
    assert_eq!(*pid, holder.id().to_string());

    // SIGKILL: nothing of the holder's own code runs any more, and a program that it started and
    // that lives on must not keep its lock.
    holder.kill().unwrap();
    holder.wait().unwrap();
    let lock = machine().lock(&path, Duration::from_secs(5));
    let outlives = std::fs::read_to_string(dir.path().join("held")).unwrap();
    let outlives = rustix::process::Pid::from_raw(outlives.parse().unwrap()).unwrap();
    rustix::process::kill_process(outlives, rustix::process::Signal::KILL).unwrap();
    let lock = lock.unwrap();
    assert!(machine().lock(&path, Duration::ZERO).is_err());
    // Let go, it is free at once, whatever other tests start at this moment.
    drop(lock);
    machine().lock(&path, Duration::ZERO).unwrap();
}

#[test]
#[ignore = "the other process of `a_lock_names_its_holder_and_dies_with_it`"]
#[expect(
    clippy::zombie_processes,
    reason = "it is to live on when this process is killed"
)]
fn holds_the_lock() {
    let dir = dir_of_the_other();
    let _lock = machine()
        .lock(&dir.join("state/lock"), Duration::ZERO)
        .unwrap();
    let outlives = Process::new("sleep").arg("60").spawn().unwrap();
    std::fs::write(dir.join("held.next"), outlives.id().to_string()).unwrap();
    std::fs::rename(dir.join("held.next"), dir.join("held")).unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn waiting_takes_the_lock_when_it_becomes_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let lock = machine().lock(&path, Duration::ZERO).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            machine()
                .lock(&path, Duration::from_secs(30))
                .map(drop)
                .is_ok()
        });
        std::thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished());
        drop(lock);
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn a_full_disk_leaves_the_old_file_and_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    // A file system of 64 KiB that only the other process sees; root of a user namespace may
    // mount one without being root here.
    let exe = again("fills_the_disk", dir.path());
    let mut script = format!(
        "mount -t tmpfs -o size=64k none {0} && exec {1}",
        dir.path().display(),
        exe.get_program().to_string_lossy(),
    );
    for arg in exe.get_args() {
        script.push_str(&format!(" {}", arg.to_string_lossy()));
    }
    let output = Process::new("unshare")
        .args(["--mount", "--user", "--map-root-user", "sh", "-c", &script])
        .env("BMSLICE_TEST_DIR", dir.path())
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && said.contains("1 passed"),
        "needs user namespaces and tmpfs: {said}"
    );
}

#[test]
#[ignore = "the other process of `a_full_disk_leaves_the_old_file_and_nothing_beside_it`"]
fn fills_the_disk() {
    let dir = dir_of_the_other();
    let (plan, journal) = (dir.join("plan.json"), dir.join("journal"));
    let machine = machine();
    machine.install(&plan, b"old", 0o600).unwrap();
    machine.append(&journal, b"line 1\n").unwrap();
    assert!(machine.free_space(&plan).unwrap().bytes() < 64 << 10);

    let error = machine
        .install(&plan, &vec![b'x'; 128 << 10], 0o600)
        .unwrap_err();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull));
    let error = machine
        .append(&journal, &vec![b'y'; 128 << 10])
        .unwrap_err();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull));

    assert_eq!(std::fs::read(&plan).unwrap(), b"old");
    assert_eq!(std::fs::read(&journal).unwrap(), b"line 1\n");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
}

const PINNED: &str = "<domain type='test'>
  <name>red</name><uuid>4DEA22B3-1D52-D8F3-2516-782E98AB3FA0</uuid>
  <memory>1048576</memory>
  <vcpu placement='static' cpuset='2-7'>3</vcpu>
  <iothreads>2</iothreads>
  <cputune>
    <vcpupin vcpu='0' cpuset='4'/><vcpupin vcpu='1' cpuset='6'/><vcpupin vcpu='2' cpuset='5,7'/>
    <emulatorpin cpuset='2-3'/>
    <iothreadpin iothread='1' cpuset='2'/><iothreadpin iothread='2' cpuset='3'/>
  </cputune>
  <os><type>hvm</type></os>
</domain>";

#[test]
fn a_domain_goes_through_its_life_and_tells_its_pins() {
    let libvirt = LibvirtConnection::open("test:///default").unwrap();
    libvirt.define(PINNED).unwrap();
    let state = |name: &str| {
        let domains = libvirt.domains().unwrap();
        domains.into_iter().find(|domain| domain.name == name)
    };
    let red = state("red").unwrap();
    assert_eq!(red.uuid, "4dea22b3-1d52-d8f3-2516-782e98ab3fa0");
    assert!(!red.running && red.persistent && !red.autostart);
    let error = libvirt.pins("red").unwrap_err().to_string();
    assert!(
        error.starts_with("libvirt could not tell the pins of the domain `red`: ")
            && error.contains("not running"),
        "{error}"
    );

    libvirt.set_autostart("red", true).unwrap();
    libvirt.start("red").unwrap();
    let red = state("red").unwrap();
    assert!(red.running && red.autostart);
    let pins = libvirt.pins("red").unwrap();
    let vcpus: Vec<_> = pins.vcpus.iter().map(ToString::to_string).collect();
    assert_eq!(vcpus, ["4", "6", "5,7"]);
    assert_eq!(pins.emulator.to_string(), "2-3");
    let iothreads: Vec<_> = pins
        .iothreads
        .iter()
        .map(|(id, cpus)| (*id, cpus.to_string()))
        .collect();
    assert_eq!(iothreads, [(1, "2".into()), (2, "3".into())]);
    assert!(libvirt.xml("red", true).unwrap().contains("<emulatorpin"));

    libvirt.destroy("red").unwrap();
    libvirt.undefine("red").unwrap();
    assert_eq!(state("red"), None);
    assert!(state("test").is_some_and(|domain| domain.running));
    assert!(libvirt.capabilities().unwrap().contains("<capabilities>"));
    assert!(libvirt.versions().unwrap().0 >= (6, 0, 0));
}

#[test]
fn libvirts_own_words_are_in_the_error() {
    let libvirt = LibvirtConnection::open("test:///default").unwrap();
    let said = |error: HostError| error.to_string();
    assert_eq!(
        said(libvirt.start("blue").unwrap_err()),
        "libvirt could not start the domain `blue`: Domain not found"
    );
    let error = said(
        libvirt
            .define("<domain><name>x</name></domain>")
            .unwrap_err(),
    );
    assert!(error.contains("define the domain: "), "{error}");
    let error = said(libvirt.start("a\0b").unwrap_err());
    assert!(error.contains("NUL"), "{error}");
    let error = said(libvirt.reattach("pci_0000_01_00_0").unwrap_err());
    assert!(error.contains("`pci_0000_01_00_0`"), "{error}");
    let missing = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
    let Err(error) = LibvirtConnection::open(missing) else {
        panic!("connected to a socket that is not there")
    };
    let error = said(error);
    assert!(
        error.contains("/nonexistent/libvirt-sock") && error.contains("No such file"),
        "{error}"
    );
}

#[test]
fn nothing_is_printed_behind_the_callers_back() {
    let output = again("fails_quietly", Path::new("/")).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
#[ignore = "the other process of `nothing_is_printed_behind_the_callers_back`"]
fn fails_quietly() {
    let libvirt = LibvirtConnection::open("test:///default").unwrap();
    libvirt.start("blue").unwrap_err();
}
