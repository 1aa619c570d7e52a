//! A rendered domain says what the plan says: element by element for the seed's own slices, pin by
//! pin for random plans, and libvirt's schema takes all of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "these tests run libvirt's validator on files of a temporary folder"
)]

mod plans;
mod xml;

use std::path::PathBuf;
use std::process::Command;

use bmslice_plan::{NicPlan, Plan, SlicePlan};
use bmslice_render::{METADATA_NAMESPACE, RenderError, definition_digest, domain_xml};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use xml::Node;

/// What the seed's document has the reader type into `/tmp/Red_k8s_cluster_worker1.xml` (quotes
/// made straight, nothing else changed), round it only an element to hold it.
const SEED: &str = r#"<seed>
<vcpu placement='static'>8</vcpu>
<iothreads>1</iothreads>
<cputune>
  <vcpupin vcpu='0' cpuset='4'/>
  <vcpupin vcpu='1' cpuset='6'/>
  <vcpupin vcpu='2' cpuset='8'/>
  <vcpupin vcpu='3' cpuset='10'/>
  <vcpupin vcpu='4' cpuset='16'/>
  <vcpupin vcpu='5' cpuset='18'/>
  <vcpupin vcpu='6' cpuset='20'/>
  <vcpupin vcpu='7' cpuset='22'/>
  <emulatorpin cpuset='2,14'/>
  <iothreadpin iothread='1' cpuset='2,14'/>
</cputune>
<hostdev mode="subsystem" type="pci" managed="yes">
  <source>
    <address domain="0" bus="1" slot="0" function="0"/>
  </source>
</hostdev>
</seed>"#;

fn domain(slice: &SlicePlan) -> Node {
    Node::parse(&domain_xml(slice).unwrap())
}

#[test]
fn the_seeds_red_worker_has_the_seeds_elements() {
    let plan = plans::seed();
    let red = domain(plan.slice("Red_k8s_cluster_worker1").unwrap());
    let seed = Node::parse(SEED);

    assert_eq!(red.get("type"), Some("kvm"));
    assert_eq!(red.one("vcpu").text, seed.one("vcpu").text);
    assert_eq!(
        red.one("vcpu").get("placement"),
        seed.one("vcpu").get("placement")
    );
    assert_eq!(red.one("iothreads").text, seed.one("iothreads").text);
    let tune = |node: &Node| -> Vec<(String, Vec<(String, String)>)> {
        let elements = node.one("cputune").children.iter();
        elements
            .map(|e| (e.name.clone(), e.attributes.clone()))
            .collect()
    };
    assert_eq!(tune(&red), tune(&seed));

    let (device, wanted) = (red.one("devices/hostdev"), seed.one("hostdev"));
    for attribute in ["mode", "type", "managed"] {
        assert_eq!(device.get(attribute), wanted.get(attribute), "{attribute}");
    }
    for part in ["domain", "bus", "slot", "function"] {
        assert_eq!(
            device.one("source/address").number(part),
            wanted.one("source/address").number(part),
            "{part}"
        );
    }
    // `virt-install --memory 8192 --cpu host-passthrough --console pty,target_type=serial`
    assert_eq!(red.one("memory").text, (8192 * 1024).to_string());
    assert_eq!(red.one("cpu").get("mode"), Some("host-passthrough"));
    assert_eq!(red.one("devices/console").get("type"), Some("pty"));
    assert_eq!(
        red.one("devices/console/target").get("type"),
        Some("serial")
    );
    assert_eq!(
        red.one("devices/disk/source").get("file"),
        Some("/var/lib/libvirt/images/Red_k8s_cluster_worker1.qcow2")
    );
}

#[test]
fn the_seeds_blue_worker_has_the_seeds_pins() {
    // From the seed's `virsh vcpuinfo` and `virsh emulatorpin`.
    let plan = plans::seed();
    let blue = domain(plan.slice("Blue_k8s_cluster_worker1").unwrap());
    let pins: Vec<&str> = blue
        .all("cputune/vcpupin")
        .iter()
        .map(|pin| pin.get("cpuset").unwrap())
        .collect();
    assert_eq!(pins, ["5", "7", "9", "11", "17", "19", "21", "23"]);
    assert_eq!(blue.one("cputune/emulatorpin").get("cpuset"), Some("3,15"));
    let source = blue.one("devices/hostdev/source/address");
    assert_eq!((source.number("bus"), source.number("function")), (1, 1));
}

#[test]
fn nothing_comes_in_that_was_not_asked_for() {
    for slice in plans::seed().slices() {
        let devices = domain(slice);
        let devices = devices.one("devices");
        for absent in [
            "interface",
            "graphics",
            "video",
            "emulator",
            "input",
            "sound",
        ] {
            assert!(devices.all(absent).is_empty(), "{absent}");
        }
        assert_eq!(devices.one("memballoon").get("model"), Some("none"));
        let usb: Vec<_> = devices
            .all("controller")
            .into_iter()
            .filter(|c| c.get("type") == Some("usb"))
            .map(|c| c.get("model"))
            .collect();
        assert_eq!(usb, [Some("none")]);
    }
}

