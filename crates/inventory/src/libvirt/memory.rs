//! The memory of a domain: how much, of which nodes of the host, in which pages.
//!
//! Takes the elements of a domain's XML as they come; gives a part for each cell of the guest.
//! Keeps true: what the XML leaves open (any node; the host's own page size) stays open, and a
//! size that cannot be read is none.
//!
//! Source: libvirt's `formatdomain` (memory, memoryBacking, numatune, NUMA guest topology).

use bmslice_model::{ByteSize, CpuSet, NumaNodeId};
use quick_xml::events::{BytesStart, Event};

use super::{attribute, cpuset};
use crate::facts::DomainMemory;

/// What of the XML was met so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// `<memory>` of the whole domain, with its unit until the number comes.
    unit: Option<String>,
    whole: Option<ByteSize>,
    /// `<cell>`: number and size.
    cells: Vec<(u32, Option<ByteSize>)>,
    /// `<page>`: its size, and the cells that it is for; none is all others.
    pages: Vec<(Option<ByteSize>, Option<CpuSet>)>,
    huge: bool,
    /// `<numatune><memory>`: mode and nodes.
    bound: Option<(Option<String>, Vec<NumaNodeId>)>,
    /// `<memnode>`: cell, mode, nodes.
    nodes: Vec<(u32, Option<String>, Vec<NumaNodeId>)>,
}

impl Reader {
    pub(super) fn visit(&mut self, path: &[&str], event: &Event) {
        match (path, event) {
            (["domain", "memory"], Event::Start(tag)) => {
                self.unit = Some(attribute(tag, "unit").unwrap_or_else(|| "KiB".into()));
            }
            (["domain", "memory"], Event::Text(text)) => {
                let number = String::from_utf8_lossy(text);
                self.whole = self.unit.as_deref().and_then(|unit| size(&number, unit));
            }
            (_, Event::Start(tag) | Event::Empty(tag)) => self.element(path, tag),
            _ => {}
        }
    }

    fn element(&mut self, path: &[&str], tag: &BytesStart) {
        let sized = |name: &str| {
            let unit = attribute(tag, "unit").unwrap_or_else(|| "KiB".into());
            size(&attribute(tag, name)?, &unit)
        };
        let nodes = || {
            let set = attribute(tag, "nodeset").and_then(|text| cpuset(&text));
            set.iter()
                .flat_map(CpuSet::iter)
                .map(|id| NumaNodeId(id.number()))
                .collect()
        };
        match path {
            ["domain", "memoryBacking", "hugepages"] => self.huge = true,
            ["domain", "memoryBacking", "hugepages", "page"] => {
                let cells = attribute(tag, "nodeset").and_then(|text| cpuset(&text));
                self.pages.push((sized("size"), cells));
            }
            ["domain", "numatune", "memory"] => {
                self.bound = Some((attribute(tag, "mode"), nodes()));
            }
            ["domain", "numatune", "memnode"] => {
                if let Some(cell) = number(tag, "cellid") {
                    self.nodes.push((cell, attribute(tag, "mode"), nodes()));
                }
            }
            ["domain", "cpu", "numa", "cell"] => {
                // Cells without a number are counted.
                let counted = u32::try_from(self.cells.len()).unwrap_or(u32::MAX);
                let cell = number(tag, "id").unwrap_or(counted);
                self.cells.push((cell, sized("memory")));
            }
            _ => {}
        }
    }

    pub(super) fn finish(self) -> Vec<DomainMemory> {
        if self.cells.is_empty() {
            let part = self.part(None, self.whole);
            return part.into_iter().collect();
        }
        let cells = self.cells.iter();
        cells
            .filter_map(|(cell, size)| self.part(Some(*cell), *size))
            .collect()
    }

    fn part(&self, cell: Option<u32>, size: Option<ByteSize>) -> Option<DomainMemory> {
        let own = self.nodes.iter().find(|(of, ..)| Some(*of) == cell);
        let (mode, nodes) = match (own, &self.bound) {
            (Some((_, mode, nodes)), _) => (mode.clone(), nodes.clone()),
            (None, Some((mode, nodes))) => (mode.clone(), nodes.clone()),
            (None, None) => (None, Vec::new()),
        };
        Some(DomainMemory {
            cell,
            size: size?,
            // A mode without nodes (placement by numad) binds to none that is told.
            mode: mode.filter(|_| !nodes.is_empty()),
            nodes,
            huge: self.huge,
            page: self.huge.then(|| self.page(cell.unwrap_or(0))).flatten(),
        })
    }

