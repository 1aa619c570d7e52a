//! The files beside the domains: boot arguments, units, cloud-init, guestfs commands.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "these tests run a shell and systemd-analyze on files of a temporary folder"
)]

mod plans;

use std::path::Path;
use std::process::Command;

use bmslice_model::KernelArg;
use bmslice_plan::{NicPlan, Plan, SlicePlan};
use bmslice_render::{
    Artifacts, CustomizeOperation, GrubScript, RenderError, RenderOptions, customize_argv,
    customize_commands, host_unit, network_config, render, user_data,
};
use bmslice_spec::{GuestUser, Isolation, Setup};
use proptest::prelude::*;
use serde_json::{Value, json};

const HASH: &str = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/";

fn text<'a>(artifacts: &'a Artifacts, path: &str) -> &'a str {
    std::str::from_utf8(&artifacts[path].bytes).unwrap()
}

fn seed_artifacts() -> Artifacts {
    render(&plans::seed(), &RenderOptions::default()).unwrap()
}

/// A slice that cloud-init sets up, with a password, a key, a command and a configured card.
fn cloud_slice() -> SlicePlan {
    let mut slice = plans::seed().slices()[0].clone();
    slice.disk.setup = Setup::CloudInit;
    slice.disk.seed = Some("/var/lib/libvirt/images/red-seed.iso".into());
    let user = slice.guest.user.as_mut().unwrap();
    user.ssh_keys = vec!["ssh-ed25519 AAAA me@there".into()];
    slice.guest.first_commands = vec!["echo \"it's: up\" > /root/up # done".into()];
    let NicPlan::Passthrough { nic, .. } = &mut slice.nics[0] else {
        panic!("the seed's card");
    };
    nic.network = Some(bmslice_spec::GuestNetwork {
        dhcp4: false,
        addresses: vec!["192.0.2.10/24".into()],
        gateway4: Some("192.0.2.1".into()),
        nameservers: vec!["192.0.2.53".into()],
    });
    slice
}

fn with(slice: SlicePlan) -> Plan {
    let mut parts = plans::seed().into_parts();
    parts.slices = vec![slice];
    Plan::new(parts).unwrap()
}

#[test]
fn the_seeds_plan_gives_these_files() {
    let artifacts = seed_artifacts();
    let paths: Vec<&str> = artifacts.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "domains/Blue_k8s_cluster_worker1.xml",
            "domains/Red_k8s_cluster_worker1.xml",
            "host/grub.d/90-bmslice.cfg",
            "host/grub/09_bmslice",
            "host/kernel-args",
            "host/systemd/bmslice-fall-back.service",
            "host/systemd/bmslice-fall-back.timer",
            "host/systemd/bmslice-host.service",
            "host/systemd/bmslice-slices.service",
            "host/systemd/irqbalance.service.d/90-bmslice.conf",
            "images/Blue_k8s_cluster_worker1.json",
            "images/Red_k8s_cluster_worker1.json",
        ]
    );
    assert_eq!(
        text(&artifacts, "host/kernel-args"),
        "intel_iommu=on isolcpus=domain,managed_irq,2-11,14-23\n"
    );
    let installed: Vec<&str> = artifacts.values().filter_map(|a| a.installed).collect();
    assert_eq!(
        installed,
        [
            "/etc/default/grub.d/90-bmslice.cfg",
            "/etc/grub.d/09_bmslice",
            "/etc/systemd/system/bmslice-fall-back.service",
            "/etc/systemd/system/bmslice-fall-back.timer",
            "/etc/systemd/system/bmslice-host.service",
            "/etc/systemd/system/bmslice-slices.service",
            "/etc/systemd/system/irqbalance.service.d/90-bmslice.conf",
        ]
    );
}

#[test]
fn without_boot_arguments_grub_is_left_alone() {
    let mut parts = plans::seed().into_parts();
    parts.host.kernel_args.clear();
    let artifacts = render(&Plan::new(parts).unwrap(), &RenderOptions::default()).unwrap();
    assert!(!artifacts.keys().any(|path| path.contains("grub")
        || path.contains("kernel-args")
        || path.contains("fall-back")));
}

#[test]
fn the_same_plan_gives_the_same_bytes() {
    assert_eq!(seed_artifacts(), seed_artifacts());
}

