//! ostree's deployments: what `ostree` 2022.7 made of the same ones in a sysroot of its own, word for
//! word (`admin deploy`, with `--karg-append` and `--karg-delete`). Its names of entries end with the
//! stateroot's until 2024.5, without it since.

use bmslice_host::Machine;
use bmslice_host::fake::{FakeMachine, FakeServer, Moment, On};
use bmslice_inventory::{BootLoader, GrubEntries, Probes};

use crate::run;

const ENTRIES: &str = "/boot/loader/entries";
const OWN: &str =
    "rw $ignition_firstboot console=ttyS0,115200 root=UUID=5f2a0000-0000-4000-8000-000000000001";

fn iot() -> FakeMachine {
    FakeMachine::new(FakeServer {
        cmdline: "console=ttyS0,115200".into(),
        ..FakeServer::iot()
    })
}

fn read(fake: &FakeMachine, path: &str) -> String {
    fake.root().read_text(path).unwrap()
}

fn rpm_ostree(fake: &FakeMachine, args: &[&str]) -> String {
    run(fake, "rpm-ostree", args).unwrap().stdout
}

/// Where the folder is, and of each entry: its name, its kernel and its options.
fn shown(fake: &FakeMachine) -> Vec<String> {
    let at = fake.root().resolve(ENTRIES).unwrap();
    let mut lines = vec![at.display().to_string()];
    for name in fake.root().list(ENTRIES).unwrap() {
        let text = read(fake, &format!("{ENTRIES}/{name}"));
        let value = |wanted: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(key, _)| *key == wanted).unwrap().1
        };
        let kernel = value("linux").rsplit_once("/vmlinuz-").unwrap().1;
        let words = value("options").split('/').map(|part| {
            let is_sum = part.len() == 64 && part.chars().all(|c| c.is_ascii_hexdigit());
            if is_sum { "SUM" } else { part }
        });
        let options = words.collect::<Vec<_>>().join("/");
        assert_eq!(name, format!("ostree-{}.conf", value("version")));
        lines.push(format!("{kernel}: {options}"));
    }
    lines
}

#[test]
fn it_is_read_as_deployments_that_grub_boots() {
    let fake = iot();
    let inventory = bmslice_inventory::read(fake.root(), &Probes::default()).unwrap();
    assert_eq!(inventory.notes, []);
    assert_eq!(
        inventory.boot.loader,
        BootLoader::Ostree(GrubEntries {
            entries: Some(ENTRIES.into()),
            env: Some("/boot/grub2/grubenv".into()),
            obstacle: None,
        })
    );
}

#[test]
fn each_deployment_writes_all_entries_anew_with_the_arguments_of_the_one_before() {
    let fake = iot();
    let (old, new, newer) = (
        "6.7.9-200.fc39.x86_64",
        "6.8.5-301.fc40.x86_64",
        "6.8.11-300.fc40.x86_64",
    );
    let entry = |kernel: &str, boot: u32, serial: u32, more: &str| {
        format!("{kernel}: {OWN} ostree=/ostree/boot.{boot}/fedora/SUM/{serial}{more}")
    };
    assert_eq!(
        shown(&fake),
        [
            "/boot/loader.1/entries",
            &entry(old, 1, 0, ""),
            &entry(new, 1, 0, "")
        ]
    );
    // As `ostree admin kargs edit-in-place` does it: the folder stays.
    let ours = " bmslice.args=0011 isolcpus=2-11 iommu=pt";
    let path = format!("{ENTRIES}/ostree-2.conf");
    let text = read(&fake, &path).replace("\nlinux", &format!("{ours}\nlinux"));
    fake.put(&path, text);
    fake.put(&format!("{ENTRIES}/~bmslice-0011.conf"), "title x\n");
    fake.reboot();
    rpm_ostree(&fake, &["upgrade"]);
    fake.reboot();
    assert_eq!(
        shown(&fake),
        [
            "/boot/loader.0/entries",
            &entry(new, 0, 0, ours),
            &entry(newer, 0, 0, ours)
        ]
    );
    rpm_ostree(&fake, &["kargs", "--append=iommu=pt", "--append=nosmt"]);
    fake.reboot();
    let appended = format!("{ours} iommu=pt nosmt");
    assert_eq!(
        shown(&fake),
        [
            "/boot/loader.1/entries",
            &entry(newer, 1, 1, ours),
            &entry(newer, 1, 0, &appended)
        ]
    );
    rpm_ostree(&fake, &["kargs", "--delete=iommu=pt"]);
    fake.reboot();
    assert_eq!(
        shown(&fake),
        [
            "/boot/loader.0/entries",
            &entry(newer, 0, 1, &appended),
            &entry(newer, 0, 0, &format!("{ours} nosmt"))
        ]
    );
}

#[test]
fn what_is_staged_is_made_at_shutdown_and_lost_in_a_power_cut() {
    let kargs = ["kargs", "--append-if-missing=nosmt"];
    for cut in [false, true] {
        let fake = iot();
        rpm_ostree(&fake, &kargs);
        assert!(rpm_ostree(&fake, &["kargs"]).contains(" nosmt"), "pending");
        assert_eq!(rpm_ostree(&fake, &kargs), "No changes.\n");
        if cut {
            fake.crash(On::Nth(1), Moment::Before);
            run(&fake, "true", &[]).unwrap_err();
        }
        fake.reboot();
        let line = read(&fake, "/proc/cmdline");
        assert_eq!(line.contains(" nosmt"), !cut, "{line}");
        assert_eq!(rpm_ostree(&fake, &["kargs"]).contains(" nosmt"), !cut);
    }
}

#[test]
fn rpm_ostree_says_what_it_does_not_find() {
    let fake = iot();
    let error = run(&fake, "rpm-ostree", &["kargs", "--delete=nosmt"]).unwrap_err();
    assert!(
        error.to_string().contains("No karg 'nosmt' found"),
        "{error}"
    );
    let gone = ["kargs", "--delete-if-present=nosmt"];
    assert_eq!(rpm_ostree(&fake, &gone), "No changes.\n");
    rpm_ostree(&fake, &["upgrade"]);
    rpm_ostree(&fake, &["cleanup", "--pending"]);
    let before = shown(&fake);
    fake.reboot();
    assert_eq!(shown(&fake), before);
}
