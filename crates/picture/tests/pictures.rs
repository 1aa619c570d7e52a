//! Pictures of small, large and odd servers: everything is there once, no text is wider than its box,
//! and no line wider than a terminal.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests draw into files and unpack captures"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use bmslice_host::{Limits, Root};
use bmslice_inventory::{Cache, CacheKind, CapturedInventory, Cpu, Inventory, NumaNode};
use bmslice_model::{ByteSize, CpuId, CpuSet, NumaNodeId};
use bmslice_picture::Floor;
use bmslice_plan::Plan;
use proptest::prelude::*;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb;
use resvg::usvg::{Group, Node, Options, Rect, Tree};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A server of plain shape.
fn server(packages: u32, nodes: u32, caches: u32, cores: u32, threads: u32) -> Inventory {
    let mut inventory = Inventory::default();
    inventory.machine.hostname = "drawn".into();
    let total = packages * nodes * caches * cores;
    for core in 0..total {
        let cache = core / cores;
        let node = cache / caches;
        // Siblings apart, as most firmware numbers them.
        let siblings: CpuSet = (0..threads)
            .map(|t| CpuId::new(core + t * total).unwrap())
            .collect();
        for cpu in siblings.iter() {
            inventory.cpus.push(Cpu {
                id: cpu,
                online: true,
                allowed: true,
                package: Some(node / nodes),
                core: Some(core),
                node: Some(NumaNodeId(node)),
                siblings: siblings.clone(),
                ..Cpu::default()
            });
        }
    }
    inventory.cpus.sort_by_key(|cpu| cpu.id);
    let set = |keep: &dyn Fn(u32) -> bool| -> CpuSet {
        let cpus = inventory.cpus.iter().map(|cpu| cpu.id);
        cpus.filter(|cpu| keep(cpu.number() % total)).collect()
    };
    for cache in 0..total / cores {
        inventory.caches.push(Cache {
            level: 3,
            kind: CacheKind::Unified,
            size: Some(ByteSize::from_bytes(32 << 20)),
            cpus: set(&|core| core / cores == cache),
        });
    }
    for node in 0..packages * nodes {
        inventory.nodes.push(NumaNode {
            id: NumaNodeId(node),
            cpus: set(&|core| core / cores / caches == node),
            memory_total: ByteSize::from_bytes(128 << 30),
            ..NumaNode::default()
        });
    }
    inventory
}

fn seed() -> (Inventory, Plan) {
    let read = |name: &str| std::fs::read_to_string(format!("{REPOSITORY}/examples/seed/{name}"));
    let inventory = serde_json::from_str(&read("inventory.json").unwrap()).unwrap();
    (inventory, Plan::parse(&read("plan.json").unwrap()).unwrap())
}

/// hwloc's captures, where they lie beside the checkout.
fn captures() -> Vec<(String, Inventory)> {
    let folder = Path::new(REPOSITORY).join("../shared/machines");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!(
            "SKIPPED: captured machines, since {} is not there",
            folder.display()
        );
        return Vec::new();
    };
    let mut archives: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    archives.retain(|path| path.to_string_lossy().ends_with(".tar.bz2"));
    archives.sort();
    let read = |archive: PathBuf| {
        let root = Root::captured(&archive, Limits::default()).unwrap();
        let inventory = CapturedInventory::read(&root).unwrap().into_inner();
        let name = archive.file_name().unwrap().to_string_lossy().into_owned();
        (name.trim_end_matches(".tar.bz2").to_owned(), inventory)
    };
    archives.into_iter().map(read).collect()
}

/// As a browser without web fonts lays it out.
fn laid_out(svg: &str) -> Tree {
    static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
        let mut fonts = fontdb::Database::new();
        fonts.load_system_fonts();
        Arc::new(fonts)
    });
    let fixed = FONTS.faces().filter(|face| face.monospaced).count();
    assert!(
        fixed > 0,
        "no font with fixed width is here: apt install fonts-dejavu-core"
    );
    let options = Options {
        fontdb: Arc::clone(&FONTS),
        ..Options::default()
    };
    Tree::from_str(svg, &options).unwrap()
}

