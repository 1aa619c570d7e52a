//! hwloc's own reading of a machine: the tree that `lstopo -v` prints, or its XML.
//!
//! Gives each object with the CPUs below it (hwloc's own sets, where it is a tree of text, are
//! its processing units).

use std::collections::BTreeMap;

use bmslice_model::{CpuId, CpuSet};
use quick_xml::events::Event;

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Package,
    Die,
    Core,
    Pu,
    Node,
    /// Level, and `u`, `d` or `i`.
    Cache(u32, char),
    /// A cache in front of a node's memory.
    SideCache,
    Pci,
    Bridge,
    Machine,
    Other,
}

/// An object of hwloc's tree.
#[derive(Debug, Clone)]
pub struct Object {
    pub kind: Kind,
    pub number: Option<u32>,
    /// Processing units below it; for memory and devices, of what they hang at.
    pub cpus: CpuSet,
    /// As printed (`95GiB`), or in bytes.
    pub size: Option<String>,
    /// `0000:00:1f.2 8086:3a20 0101`.
    pub device: Option<String>,
    /// Number of the kind of a core.
    core_kind: Option<u32>,
    parent: Option<usize>,
}

/// The whole reading.
#[derive(Debug, Default)]
pub struct Reading {
    pub objects: Vec<Object>,
    /// Rows of distances between nodes, and the nodes' numbers.
    pub distances: Vec<Vec<u32>>,
    /// CPUs of each kind, where cores differ.
    pub kinds: Vec<CpuSet>,
    /// Whether bridges and devices that are not of interest are there too.
    pub all_devices: bool,
}

impl Reading {
    /// Objects of a kind: number and CPUs, in a fixed order.
    pub fn of(&self, kind: &Kind) -> Vec<&Object> {
        self.objects.iter().filter(|o| o.kind == *kind).collect()
    }

    /// The kinds of caches that are there.
    pub fn caches(&self) -> BTreeMap<(u32, char), Vec<CpuSet>> {
        let mut caches: BTreeMap<(u32, char), Vec<CpuSet>> = BTreeMap::new();
        for object in &self.objects {
            if let Kind::Cache(level, kind) = object.kind {
                caches
                    .entry((level, kind))
                    .or_default()
                    .push(object.cpus.clone());
            }
        }
        caches
    }

    fn finish(mut self) -> Self {
        for i in 0..self.objects.len() {
            if self.objects[i].kind != Kind::Pu {
                continue;
            }
            let cpu = CpuId::new(self.objects[i].number.unwrap()).unwrap();
            let mut at = Some(i);
            while let Some(j) = at {
                self.objects[j].cpus.insert(cpu);
                at = self.objects[j].parent;
            }
        }
        let mut kinds: BTreeMap<u32, CpuSet> = BTreeMap::new();
        for object in &self.objects {
            if let Some(kind) = object.core_kind {
                kinds.entry(kind).or_default().extend_from(&object.cpus);
            }
        }
        self.kinds.extend(kinds.into_values());
        // Memory and devices hang at something that has CPUs below it, or at one that hangs there.
        for i in 0..self.objects.len() {
            if matches!(
                self.objects[i].kind,
                Kind::Node | Kind::SideCache | Kind::Pci | Kind::Bridge
            ) {
                let parent = self.objects[i].parent.unwrap();
                self.objects[i].cpus = self.objects[parent].cpus.clone();
            }
        }
        self
    }
}

fn kind(name: &str, cache_type: Option<&str>) -> Kind {
    match name {
        "Machine" => Kind::Machine,
        "Package" => Kind::Package,
        "Die" => Kind::Die,
        "Core" => Kind::Core,
        "PU" => Kind::Pu,
        "NUMANode" => Kind::Node,
        "MemCache" | "MemSideCache" => Kind::SideCache,
        "PCI" | "PCIDev" => Kind::Pci,
        "PCIBridge" | "HostBridge" | "Bridge" => Kind::Bridge,
        _ => match name.strip_prefix('L').and_then(|n| n.strip_suffix("Cache")) {
            Some(of) => {
                let level = of[..1].parse().unwrap();
                let letter = match cache_type {
                    Some("1") => 'd',
                    Some("2") => 'i',
                    Some(_) => 'u',
                    None => of[1..].chars().next().unwrap_or('u'),
                };
                Kind::Cache(level, letter)
            }
            None => Kind::Other,
        },
    }
}