#[test]
fn a_domain_carries_its_tenant_and_the_digest_of_its_definition() {
    let plan = plans::seed();
    let red = &plan.slices()[0];
    let facts = domain(red);
    let facts = facts.one("metadata/bmslice:slice");
    assert_eq!(facts.get("xmlns:bmslice"), Some(METADATA_NAMESPACE));
    assert_eq!(facts.get("tenant"), Some("Red"));
    assert_eq!(
        facts.get("definition"),
        Some(definition_digest(red).unwrap().as_str())
    );
    let mut moved = red.clone();
    moved.vcpus.swap(0, 1);
    assert_ne!(
        definition_digest(red).unwrap(),
        definition_digest(&moved).unwrap()
    );
}

#[test]
fn a_control_character_is_refused_and_named() {
    let mut slice = plans::seed().slices()[0].clone();
    slice.disk.path = "/images/\u{1}.qcow2".into();
    let error = domain_xml(&slice).unwrap_err();
    assert!(matches!(error, RenderError::Text { .. }));
    assert_eq!(
        error.to_string(),
        "slice `Red_k8s_cluster_worker1`: \"/images/\\u{1}.qcow2\" has a control character and cannot be written as `source file` of the domain"
    );
}

/// The host's functions of a domain, in the order in which the guest will find them.
fn functions(domain: &Node) -> Vec<(u32, u32, u32, u32)> {
    let devices = domain.one("devices");
    let mut found: Vec<_> = devices
        .children
        .iter()
        .filter(|d| d.name == "hostdev" || d.get("type") == Some("hostdev"))
        .map(|device| {
            assert_eq!(device.get("managed"), Some("yes"));
            let host = device.one("source/address");
            let guest = device.one("address");
            (
                (guest.number("bus"), guest.number("slot")),
                (
                    host.number("domain"),
                    host.number("bus"),
                    host.number("slot"),
                    host.number("function"),
                ),
            )
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, host)| host).collect()
}

fn says_what_the_plan_says(slice: &SlicePlan) {
    let domain = domain(slice);
    assert_eq!(domain.one("name").text, slice.name.as_str());
    assert_eq!(domain.one("uuid").text, slice.uuid);
    assert_eq!(domain.one("memory").text, slice.memory.kib().to_string());

    let vcpu = domain.one("vcpu");
    assert_eq!(vcpu.text, slice.vcpus.len().to_string());
    let start = plans::cpus(vcpu.get("cpuset").unwrap());
    assert_eq!(start, slice.vcpu_cpus().union(&slice.pool()));
    let mut union = bmslice_model::CpuSet::new();
    let pins = domain.all("cputune/vcpupin");
    assert_eq!(pins.len(), slice.vcpus.len());
    for (number, (pin, cpu)) in pins.iter().zip(&slice.vcpus).enumerate() {
        assert_eq!(pin.number("vcpu") as usize, number);
        assert_eq!(pin.get("cpuset").unwrap(), cpu.to_string());
        union.insert(*cpu);
    }
    let emulator = plans::cpus(domain.one("cputune/emulatorpin").get("cpuset").unwrap());
    assert_eq!(emulator, slice.emulator);
    union.extend_from(&emulator);
    let iothreads = domain.all("cputune/iothreadpin");
    assert_eq!(iothreads.len(), slice.iothreads.len());
    for (number, (pin, wanted)) in iothreads.iter().zip(&slice.iothreads).enumerate() {
        assert_eq!(pin.number("iothread") as usize, number + 1);
        assert_eq!(&plans::cpus(pin.get("cpuset").unwrap()), wanted);
        union.extend_from(wanted);
    }
    assert_eq!(start, union, "no thread is born where none is pinned");
    assert_eq!(
        domain.all("iothreads").len(),
        usize::from(!slice.iothreads.is_empty())
    );

    let (cells, memnodes) = (domain.all("cpu/numa/cell"), domain.all("numatune/memnode"));
    assert_eq!(cells.len(), slice.cells.len());
    for (id, wanted) in slice.cells.iter().enumerate() {
        assert_eq!(cells[id].number("id") as usize, id);
        assert_eq!(plans::cpus(cells[id].get("cpus").unwrap()), wanted.vcpus);
        assert_eq!(
            cells[id].get("memory").unwrap(),
            wanted.memory.kib().to_string()
        );
        assert_eq!(memnodes[id].number("cellid") as usize, id);
        assert_eq!(memnodes[id].number("nodeset"), wanted.node.0);
        assert_eq!(memnodes[id].get("mode"), Some("strict"));
    }
    assert_eq!(
        domain.all("memoryBacking").len(),
        usize::from(slice.huge_pages.is_some())
    );
    if let Some(page) = slice.huge_pages {
        let said = domain.one("memoryBacking/hugepages/page");
        assert_eq!(said.get("size").unwrap(), page.kib().to_string());
        assert_eq!(
            plans::cpus(said.get("nodeset").unwrap()).len(),
            slice.cells.len()
        );
    }

    let wanted: Vec<_> = slice
        .nics
        .iter()
        .flat_map(NicPlan::functions)
        .map(|f| {
            let (device, function) = (u32::from(f.device()), u32::from(f.function()));
            (f.domain(), u32::from(f.bus()), device, function)
        })
        .collect();
    assert_eq!(
        functions(&domain),
        wanted,
        "the guest's order is the plan's"
    );
    let vlans: Vec<u32> = domain
        .all("devices/interface/vlan/tag")
        .iter()
        .map(|tag| tag.number("id"))
        .collect();
    let wanted: Vec<u32> = slice
        .nics
        .iter()
        .filter_map(|nic| match nic {
            NicPlan::Vf { vlan, .. } => vlan.map(|id| u32::from(id.number())),
            _ => None,
        })
        .collect();
    assert_eq!(vlans, wanted);
    let disks = domain.all("devices/disk");
    assert_eq!(
        disks[0].one("source").get("file"),
        Some(slice.disk.path.as_str())
    );
    assert_eq!(disks.len(), 1 + usize::from(slice.disk.seed.is_some()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_domain_read_back_says_what_the_plan_says(plan in plans::any_plan()) {
        for slice in plan.slices() {
            says_what_the_plan_says(slice);
        }
    }
}

/// A tool that the packages `libvirt-clients` and `libxml2-utils` bring. Without it the test
/// cannot tell: on a developer's machine it says so, in continuous integration it fails.
fn tool(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        let message = format!(
            "NOT TESTED: `{program}` is missing (apt-get install libvirt-clients libxml2-utils)"
        );
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("{message}");
    }
    there
}

fn write_domains(folder: &std::path::Path, plans: &[Plan]) -> Vec<PathBuf> {
    let slices = plans.iter().flat_map(Plan::slices).enumerate();
    slices
        .map(|(number, slice)| {
            let path = folder.join(format!("{number}.xml"));
            std::fs::write(&path, domain_xml(slice).unwrap()).unwrap();
            path
        })
        .collect()
}

/// The plan files under `examples/`: what the planner makes of the examples.
fn examples() -> Vec<Plan> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let folders = std::fs::read_dir(folder).unwrap();
    let files = folders.map(|entry| entry.unwrap().path().join("plan.json"));
    let plans: Vec<Plan> = files
        .filter(|path| path.exists())
        .map(|path| Plan::parse(&std::fs::read_to_string(path).unwrap()).unwrap())
        .collect();
    assert!(!plans.is_empty(), "no example has a plan");
    plans
}