/// Each text with the box that it stands in: the one drawn before it.
fn texts(group: &Group, inside: &mut Option<Rect>, found: &mut Vec<(String, Rect, Rect)>) {
    for node in group.children() {
        match node {
            Node::Group(group) => texts(group, inside, found),
            Node::Path(path) => *inside = Some(path.abs_bounding_box()),
            Node::Text(text) => {
                let words = text.chunks().iter().map(|chunk| chunk.text()).collect();
                found.push((words, text.abs_bounding_box(), inside.unwrap()));
            }
            Node::Image(_) => panic!("a picture in the picture"),
        }
    }
}

/// Holds of every picture.
fn is_sound(name: &str, inventory: &Inventory, plan: Option<&Plan>) -> Tree {
    let floor = Floor::of(inventory, plan);
    let mut drawn: Vec<u32> = floor.threads().map(|thread| thread.cpu.number()).collect();
    drawn.sort_unstable();
    let there: Vec<u32> = inventory.cpus.iter().map(|cpu| cpu.id.number()).collect();
    assert_eq!(drawn, there, "{name}: each CPU is drawn once");
    for nic in inventory
        .pci
        .iter()
        .filter(|f| f.is_network() && !f.is_vf())
    {
        let address = nic.address.to_string();
        let count = floor
            .devices()
            .filter(|device| device.lines[0] == address)
            .count();
        assert_eq!(count, 1, "{name}: {address}");
    }

    let svg = floor.svg();
    let tree = laid_out(&svg);
    let mut found = Vec::new();
    texts(tree.root(), &mut None, &mut found);
    assert!(
        found.len() >= 2 * there.len(),
        "{name}: {} texts",
        found.len()
    );
    for (text, words, around) in &found {
        let fits = words.left() >= around.left()
            && words.right() <= around.right()
            && words.top() >= around.top()
            && words.bottom() <= around.bottom();
        assert!(
            fits,
            "{name}: `{text}` at {words:?} overflows its box {around:?}"
        );
    }
    let size = tree.size();
    for (text, words, _) in &found {
        assert!(
            words.right() <= size.width() && words.bottom() <= size.height(),
            "{name}: `{text}` is beyond the page"
        );
    }

    for width in [80, 100] {
        for line in floor.map(width, false).lines() {
            let columns = line.chars().count();
            assert!(
                columns <= width,
                "{name}: {columns} columns of {width}: {line}"
            );
        }
    }
    // For whoever wants to look: target/tmp/pictures.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{name}.svg")), &svg).unwrap();
    std::fs::write(folder.join(format!("{name}.txt")), floor.map(80, false)).unwrap();
    tree
}