/// `lstopo -v` as text.
#[allow(
    clippy::while_let_on_iterator,
    reason = "the rows of a matrix are taken from the same lines"
)]
pub fn console(text: &str) -> Reading {
    let mut reading = Reading::default();
    let mut above: Vec<(usize, usize)> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("depth 0:") {
            break;
        }
        let indent = line.len() - line.trim_start().len();
        let rest = line.trim_start();
        let name: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric())
            .collect();
        let details = rest.split_once('(').map_or("", |(_, details)| details);
        let field = |key: &str| {
            let at = details.find(key)? + key.len();
            let end = details[at..]
                .find([' ', ')'])
                .map_or(details.len(), |end| at + end);
            Some(details[at..end].to_owned())
        };
        while above.last().is_some_and(|(depth, _)| *depth >= indent) {
            above.pop();
        }
        let device = field("busid=").map(|at| {
            let class = field("class=").unwrap();
            format!("{at} {} {}", field("id=").unwrap(), &class[..4])
        });
        // `busid=` holds `id=`, too: only the one after a blank is meant.
        let device = device.map(|text| {
            let at = text.split(' ').next().unwrap().to_owned();
            let id = details.split(" id=").nth(1).unwrap();
            let class = details.split(" class=").nth(1).unwrap();
            format!("{at} {} {}", &id[..9], &class[..4])
        });
        reading.objects.push(Object {
            kind: kind(&name, None),
            number: field("P#").and_then(|n| n.parse().ok()),
            cpus: CpuSet::new(),
            size: field("local=").or_else(|| field("(size=")).or_else(|| {
                details
                    .split([' ', ')'])
                    .find_map(|f| f.strip_prefix("size="))
                    .map(Into::into)
            }),
            device,
            core_kind: field("cpukind=").and_then(|n| n.parse().ok()),
            parent: above.last().map(|(_, index)| *index),
        });
        above.push((indent, reading.objects.len() - 1));
    }
    while let Some(line) = lines.next() {
        if line.starts_with("Relative latency matrix") {
            lines.next();
            while let Some(row) = lines.peek() {
                let numbers: Option<Vec<u32>> =
                    row.split_whitespace().map(|n| n.parse().ok()).collect();
                let Some(numbers) = numbers else { break };
                reading.distances.push(numbers[1..].to_vec());
                lines.next();
            }
        }
    }
    reading.finish()
}

/// `lstopo --of xml`.
pub fn xml(text: &str) -> Reading {
    let mut reading = Reading {
        all_devices: true,
        ..Reading::default()
    };
    let mut reader = quick_xml::Reader::from_str(text);
    let mut above: Vec<usize> = Vec::new();
    let mut values: Vec<u32> = Vec::new();
    let mut in_values = false;
    let mut count = 0;
    loop {
        let event = reader.read_event().unwrap();
        match &event {
            Event::Eof => break,
            Event::Start(tag) | Event::Empty(tag) => {
                let field = |name: &str| {
                    tag.try_get_attribute(name)
                        .unwrap()
                        .map(|value| String::from_utf8(value.value.to_vec()).unwrap())
                };
                match tag.name().as_ref() {
                    b"object" => {
                        let name = field("type").unwrap();
                        let device = field("pci_busid").map(|at| {
                            let kind = field("pci_type").unwrap();
                            format!("{at} {} {}", &kind[6..15], &kind[..4])
                        });
                        reading.objects.push(Object {
                            kind: kind(&name, field("cache_type").as_deref()),
                            number: field("os_index").and_then(|n| n.parse().ok()),
                            cpus: CpuSet::new(),
                            size: field("local_memory").or_else(|| field("cache_size")),
                            device,
                            core_kind: None,
                            parent: above.last().copied(),
                        });
                        if matches!(event, Event::Start(_)) {
                            above.push(reading.objects.len() - 1);
                        }
                    }
                    b"cpukind" => reading.kinds.push(mask(&field("cpuset").unwrap())),
                    b"distances2" => {
                        count = field("nbobjs").unwrap().parse().unwrap();
                        values.clear();
                    }
                    b"u64values" => in_values = true,
                    _ => {}
                }
            }
            Event::End(tag) => match tag.name().as_ref() {
                b"object" => {
                    above.pop();
                }
                b"u64values" => in_values = false,
                b"distances2" => {
                    reading.distances = values.chunks(count).map(<[u32]>::to_vec).collect();
                }
                _ => {}
            },
            Event::Text(text) if in_values => {
                let text = String::from_utf8(text.to_vec()).unwrap();
                values.extend(text.split_whitespace().map(|n| n.parse::<u32>().unwrap()));
            }
            _ => {}
        }
    }
    reading.finish()
}

/// `0x00000001,0x000000ff`: words of 32 bits, the highest first; an empty word is zero.
fn mask(text: &str) -> CpuSet {
    let mut set = CpuSet::new();
    for (i, word) in (0u32..).zip(text.rsplit(',')) {
        let word = u32::from_str_radix(word.trim_start_matches("0x"), 16).unwrap_or(0);
        let bits = (0..32).filter(|bit| word >> bit & 1 == 1);
        bits.for_each(|bit| {
            set.insert(CpuId::new(i * 32 + bit).unwrap());
        });
    }
    set
}

/// A size as hwloc prints it beside an object: whole KiB below 10 MiB, whole MiB below 10 GiB, and
/// so on, rounded.
pub fn printed(bytes: u64) -> String {
    let units = [("KiB", 10u32), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let (unit, shift) = units
        .iter()
        .find(|(_, shift)| bytes >> shift < 10 << 10)
        .unwrap();
    let rounded = ((bytes >> (shift - 1)) + 1) >> 1;
    format!("{rounded}{unit}")
}
