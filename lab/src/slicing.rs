//! A slicing spec that fits the emulated server: Red on the first node with a whole NIC, Blue on
//! the last with a VF. Each gets what is left of its node beside the host's core; on a server of
//! one node each gets half of that.

use crate::topology::{Nic, Tenant, Topology};

/// Why no spec for two tenants fits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SlicingError {
    #[error(
        "each node has {0} cores, and the host and two slices need 3 on a server of one node, \
         the host and a slice 2 on a larger one; start with more, as `--topology 2x6x2`"
    )]
    Cores(u32),
    #[error(
        "each node has {0} NIC, and one of each tenant is needed; start with `--nics-per-node 2`"
    )]
    Nics(u32),
}

/// What one slice gets.
struct Share {
    vcpus: u32,
    /// Whole cores for emulator and IOThreads; none leaves them to the host's.
    emulator: u32,
    /// Huge pages of 1 GiB where the node has room for them beside the server itself.
    memory: &'static str,
}

pub fn spec(topology: &Topology) -> Result<String, SlicingError> {
    let share = share(topology)?;
    let nics = topology.nics();
    let find = |node: u32, tenant: Tenant| {
        let nic = nics
            .iter()
            .find(|nic| nic.node == node && nic.tenant() == tenant);
        nic.ok_or(SlicingError::Nics(topology.nics_per_node))
    };
    let red = find(0, Tenant::Red)?;
    let blue = find(topology.nodes - 1, Tenant::Blue)?;
    Ok(format!(
        "\
# Two Kubernetes workers of two tenants, fitted to the emulated server ({topology}, {nodes}).
apiVersion: bmslice/v1
kind: Slicing
host:
  reserve: {{ cores: 1, perNuma: true }}     # a whole core on each node stays with the host
  isolation: boot                          # isolcpus and friends, from the next boot on
slices:
  - name: red-worker1
    tenant: red
    upWithinSeconds: 900                   # a guest of an emulated server takes minutes
{red_body}    nics:
      - passthrough: {{ numa: same }}        # a whole NIC of the slice's own node
        fabric: {{ port: {red_port}, vlan: {red_vlan} }}  # the switch's access port: untagged in the guest
        network: {{ addresses: [10.101.0.11/24] }}
{image}
  - name: blue-worker1
    tenant: blue
    upWithinSeconds: 900
{blue_body}    nics:
      - vf: {{ of: \"{blue_pci}\", vlan: {blue_vlan}, mac: auto, trust: false }}  # the NIC adds the tag
        fabric: {{ port: {blue_port}, vlan: {blue_vlan} }}
        network: {{ addresses: [10.102.0.12/24] }}
{image}",
        nodes = if topology.nodes == 1 { "one node".into() } else { format!("{} nodes", topology.nodes) },
        red_body = body(&share, red),
        red_port = red.port(),
        red_vlan = red.tenant().vlan(),
        blue_body = body(&share, blue),
        blue_pci = blue.pci_address(topology.nodes),
        blue_port = blue.port(),
        blue_vlan = blue.tenant().vlan(),
        image = "    image: { base: debian-12-guest.qcow2, size: 8GiB }\n    \
                 user: { name: ops, passwordHashFile: /root/ops.hash, sudo: true }  # `bmslice`\n    \
                 firstCommands: [touch /var/tmp/first-commands-ran]\n",
    ))
}

fn share(topology: &Topology) -> Result<Share, SlicingError> {
    let on_node = topology.sockets * topology.cores / topology.nodes;
    let slices = if topology.nodes == 1 { 2 } else { 1 };
    let cores = on_node.saturating_sub(1) / slices;
    if cores == 0 {
        return Err(SlicingError::Cores(on_node));
    }
    // A slice of one core has none to spare for its emulator.
    let emulator = u32::from(cores > 1);
    let room = topology.memory_per_node.0 >= 1024 * if slices == 2 { 9 } else { 5 };
    Ok(Share {
        vcpus: (cores - emulator) * topology.threads,
        emulator,
        memory: if room {
            "{ size: 2GiB, hugepages: 1GiB }"
        } else {
            "{ size: 512MiB }"
        },
    })
}

fn body(share: &Share, nic: &Nic) -> String {
    format!(
        "    vcpus: {}\n    emulator: {{ cores: {} }}\n    memory: {}\n    numa: {{ node: {} }}\n",
        share.vcpus, share.emulator, share.memory, nic.node
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec_of(shape: &str, nodes: Option<u32>, nics: u32) -> Result<String, SlicingError> {
        spec(&Topology::new(shape.parse().unwrap(), nodes, Some(nics), None).unwrap())
    }

    #[test]
    fn the_documents_server_gets_the_documents_workers() {
        let text = spec_of("2x6x2", None, 2).unwrap();
        assert_eq!(text.matches("vcpus: 8\n").count(), 2, "{text}");
        assert_eq!(text.matches("emulator: { cores: 1 }").count(), 2, "{text}");
        assert!(text.contains("numa: { node: 0 }") && text.contains("numa: { node: 1 }"));
        assert!(text.contains("of: \"0000:82:00.0\", vlan: 102") && text.contains("port: n1p1"));
    }

    #[test]
    fn other_servers_get_what_fits() {
        let one_node = spec_of("1x6x2", None, 2).unwrap();
        // 6 cores, 1 for the host, 2 each: 1 for the emulator and 1 for vCPUs.
        assert_eq!(one_node.matches("vcpus: 2\n").count(), 2, "{one_node}");
        assert_eq!(one_node.matches("numa: { node: 0 }").count(), 2);
        let small = spec_of("1x3x1", None, 2).unwrap();
        assert_eq!(
            small
                .matches("vcpus: 1\n    emulator: { cores: 0 }")
                .count(),
            2,
            "{small}"
        );
        assert_eq!(spec_of("1x2x2", None, 2), Err(SlicingError::Cores(2)));
        assert_eq!(spec_of("2x6x2", None, 1), Err(SlicingError::Nics(1)));
    }
}