/// Sound, and really drawn when it is made into pixels.
fn is_seen(name: &str, inventory: &Inventory, plan: Option<&Plan>) {
    let tree = is_sound(name, inventory, plan);
    let size = tree.size();
    let mut pixels = Pixmap::new(size.width().ceil() as u32, size.height().ceil() as u32).unwrap();
    resvg::render(&tree, Transform::default(), &mut pixels.as_mut());
    let path = format!("{}/pictures/{name}.png", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(path, pixels.encode_png().unwrap()).unwrap();
    let dark = pixels
        .pixels()
        .iter()
        .filter(|p| p.alpha() > 0 && p.red() < 128);
    assert!(
        dark.count() > 20 * inventory.cpus.len(),
        "{name}: hardly anything is drawn"
    );
}

#[test]
fn the_seeds_server_and_plan() {
    let (inventory, plan) = seed();
    is_seen("seed", &inventory, Some(&plan));
    is_sound("seed-unplanned", &inventory, None);
}

#[test]
fn each_owner_of_the_plan_is_drawn_where_it_is() {
    let (inventory, plan) = seed();
    let floor = Floor::of(&inventory, Some(&plan));
    let label = |cpu: CpuId| {
        let thread = floor.threads().find(|thread| thread.cpu == cpu).unwrap();
        thread.owner.label()
    };
    for (letter, slice) in ["A", "B"].iter().zip(plan.slices()) {
        for (vcpu, cpu) in slice.vcpus.iter().enumerate() {
            assert_eq!(label(*cpu), format!("{letter}{vcpu}"));
        }
        for cpu in slice.emulator.iter() {
            assert_eq!(label(cpu), format!("{letter}e"));
        }
    }
    for cpu in plan.host().cpus.iter() {
        assert_eq!(label(cpu), "host");
    }
    let text = floor.map(80, false);
    for slice in plan.slices() {
        assert!(text.contains(slice.name.as_str()), "{text}");
    }
    // In black and white, and in colour.
    assert!(!text.contains('\u{1b}') && floor.map(80, true).contains('\u{1b}'));
}

#[test]
fn a_core_that_two_slices_share_shows_both() {
    let (inventory, plan) = seed();
    let mut parts = plan.into_parts();
    // Red's last vCPU becomes that of a third slice of its tenant, on the sibling of red's fourth.
    let red = &mut parts.slices[0];
    let last = red.vcpus.pop().unwrap();
    let sibling = inventory.cpus.iter().find(|cpu| cpu.id == last).unwrap();
    let beside = sibling.siblings.difference(&last.into()).first().unwrap();
    let number = red.vcpus.iter().position(|cpu| *cpu == beside).unwrap();
    red.cells[0].vcpus = "0-6".parse().unwrap();
    let mut third = red.clone();
    red.shared_siblings = last.into();
    third.name = "third".parse().unwrap();
    third.vcpus = vec![last];
    third.cells[0].vcpus = "0".parse().unwrap();
    third.shared_siblings = beside.into();
    third.nics.clear();
    third.pool_is_host = true;
    (third.emulator, third.iothreads) = (parts.host.cpus.clone(), Vec::new());
    parts.slices.push(third);
    let plan = Plan::new(parts).unwrap();
    is_seen("shared-core", &inventory, Some(&plan));
    let floor = Floor::of(&inventory, Some(&plan));
    let label = |cpu: CpuId| {
        let thread = floor.threads().find(|thread| thread.cpu == cpu).unwrap();
        thread.owner.label()
    };
    assert_eq!(
        (label(beside), label(last)),
        (format!("A{number}"), "C0".into())
    );
    let text = floor.map(200, false);
    assert!(
        text.contains("its vCPUs; it shares a core with C"),
        "{text}"
    );
    assert!(
        text.contains("its vCPUs; it shares a core with A"),
        "{text}"
    );
}

#[test]
fn from_two_cpus_to_512() {
    is_seen("1x1x2", &server(1, 1, 1, 1, 2), None);
    is_sound("2x1x16x2", &server(2, 1, 1, 16, 2), None);
    is_sound("epyc-nps4-256", &server(2, 4, 4, 4, 2), None);
    is_seen("epyc-512", &server(2, 4, 4, 8, 2), None);
    is_sound("power-smt8", &server(2, 1, 1, 12, 8), None);
}

#[test]
fn captured_machines() {
    for (name, inventory) in captures() {
        is_sound(&name, &inventory, None);
    }
}

#[test]
fn offline_cpus_and_lost_fields_are_drawn_too() {
    let mut inventory = server(2, 2, 1, 4, 2);
    inventory.cpus[3].online = false;
    inventory.cpus[5].node = None;
    inventory.cpus[7].package = None;
    inventory.caches.clear();
    inventory.nodes.push(NumaNode {
        id: NumaNodeId(9),
        ..NumaNode::default()
    });
    inventory.machine.hostname = "a<b>&\"c\"".into();
    is_seen("odd", &inventory, None);
    let text = Floor::of(&inventory, None).map(80, false);
    assert!(
        text.contains("node 9") && text.contains("off: offline"),
        "{text}"
    );
}

#[test]
fn the_same_server_is_the_same_picture() {
    let (inventory, plan) = seed();
    let draw = || Floor::of(&inventory, Some(&plan)).svg();
    assert_eq!(draw(), draw());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_shape_breaks_it(
        shape in (1_u32..4, 1_u32..4, 1_u32..4, 1_u32..6, 1_u32..5),
        offline in 0_usize..8,
    ) {
        let mut inventory = server(shape.0, shape.1, shape.2, shape.3, shape.4);
        for cpu in inventory.cpus.iter_mut().rev().take(offline) {
            cpu.online = false;
        }
        is_sound("random", &inventory, None);
    }
}
