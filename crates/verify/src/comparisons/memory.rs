//! The guest's memory: where QEMU was told to take it from, and where the pages are.

use std::collections::BTreeMap;

use bmslice_model::{ByteSize, NumaNodeId};
use bmslice_plan::SlicePlan;

use super::or_satisfied;
use crate::checks::SliceView;
use crate::read::numa_maps::{Mapping, Policy};
use crate::report::{NotSeen, Seen, Verdict};

type ByNode = BTreeMap<NumaNodeId, ByteSize>;

fn add(by_node: &mut ByNode, node: NumaNodeId, size: ByteSize) {
    let sum = by_node.entry(node).or_default();
    *sum = ByteSize::from_bytes(sum.bytes().saturating_add(size.bytes()));
}

fn planned(slice: &SlicePlan) -> ByNode {
    let mut by_node = ByNode::new();
    for cell in &slice.cells {
        add(&mut by_node, cell.node, cell.memory);
    }
    by_node
}

fn text(by_node: &ByNode) -> String {
    if by_node.is_empty() {
        return "nothing".into();
    }
    let parts: Vec<String> = by_node
        .iter()
        .map(|(node, size)| format!("{size} on node {node}"))
        .collect();
    parts.join(", ")
}

fn total<'a>(sizes: impl Iterator<Item = &'a ByteSize>) -> ByteSize {
    ByteSize::from_bytes(sizes.map(|size| size.bytes()).sum())
}

/// Which host node is behind which guest cell: sums by node cannot tell two cells that were
/// swapped.
pub(crate) fn binding(view: &SliceView) -> Seen<Vec<Verdict>> {
    let process = view.guest.process.as_ref().map_err(Clone::clone)?;
    if process.backends.is_empty() {
        return Err(NotSeen::Unreadable(format!(
            "the arguments of process {} name no memory object for a guest cell",
            process.pid
        )));
    }
    let mut verdicts = Vec::new();
    for (number, cell) in (0u32..).zip(&view.slice.cells) {
        let what = format!("the memory of guest cell {number}");
        let want = format!("{} bound to node {}", cell.memory, cell.node);
        let backend = process.backends.iter().find(|b| b.cell == number);
        let got = match backend {
            None => "no such cell".to_owned(),
            Some(backend) => match &backend.bound {
                None => format!("{} bound to no node", backend.size),
                Some(nodes) => {
                    let nodes: Vec<String> = nodes.iter().map(NumaNodeId::to_string).collect();
                    format!("{} bound to node {}", backend.size, nodes.join(","))
                }
            },
        };
        if want != got {
            verdicts.push(Verdict::differs(what, want, got));
        }
    }
    if process.backends.len() > view.slice.cells.len() {
        verdicts.push(Verdict::differs(
            "the number of guest cells",
            view.slice.cells.len(),
            process.backends.len(),
        ));
    }
    Ok(or_satisfied(verdicts, || {
        format!("QEMU was told to take {}", text(&planned(view.slice)))
    }))
}

pub(crate) fn pages(view: &SliceView) -> Seen<Vec<Verdict>> {
    let process = view.guest.process.as_ref().map_err(Clone::clone)?;
    let mappings = process.memory.as_ref().map_err(Clone::clone)?;
    let slice = view.slice;
    let want = planned(slice);
    let (ram, kind) = match slice.huge_pages {
        Some(page) => (
            mappings
                .iter()
                .filter(|mapping| mapping.huge && mapping.page == page)
                .collect::<Vec<_>>(),
            format!("huge pages of {page}"),
        ),
        None => (plain_ram(slice, mappings), "plain pages".to_owned()),
    };
    let what = "the guest's memory".to_owned();
    let wanted = || format!("{} in {kind}", text(&want));
    if ram.is_empty() {
        let others: Vec<String> = mappings
            .iter()
            .filter(|mapping| mapping.huge)
            .map(|mapping| mapping.page.to_string())
            .collect();
        let got = if others.is_empty() {
            format!("no memory in {kind}")
        } else {
            format!(
                "no memory in {kind}, some in huge pages of {}",
                others.join(", ")
            )
        };
        return Ok(vec![Verdict::differs(what, wanted(), got)]);
    }

    let mut touched = ByNode::new();
    for (node, size) in ram.iter().flat_map(|mapping| &mapping.touched) {
        add(&mut touched, *node, *size);
    }
    if touched == want {
        return Ok(vec![Verdict::satisfied(format!(
            "the guest's memory is {}",
            wanted()
        ))]);
    }
    let lengths: Option<Vec<ByteSize>> = ram.iter().map(|mapping| mapping.length).collect();
    let mapped = lengths.map(|lengths| total(lengths.iter()));
    // Pages on a node that was not planned, more than was planned there, or a guest of another
    // size: no page that is touched later can mend that.
    let beyond = touched
        .iter()
        .any(|(node, size)| want.get(node).is_none_or(|planned| size > planned));
    if beyond || mapped.is_some_and(|mapped| mapped != slice.memory) {
        let size = mapped.map_or_else(String::new, |mapped| format!(", {mapped} mapped"));
        return Ok(vec![Verdict::differs(
            what,
            wanted(),
            format!("{} in {kind}{size}", text(&touched)),
        )]);
    }
    // What is missing was not touched yet. Huge pages are touched before a guest starts; plain
    // ones when it first uses them, and then come from where the policy says and nowhere else.
    let bound = ram.iter().all(|mapping| match &mapping.policy {
        Policy::Bind(nodes) => nodes.iter().all(|node| want.contains_key(node)),
        Policy::Loose(_) => false,
    });
    let so_far = text(&touched);
    Ok(vec![
        if slice.huge_pages.is_none() && bound && mapped.is_some() {
            Verdict::satisfied(format!(
                "the guest's memory is bound to its nodes in {kind}: {so_far} so far"
            ))
        } else {
            Verdict::pending(format!(
                "QEMU has touched all of the guest's memory ({so_far} of {})",
                text(&want)
            ))
        },
    ])
}

/// Plain memory has no name of its own unless it is a memfd: it is the mappings as long as a cell,
/// or those of QEMU's memory files.
fn plain_ram<'a>(slice: &SlicePlan, mappings: &'a [Mapping]) -> Vec<&'a Mapping> {
    let files: Vec<&Mapping> = mappings
        .iter()
        .filter(|mapping| {
            mapping
                .file
                .as_deref()
                .is_some_and(|file| file.contains("memory-backend") || file.contains("/ram-node"))
        })
        .filter(|mapping| !mapping.huge)
        .collect();
    if !files.is_empty() {
        return files;
    }
    mappings
        .iter()
        .filter(|mapping| mapping.file.is_none() && !mapping.huge)
        .filter(|mapping| {
            mapping
                .length
                .is_some_and(|length| slice.cells.iter().any(|cell| cell.memory == length))
        })
        .collect()
}