#[test]
fn the_planners_own_plan_of_the_seed_gives_the_same_pins_and_devices() {
    let by_hand = plans::seed();
    let is_seed = |plan: &Plan| plan.slice("Red_k8s_cluster_worker1").is_some();
    let example = examples().into_iter().find(is_seed).unwrap();
    assert_eq!(example.slices().len(), by_hand.slices().len());
    for slice in example.slices() {
        says_what_the_plan_says(slice);
        let (example, by_hand) = (
            domain(slice),
            domain(by_hand.slice(slice.name.as_str()).unwrap()),
        );
        let pins = |node: &Node| {
            let pins = node.one("cputune").children.iter();
            pins.map(|p| (p.name.clone(), p.attributes.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(pins(&example), pins(&by_hand));
        assert_eq!(functions(&example), functions(&by_hand));
    }
}

#[test]
fn libvirts_schema_takes_the_examples_and_the_seeds_domains() {
    if !tool("virt-xml-validate") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut plans = examples();
    plans.push(plans::seed());
    for path in write_domains(folder.path(), &plans) {
        let output = Command::new("virt-xml-validate")
            .arg(&path)
            .arg("domain")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// The schema that `virt-xml-validate FILE domain` uses; it is loaded once for all files here,
/// which takes most of the time.
const SCHEMA: &str = "/usr/share/libvirt/schemas/domain.rng";

#[test]
fn libvirts_schema_takes_the_domains_of_random_plans() {
    if !tool("xmllint") || !tool("virt-xml-validate") {
        return;
    }
    let mut runner = TestRunner::default();
    let strategy = plans::any_plan();
    let random: Vec<Plan> = (0..64)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let paths = write_domains(folder.path(), &random);
    let output = Command::new("xmllint")
        .args(["--noout", "--relaxng", SCHEMA])
        .args(&paths)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let bad = said.lines().find(|line| !line.ends_with("validates"));
        let bad = bad.and_then(|line| line.split(':').next()).unwrap();
        panic!("{said}\n{}", std::fs::read_to_string(bad).unwrap());
    }
    assert_eq!(
        said.lines().filter(|l| l.ends_with("validates")).count(),
        paths.len(),
        "every file was looked at"
    );
}
