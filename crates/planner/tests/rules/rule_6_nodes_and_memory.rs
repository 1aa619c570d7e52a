//! vCPUs, pool and memory are on one node, or on as many as asked.

use super::*;

#[test]
fn spread_gives_equal_cells_on_different_nodes() {
    let mut wide = slice("wide", 8);
    wide.numa = Numa::Spread(2);
    wide.memory = ByteSize::from_gib(2);
    let plan = planned(&spec(vec![wide]), &lab());
    let wide = plan.slice("wide").unwrap();
    let nodes: Vec<u32> = wide.cells.iter().map(|cell| cell.node.0).collect();
    assert_eq!(nodes, [0, 1]);
    assert_eq!(wide.cells[1].vcpus.to_string(), "4-7");
    assert_eq!(wide.cells[1].memory, ByteSize::from_gib(1));
    assert_eq!(
        (
            wide.topology.sockets,
            wide.topology.cores,
            wide.topology.threads
        ),
        (2, 2, 2)
    );
    assert_eq!(plan.host().huge_pages.len(), 2);
}

#[test]
fn memory_that_a_cpuset_keeps_away_is_given_to_nobody() {
    for pages in [None, Some(ByteSize::from_gib(1))] {
        let mut server = lab();
        server.nodes[0].allowed = false;
        let mut a = slice("a", 2);
        a.hugepages = pages;
        let plan = planned(&spec(vec![a.clone()]), &server);
        assert_eq!(node_of(&plan, "a"), 1);
        a.numa = Numa::Node(NumaNodeId(0));
        let refusal = bmslice_planner::plan(&spec(vec![a]), &server).unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains("a cpuset keeps its memory away"), "{text}");
    }
}
