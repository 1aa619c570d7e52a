//! The shape of the emulated server: sockets, cores, threads, nodes, NICs and memory.
//!
//! A [`Topology`] that exists is one that QEMU accepts: every constructor checks it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a topology cannot be emulated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TopologyError {
    #[error("topology `{0}` is not of the form SOCKETSxCORESxTHREADS; write for example `2x6x2`")]
    Form(String),
    #[error("{what} is {got}, but the lab emulates {least} to {most}")]
    Range {
        what: &'static str,
        got: u32,
        least: u32,
        most: u32,
    },
    #[error(
        "{nodes} NUMA nodes do not divide {sockets} sockets of {cores} cores evenly; \
         the number of nodes has to divide the sockets, or be a multiple of them that divides the cores"
    )]
    Nodes {
        nodes: u32,
        sockets: u32,
        cores: u32,
    },
    #[error("the server has {0} threads, but the lab emulates at most 96")]
    Threads(u32),
    #[error("memory `{0}` is not a size; write for example `5GiB`")]
    Memory(String),
    #[error("the server has {0} MiB of memory, but the lab emulates at most {MOST_MEMORY} MiB")]
    TooMuchMemory(u64),
    #[error("a node has {0} MiB of memory, but needs at least {1} MiB to boot the server")]
    TooLittleMemory(u64, u64),
}

/// Sockets × cores × threads, as the short form `2x6x2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub sockets: u32,
    pub cores: u32,
    pub threads: u32,
}

impl FromStr for Shape {
    type Err = TopologyError;

    fn from_str(text: &str) -> Result<Self, TopologyError> {
        let form = || TopologyError::Form(text.to_owned());
        let parts: Vec<u32> = text
            .split('x')
            .map(|part| part.parse().map_err(|_| form()))
            .collect::<Result<_, _>>()?;
        match parts[..] {
            [sockets, cores, threads] => Ok(Self {
                sockets,
                cores,
                threads,
            }),
            _ => Err(form()),
        }
    }
}

/// An amount of memory in MiB, written `5GiB` or `5120MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mebibytes(pub u64);

impl FromStr for Mebibytes {
    type Err = TopologyError;

    fn from_str(text: &str) -> Result<Self, TopologyError> {
        let bad = || TopologyError::Memory(text.to_owned());
        let (digits, factor) = if let Some(digits) = text.strip_suffix("GiB") {
            (digits, 1024)
        } else if let Some(digits) = text.strip_suffix("MiB") {
            (digits, 1)
        } else {
            return Err(bad());
        };
        let number: u64 = digits.trim().parse().map_err(|_| bad())?;
        number.checked_mul(factor).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1024) {
            write!(f, "{}GiB", self.0 / 1024)
        } else {
            write!(f, "{}MiB", self.0)
        }
    }
}

/// A NIC of the server, and at the same time the switch port at its other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub node: u32,
    pub index: u32,
    /// The switch port's number; fixed, so that a MAC table reads the same in every run.
    pub ofport: u32,
}

impl Nic {
    /// The tap's and the switch port's name.
    pub fn port(&self) -> String {
        format!("n{}p{}", self.node, self.index)
    }

    /// The NIC's own MAC address; a Blue VF gets another one.
    pub fn mac(&self) -> String {
        format!("52:54:00:1a:{:02x}:{:02x}", self.node, self.index)
    }

    /// Even NICs are Red's, odd ones Blue's.
    pub fn tenant(&self) -> Tenant {
        if self.index.is_multiple_of(2) {
            Tenant::Red
        } else {
            Tenant::Blue
        }
    }

    /// The bus number of the PCI expander of a node.
    pub fn expander_bus(node: u32, nodes: u32) -> u32 {
        let stride = if nodes <= 3 { 0x40 } else { 0x1c };
        stride * (node + 1)
    }

    /// Where the server sees this NIC: the port's bus follows the expander's own.
    pub fn pci_address(&self, nodes: u32) -> String {
        let bus = Self::expander_bus(self.node, nodes) + 1 + self.index;
        format!("0000:{bus:02x}:00.0")
    }
}

/// The two tenants that the fabric keeps apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenant {
    Red,
    Blue,
}

impl Tenant {
    pub fn vlan(self) -> u16 {
        match self {
            Self::Red => 101,
            Self::Blue => 102,
        }
    }
}

/// A topology that can be emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    pub sockets: u32,
    pub cores: u32,
    pub threads: u32,
    pub nodes: u32,
    pub nics_per_node: u32,
    pub memory_per_node: Mebibytes,
}

/// On a node have to fit: two 1 GiB pages of a slice, the hole below 4 GiB, the server itself. A
/// node that is alone has two slices.
fn default_memory(nodes: u32) -> Mebibytes {
    Mebibytes(if nodes == 1 { 9 } else { 5 } * 1024)
}
const LEAST_MEMORY: u64 = 2 * 1024;
/// An address space of 36 bits, less the hole and the holes' rounding.
const MOST_MEMORY: u64 = 56 * 1024;