/// What a shell makes of the drop-in, as `grub-mkconfig` sources it after `/etc/default/grub`.
fn sourced(before: &str, drop_in: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("90-bmslice.cfg");
    std::fs::write(&path, drop_in).unwrap();
    let output = Command::new("sh")
        .args(["-euc", ". \"$1\"; printf %s \"$GRUB_CMDLINE_LINUX\"", "sh"])
        .arg(&path)
        .env("GRUB_CMDLINE_LINUX", before)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn grubs_drop_in_extends_what_is_there() {
    let artifacts = seed_artifacts();
    assert_eq!(
        sourced(
            "console=ttyS0 quiet",
            text(&artifacts, "host/grub.d/90-bmslice.cfg")
        ),
        "console=ttyS0 quiet ${bmslice_args}",
        "GRUB fills it in at boot, not the shell"
    );
}

/// GRUB's own parser, where it is installed.
fn grub_script_check(text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grub.cfg");
    std::fs::write(&path, text).unwrap();
    match Command::new("grub-script-check").arg(&path).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}\n{text}"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn grubs_script_prints_what_grub_can_read() {
    let args: Vec<KernelArg> = vec!["isolcpus=domain,managed_irq,2-11".parse().unwrap()];
    for one_shot in [true, false] {
        let script = GrubScript {
            args: args.clone(),
            before: Some(vec!["quiet".parse().unwrap()]),
            one_shot,
        };
        let output = Command::new("sh")
            .args(["-euc", &script.text()])
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, script.block(), "nothing is expanded by the shell");
        grub_script_check(&printed);
    }
}

fn verify_units(folder: &Path) -> String {
    let output = Command::new("systemd-analyze")
        .args(["verify", "--recursive-errors=no", "--man=no"])
        .arg(folder.join("bmslice-host.service"))
        .arg(folder.join("bmslice-slices.service"))
        .arg(folder.join("bmslice-fall-back.service"))
        .arg(folder.join("bmslice-fall-back.timer"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn systemd_takes_the_units() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        let message = "NOT TESTED: `systemd-analyze` is missing (apt-get install systemd)";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("{message}");
        return;
    }
    let programs = tempfile::tempdir().unwrap();
    // `verify` wants the program to be there and executable.
    for (name, plan) in [
        ("bmslice", plans::seed()),
        ("a b%$c", plans::seed()),
        ("bmslice", dynamic()),
    ] {
        let binary = programs.path().join(name);
        std::fs::copy("/bin/true", &binary).unwrap();
        let options = RenderOptions {
            binary: binary.to_str().unwrap().into(),
        };
        let artifacts = render(&plan, &options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (path, artifact) in &artifacts {
            if let Some(name) = path.strip_prefix("host/systemd/") {
                let path = folder.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, &artifact.bytes).unwrap();
            }
        }
        let said = verify_units(folder.path());
        let ours: Vec<&str> = said.lines().filter(|l| l.contains("bmslice")).collect();
        assert!(ours.is_empty(), "{said}");
        for unit in ["host", "slices", "fall-back"] {
            // In tenths; `--offline` came with systemd 250.
            let output = Command::new("systemd-analyze")
                .args(["security", "--offline=true", "--no-pager", "--threshold=30"])
                .arg(folder.path().join(format!("bmslice-{unit}.service")))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "too exposed: {unit}\n{said}");
        }
    }
}

/// The seed's plan, isolated without a reboot.
fn dynamic() -> Plan {
    let mut parts = plans::seed().into_parts();
    parts.host.isolation = Isolation::Dynamic;
    for slice in &mut parts.slices {
        slice.partition = Some("/bmslice".into());
    }
    Plan::new(parts).unwrap()
}

#[test]
fn without_a_reboot_systemd_confines_everybody_else_and_libvirt_puts_guests_apart() {
    let artifacts = render(&dynamic(), &RenderOptions::default()).unwrap();
    let slice = text(&artifacts, "host/systemd/bmslice.slice");
    assert!(
        slice.contains("\n[Slice]\nAllowedCPUs=2-11,14-23\n"),
        "{slice}"
    );
    for (unit, section) in [
        ("init.scope", "Scope"),
        ("system.slice", "Slice"),
        ("user.slice", "Slice"),
        ("machine.slice", "Slice"),
    ] {
        let drop_in = text(
            &artifacts,
            &format!("host/systemd/{unit}.d/90-bmslice.conf"),
        );
        let want = format!("[{section}]\nAllowedCPUs=0-1,12-13\n");
        assert!(drop_in.ends_with(&want), "{drop_in}");
    }
    let banned = text(
        &artifacts,
        "host/systemd/irqbalance.service.d/90-bmslice.conf",
    );
    assert!(banned.contains("=IRQBALANCE_BANNED_CPULIST=2-11,14-23\n"));
    assert!(
        banned.contains("=IRQBALANCE_BANNED_CPUS=ffcffc\n"),
        "{banned}"
    );
    let domain = text(&artifacts, "domains/Red_k8s_cluster_worker1.xml");
    assert!(
        domain.contains("<partition>/bmslice</partition>"),
        "{domain}"
    );
    // At boot isolation is the kernel's own, and the units need no more than they did.
    let artifacts = seed_artifacts();
    assert!(!artifacts.keys().any(|path| path.ends_with("bmslice.slice")));
    let host = text(&artifacts, "host/systemd/bmslice-host.service");
    assert!(host.contains("\nProtectControlGroups=yes\n"), "{host}");
    assert!(!host.contains("SYS_NICE"), "{host}");
}

