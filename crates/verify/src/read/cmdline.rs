//! A QEMU process from its arguments (`/proc/PID/cmdline`): whose guest it is, and where its
//! memory is told to lie.

use bmslice_model::{ByteSize, CpuSet, NumaNodeId};
use serde::Deserialize;

/// The arguments of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arguments(Vec<String>);

/// A memory object of QEMU that backs a guest cell (`-object memory-backend-…`, `-numa node`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamBackend {
    /// The guest cell.
    pub cell: u32,
    /// How much.
    pub size: ByteSize,
    /// `host-nodes` with `policy=bind`; `None` when it is not bound.
    pub bound: Option<Vec<NumaNodeId>>,
}

impl Arguments {
    /// Splits at the NUL bytes that the kernel puts between arguments.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        Self(text.split_terminator('\0').map(ToOwned::to_owned).collect())
    }

    /// Whether the program is QEMU: `qemu-system-x86_64`, `/usr/libexec/qemu-kvm`, `/usr/bin/kvm`.
    pub(crate) fn is_qemu(&self) -> bool {
        let name = self
            .0
            .first()
            .and_then(|path| path.rsplit('/').next())
            .unwrap_or_default();
        name.starts_with("qemu-system-") || name == "qemu-kvm" || name == "kvm"
    }

    fn values<'a>(&'a self, option: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .windows(2)
            .filter(move |pair| pair[0] == option)
            .map(|pair| pair[1].as_str())
    }

    /// The guest's name: `-name guest=NAME,debug-threads=on`.
    pub(crate) fn guest(&self) -> Option<&str> {
        let value = self.values("-name").last()?;
        let value = value.strip_prefix("guest=").unwrap_or(value);
        value.split(',').next()
    }

    /// The guest's UUID.
    pub(crate) fn uuid(&self) -> Option<&str> {
        self.values("-uuid").last()
    }

    /// The memory objects of the guest's cells, by cell. Cells that are not told by
    /// `-numa node,memdev=` are not among them.
    pub(crate) fn ram_backends(&self) -> Vec<RamBackend> {
        let objects: Vec<Object> = self.values("-object").filter_map(object).collect();
        let mut backends: Vec<RamBackend> = self
            .values("-numa")
            .filter_map(|value| {
                let pairs = pairs(value);
                let get = |key: &str| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
                let memdev = get("memdev")?;
                let object = objects.iter().find(|object| object.id == memdev)?;
                let cell = get("nodeid")?.parse().ok()?;
                Some(RamBackend {
                    cell,
                    size: ByteSize::from_bytes(object.size),
                    bound: (object.policy.as_deref() == Some("bind"))
                        .then(|| object.host_nodes.iter().copied().map(NumaNodeId).collect()),
                })
            })
            .collect();
        backends.sort_by_key(|backend| backend.cell);
        backends
    }
}

/// What of `-object` matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Object {
    id: String,
    size: u64,
    #[serde(default)]
    host_nodes: Vec<u32>,
    #[serde(default)]
    policy: Option<String>,
}

/// libvirt writes JSON to a QEMU that takes it (6.0), `key=value` to an older one.
fn object(value: &str) -> Option<Object> {
    if value.starts_with('{') {
        return serde_json::from_str(value).ok();
    }
    let pairs = pairs(value);
    let get = |key: &str| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    // `host-nodes=0-1` may be repeated.
    let host_nodes = pairs
        .iter()
        .filter(|(key, _)| *key == "host-nodes")
        .filter_map(|(_, list)| list.parse::<CpuSet>().ok())
        .flat_map(|list| list.iter().map(|n| n.number()).collect::<Vec<_>>())
        .collect();
    Some(Object {
        id: get("id")?.to_owned(),
        size: get("size")?.parse().ok()?,
        host_nodes,
        policy: get("policy").map(ToOwned::to_owned),
    })
}

fn pairs(value: &str) -> Vec<(&str, &str)> {
    value
        .split(',')
        .filter_map(|part| part.split_once('='))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(args: &[&str]) -> Arguments {
        let mut bytes = args.join("\0").into_bytes();
        bytes.push(0);
        Arguments::parse(&bytes)
    }

    #[test]
    fn names_the_guest() {
        let args = arguments(&[
            "/usr/bin/qemu-system-x86_64",
            "-name",
            "guest=Red_k8s_cluster_worker1,debug-threads=on",
            "-S",
            "-uuid",
            "8e7b0d3f-0000-5000-8000-000000000001",
        ]);
        assert!(args.is_qemu());
        assert_eq!(args.guest(), Some("Red_k8s_cluster_worker1"));
        assert_eq!(args.uuid(), Some("8e7b0d3f-0000-5000-8000-000000000001"));
        assert!(!arguments(&["virsh", "-name", "guest=red"]).is_qemu());
        assert_eq!(arguments(&[]).guest(), None);
    }

    #[test]
    fn memory_objects_in_json_and_in_pairs_are_alike() {
        let json = arguments(&[
            "qemu-system-x86_64",
            "-object",
            r#"{"qom-type":"memory-backend-memfd","id":"ram-node0","hugetlb":true,"hugetlbsize":1073741824,"share":true,"prealloc":true,"size":2147483648,"host-nodes":[1],"policy":"bind"}"#,
            "-numa",
            "node,nodeid=0,cpus=0-7,memdev=ram-node0",
        ]);
        let pairs = arguments(&[
            "qemu-system-x86_64",
            "-object",
            "memory-backend-ram,id=ram-node0,size=2147483648,host-nodes=1,policy=bind",
            "-numa",
            "node,nodeid=0,cpus=0-3,cpus=4-7,memdev=ram-node0",
        ]);
        let want = vec![RamBackend {
            cell: 0,
            size: ByteSize::from_gib(2),
            bound: Some(vec![NumaNodeId(1)]),
        }];
        assert_eq!(json.ram_backends(), want);
        assert_eq!(pairs.ram_backends(), want);
    }

    #[test]
    fn memory_without_a_policy_is_not_bound() {
        let args = arguments(&[
            "qemu-system-x86_64",
            "-object",
            r#"{"qom-type":"memory-backend-ram","id":"ram-node0","size":2147483648}"#,
            "-numa",
            "node,nodeid=0,cpus=0-7,memdev=ram-node0",
        ]);
        assert_eq!(args.ram_backends()[0].bound, None);
    }
}