    fn page(&self, cell: u32) -> Option<ByteSize> {
        let of_cell = |cells: &CpuSet| cells.iter().any(|id| id.number() == cell);
        let own = |(_, cells): &&(_, Option<CpuSet>)| cells.as_ref().is_some_and(of_cell);
        let for_all = |(_, cells): &&(_, Option<CpuSet>)| cells.is_none();
        let pages = self.pages.iter();
        let found = pages
            .clone()
            .find(own)
            .or_else(|| pages.clone().find(for_all));
        found.and_then(|(size, _)| *size)
    }
}

fn number(tag: &BytesStart, name: &str) -> Option<u32> {
    attribute(tag, name)?.trim().parse().ok()
}

/// A number and libvirt's unit (`virScaleInteger`): `b`, `KB` (1000), `k` and `KiB` (1024), …
fn size(text: &str, unit: &str) -> Option<ByteSize> {
    let number: u64 = text.trim().parse().ok()?;
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "b" | "byte" | "bytes" => 1,
        "kb" => 1000,
        "k" | "kib" => 1 << 10,
        "mb" => 1_000_000,
        "m" | "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "g" | "gib" => 1 << 30,
        "tb" => 1_000_000_000_000,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(scale).map(ByteSize::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::holdings;
    use super::*;

    fn memory(inside: &str) -> Vec<DomainMemory> {
        holdings(&format!("<domain>{inside}</domain>"))
            .unwrap()
            .memory
    }

    fn part(cell: Option<u32>, gib: u64, nodes: &[u32]) -> DomainMemory {
        DomainMemory {
            cell,
            size: ByteSize::from_gib(gib),
            nodes: nodes.iter().map(|n| NumaNodeId(*n)).collect(),
            ..DomainMemory::default()
        }
    }

    #[test]
    fn a_slices_memory_is_its_nodes_in_huge_pages() {
        let found = memory(
            "<memory unit='KiB'>8388608</memory>\
             <currentMemory unit='KiB'>4194304</currentMemory>\
             <memoryBacking><hugepages><page size='1048576' unit='KiB'/></hugepages></memoryBacking>\
             <numatune><memory mode='strict' nodeset='1'/></numatune>\
             <devices><memory model='dimm'><target><size unit='KiB'>1</size></target></memory></devices>",
        );
        let wanted = DomainMemory {
            mode: Some("strict".into()),
            huge: true,
            page: Some(ByteSize::from_gib(1)),
            ..part(None, 8, &[1])
        };
        assert_eq!(found, [wanted]);
    }

    #[test]
    fn each_cell_has_its_own_node_and_page() {
        let found = memory(
            "<memory unit='GiB'>6</memory>\
             <memoryBacking><hugepages><page size='2' unit='MiB'/>\
             <page size='1' unit='G' nodeset='1'/></hugepages></memoryBacking>\
             <cpu><numa><cell id='0' cpus='0-1' memory='2097152'/>\
             <cell id='1' cpus='2-3' memory='4' unit='GiB'/></numa></cpu>\
             <numatune><memory mode='preferred' nodeset='0-1,^1'/>\
             <memnode cellid='1' mode='strict' nodeset='1'/></numatune>",
        );
        let huge = |mode: &str, page, part| DomainMemory {
            mode: Some(mode.into()),
            huge: true,
            page: Some(page),
            ..part
        };
        assert_eq!(
            found,
            [
                huge("preferred", ByteSize::from_mib(2), part(Some(0), 2, &[0])),
                huge("strict", ByteSize::from_gib(1), part(Some(1), 4, &[1])),
            ]
        );
    }

    #[test]
    fn what_is_left_open_stays_open() {
        assert_eq!(memory("<memory>2097152</memory>"), [part(None, 2, &[])]);
        let auto = "<memory unit='G'>2</memory><numatune><memory mode='strict' placement='auto'/></numatune>";
        assert_eq!(memory(auto), [part(None, 2, &[])]);
        let default_page =
            memory("<memory unit='G'>2</memory><memoryBacking><hugepages/></memoryBacking>");
        assert!(default_page[0].huge && default_page[0].page.is_none());
    }

    #[test]
    fn sizes_that_cannot_be_are_none() {
        for (text, unit) in [
            ("x", "KiB"),
            ("-1", "KiB"),
            ("1", "KiX"),
            ("99999999999", "TiB"),
        ] {
            assert_eq!(size(text, unit), None, "{text} {unit}");
            assert!(memory(&format!("<memory unit='{unit}'>{text}</memory>")).is_empty());
        }
        assert_eq!(size("2", "KB"), Some(ByteSize::from_bytes(2000)));
    }
}