#[test]
fn units_come_before_and_after_libvirt() {
    let artifacts = seed_artifacts();
    let host = text(&artifacts, "host/systemd/bmslice-host.service");
    assert!(host.contains("\nBefore=libvirtd.service virtqemud.service "));
    assert!(host.contains("\nExecStart=/usr/local/bin/bmslice resume --host\n"));
    let slices = text(&artifacts, "host/systemd/bmslice-slices.service");
    assert!(slices.contains(" libvirtd.service virtqemud.service bmslice-host.service\n"));
    assert!(slices.contains("\nExecStart=/usr/local/bin/bmslice resume\n"));
}

#[test]
fn a_program_that_a_unit_cannot_name_is_refused() {
    for binary in ["bmslice", "", "/a\nExecStartPost=/bin/sh", "/a\"b", "/a\\b"] {
        let options = RenderOptions {
            binary: binary.into(),
        };
        let error = host_unit(&options, Isolation::Dynamic).unwrap_err();
        assert!(matches!(error, RenderError::Path { .. }), "{binary:?}");
    }
}

fn yaml(text: &str) -> Value {
    let body: String = text.lines().filter(|l| !l.starts_with('#')).collect();
    serde_json::from_str(&body).unwrap()
}

#[test]
fn user_data_sets_up_the_user() {
    let with_hash = user_data(&cloud_slice(), Some(HASH));
    assert!(with_hash.starts_with("#cloud-config\n{"));
    assert_eq!(
        yaml(&with_hash),
        json!({
            "hostname": "red-k8s-cluster-worker1",
            "preserve_hostname": false,
            "users": [{
                "name": "someuser",
                "shell": "/bin/bash",
                "lock_passwd": false,
                "passwd": HASH,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": ["ssh-ed25519 AAAA me@there"],
            }],
            "ssh_pwauth": true,
            "runcmd": ["echo \"it's: up\" > /root/up # done"],
        })
    );
}

#[test]
fn rendered_user_data_has_no_hash_and_says_where_it_comes_from() {
    let slice = cloud_slice();
    let artifacts = render(&with(slice), &RenderOptions::default()).unwrap();
    let path = "cloud-init/Red_k8s_cluster_worker1/user-data";
    let said = text(&artifacts, path);
    assert!(said.starts_with(
        "#cloud-config\n# not shown here: `passwd`, which apply reads from \"/etc/bmslice/someuser.hash\"\n"
    ));
    assert_eq!(yaml(said)["users"][0].get("passwd"), None);
    assert_eq!(artifacts[path].mode, 0o600);
}

#[test]
fn without_a_user_none_is_made_and_without_a_password_none_is_allowed() {
    let mut slice = cloud_slice();
    slice.guest.user.as_mut().unwrap().password_hash_file = None;
    let data = yaml(&user_data(&slice, Some(HASH)));
    assert_eq!(data["users"][0]["lock_passwd"], true);
    assert_eq!(data["users"][0].get("passwd"), None);
    assert_eq!(data.get("ssh_pwauth"), None);
    slice.guest.user = None;
    assert_eq!(yaml(&user_data(&slice, None))["users"], json!([]));
}

#[test]
fn no_file_name_can_end_the_comment() {
    let mut slice = cloud_slice();
    slice.guest.user.as_mut().unwrap().password_hash_file = Some("/a\nruncmd: [x]\u{2028}".into());
    let said = user_data(&slice, None);
    assert_eq!(said.lines().find(|l| !l.starts_with('#')), Some("{"));
    assert!(!said.contains('\u{2028}'));
}

#[test]
fn network_config_recognises_cards_by_their_mac() {
    let slice = cloud_slice();
    let config: Value = serde_json::from_str(&network_config(&slice).unwrap().unwrap()).unwrap();
    assert_eq!(
        config,
        json!({ "version": 2, "ethernets": { "nic0": {
            "match": { "macaddress": "bc:30:5b:f2:87:52" },
            "set-name": "nic0",
            "dhcp4": false,
            "addresses": ["192.0.2.10/24"],
            "gateway4": "192.0.2.1",
            "nameservers": { "addresses": ["192.0.2.53"] },
        } } })
    );
    let mut unknown = slice;
    let NicPlan::Passthrough { nic, .. } = &mut unknown.nics[0] else {
        panic!("the seed's card");
    };
    nic.mac = None;
    let error = network_config(&unknown).unwrap_err();
    assert_eq!(
        error.to_string(),
        "slice `Red_k8s_cluster_worker1`: card 0 is to be configured inside the guest, but its MAC address is not known"
    );
    assert_eq!(network_config(&plans::seed().slices()[0]), Ok(None));
}