impl Topology {
    /// Checks the numbers; what is absent takes its default.
    pub fn new(
        shape: Shape,
        nodes: Option<u32>,
        nics_per_node: Option<u32>,
        memory_per_node: Option<Mebibytes>,
    ) -> Result<Self, TopologyError> {
        let range = |what, got, least, most| {
            if (least..=most).contains(&got) {
                Ok(got)
            } else {
                Err(TopologyError::Range {
                    what,
                    got,
                    least,
                    most,
                })
            }
        };
        let sockets = range("the number of sockets", shape.sockets, 1, 8)?;
        let cores = range("the number of cores per socket", shape.cores, 1, 48)?;
        let threads = range("the number of threads per core", shape.threads, 1, 2)?;
        let nodes = range("the number of NUMA nodes", nodes.unwrap_or(sockets), 1, 8)?;
        let nics_per_node = range(
            "the number of NICs per node",
            nics_per_node.unwrap_or(2),
            1,
            8,
        )?;
        if sockets * cores * threads > 96 {
            return Err(TopologyError::Threads(sockets * cores * threads));
        }
        let even = sockets.is_multiple_of(nodes)
            || nodes.is_multiple_of(sockets) && cores.is_multiple_of(nodes / sockets);
        if !even {
            return Err(TopologyError::Nodes {
                nodes,
                sockets,
                cores,
            });
        }
        let memory_per_node = memory_per_node.unwrap_or_else(|| default_memory(nodes));
        if memory_per_node.0 < LEAST_MEMORY {
            return Err(TopologyError::TooLittleMemory(
                memory_per_node.0,
                LEAST_MEMORY,
            ));
        }
        let memory = memory_per_node.0.saturating_mul(u64::from(nodes));
        if memory > MOST_MEMORY {
            return Err(TopologyError::TooMuchMemory(memory));
        }
        Ok(Self {
            sockets,
            cores,
            threads,
            nodes,
            nics_per_node,
            memory_per_node,
        })
    }

    /// All hardware threads of the server.
    pub fn cpus(&self) -> u32 {
        self.sockets * self.cores * self.threads
    }

    pub fn memory(&self) -> Mebibytes {
        Mebibytes(self.memory_per_node.0 * u64::from(self.nodes))
    }

    /// The node of a core of a socket.
    pub fn node_of(&self, socket: u32, core: u32) -> u32 {
        if self.nodes <= self.sockets {
            socket * self.nodes / self.sockets
        } else {
            let per_socket = self.nodes / self.sockets;
            socket * per_socket + core * per_socket / self.cores
        }
    }

    pub fn nics(&self) -> Vec<Nic> {
        (0..self.nodes)
            .flat_map(|node| (0..self.nics_per_node).map(move |index| (node, index)))
            .map(|(node, index)| Nic {
                node,
                index,
                ofport: node * self.nics_per_node + index + 1,
            })
            .collect()
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.sockets, self.cores, self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(text: &str, nodes: Option<u32>) -> Result<Topology, TopologyError> {
        Topology::new(text.parse()?, nodes, None, None)
    }

    #[test]
    fn nodes_follow_the_sockets_unless_told() {
        let server = topology("2x6x2", None).unwrap();
        assert_eq!(
            (server.nodes, server.cpus(), server.memory()),
            (2, 24, Mebibytes(10240))
        );
        assert_eq!(server.node_of(1, 5), 1);
        let split = topology("1x4x2", Some(2)).unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(|core| split.node_of(0, core)),
            [0, 0, 1, 1]
        );
        let joined = topology("4x2x2", Some(2)).unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(|socket| joined.node_of(socket, 0)),
            [0, 0, 1, 1]
        );
    }

    #[test]
    fn a_bad_topology_says_what_is_wrong() {
        assert_eq!(
            topology("2x6", None),
            Err(TopologyError::Form("2x6".into()))
        );
        assert!(
            topology("2x6x4", None)
                .unwrap_err()
                .to_string()
                .contains("is 4")
        );
        assert_eq!(
            topology("2x3x1", Some(4)),
            Err(TopologyError::Nodes {
                nodes: 4,
                sockets: 2,
                cores: 3
            })
        );
        assert_eq!(topology("8x48x2", None), Err(TopologyError::Threads(768)));
        assert!("5 Gb".parse::<Mebibytes>().is_err());
    }

    #[test]
    fn ports_have_fixed_names_and_numbers() {
        let names: Vec<_> = topology("2x6x2", None)
            .unwrap()
            .nics()
            .iter()
            .map(|nic| {
                (
                    nic.port(),
                    nic.ofport,
                    nic.pci_address(2),
                    nic.tenant().vlan(),
                )
            })
            .collect();
        let row =
            |port: &str, ofport, pci: &str, vlan| (port.to_owned(), ofport, pci.to_owned(), vlan);
        assert_eq!(
            names,
            [
                row("n0p0", 1, "0000:41:00.0", 101),
                row("n0p1", 2, "0000:42:00.0", 102),
                row("n1p0", 3, "0000:81:00.0", 101),
                row("n1p1", 4, "0000:82:00.0", 102),
            ]
        );
    }
}