#[test]
fn the_seeds_own_way_is_carried_out_by_guestfs_tools() {
    let plan = plans::seed();
    let slice = &plan.slices()[0];
    let commands: Vec<Vec<String>> = serde_json::from_str(text(
        &seed_artifacts(),
        "images/Red_k8s_cluster_worker1.json",
    ))
    .unwrap();
    let disk = "/var/lib/libvirt/images/Red_k8s_cluster_worker1.qcow2";
    let base = "/var/lib/libvirt/images/CentOS-7-x86_64-GenericCloud-1811.qcow2";
    assert_eq!(
        commands[0],
        [
            "virt-resize",
            "--quiet",
            "--output-format",
            "qcow2",
            "--expand",
            "/dev/sda1",
            base,
            disk
        ]
    );
    assert_eq!(Some(&commands[1]), customize_argv(slice, disk).as_ref());
    let line = commands[1].join(" ");
    for part in [
        "-a /var/lib/libvirt/images/Red_k8s_cluster_worker1.qcow2 ",
        "xfs_growfs /",
        "--hostname red-k8s-cluster-worker1 ",
        "useradd -m -s /bin/bash -- 'someuser'",
        "--write /etc/sudoers.d/90-bmslice:someuser ALL=(ALL) NOPASSWD:ALL\n ",
        "--chmod 0440:/etc/sudoers.d/90-bmslice ",
        "PasswordAuthentication yes",
        "systemctl enable sshd",
        "--selinux-relabel",
    ] {
        assert!(line.contains(part), "{part:?} in {line}");
    }
}

#[test]
fn the_password_hash_reaches_the_disk_by_file_and_leaves_it() {
    let operations = customize_commands(&plans::seed().slices()[0]);
    let upload = operations.iter().position(|op| {
        matches!(op, CustomizeOperation::Upload { from, .. } if from == "/etc/bmslice/someuser.hash")
    });
    let delete = operations
        .iter()
        .position(|op| matches!(op, CustomizeOperation::Delete(_)));
    assert_eq!(delete, upload.map(|at| at + 2));
    let CustomizeOperation::Run(line) = &operations[upload.unwrap() + 1] else {
        panic!("the hash is used between");
    };
    assert!(line.ends_with("| chpasswd -e"), "{line}");
}

/// What the line about the password hands to `chpasswd`, for a user of any name.
#[test]
fn the_guests_shell_takes_any_user_name_as_one_word() {
    let folder = tempfile::tempdir().unwrap();
    let hash = folder.path().join("hash");
    std::fs::write(&hash, format!("{HASH}\nsecond line\n")).unwrap();
    for name in ["someuser", "it's $(id) \"x\"; y", "-n"] {
        let mut slice = plans::seed().slices()[0].clone();
        slice.guest.user = Some(GuestUser {
            name: name.into(),
            ssh_keys: vec![],
            password_hash_file: Some("/h".into()),
            sudo: false,
        });
        let operations = customize_commands(&slice);
        let line = operations.iter().find_map(|op| match op {
            CustomizeOperation::Run(line) if line.ends_with("chpasswd -e") => Some(line),
            _ => None,
        });
        let line = line
            .unwrap()
            .replace("/root/.bmslice-password-hash", hash.to_str().unwrap())
            .replace("chpasswd -e", "cat");
        let output = Command::new("sh").args(["-euc", &line]).output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("{name}:{HASH}\n")
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn cloud_init_files_are_printable_yaml_with_every_text_unchanged(plan in plans::any_plan()) {
        for slice in plan.slices() {
            for (said, is_data) in [
                (user_data(slice, None), true),
                (bmslice_render::meta_data(slice), false),
                (network_config(slice).unwrap().unwrap_or("{}".into()), false),
            ] {
                let printable = |c: char| matches!(c,
                    '\n' | ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}'
                    | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..);
                prop_assert!(said.chars().all(printable), "{said:?}");
                let value = yaml(&said);
                if is_data {
                    prop_assert_eq!(&value["hostname"], &json!(slice.guest.hostname));
                    let commands = value.get("runcmd").cloned().unwrap_or(json!([]));
                    prop_assert_eq!(commands, json!(slice.guest.first_commands));
                }
            }
        }
    }
}
