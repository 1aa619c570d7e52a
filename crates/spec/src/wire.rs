//! The file as it is written: loose types, whose documentation is the JSON schema's.
//!
//! Everything is a [`Field`], so that one mistake does not hide the others; texts stay texts, so
//! that `seal` can say what is wrong with them. Type names are phrases, since messages use them:
//! ``` `vcpu` is not a field of a slice ```.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::choices::{IdleStates, Mitigations};
use crate::decode::Field;

/// What is wanted of a bare-metal server: the host's own share, and the slices that own the rest.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "a spec"
)]
#[schemars(rename = "Slicing", extend("required" = ["apiVersion", "kind", "slices"]))]
pub(crate) struct File {
    /// Version of this format.
    #[schemars(extend("const" = "bmslice/v1"))]
    pub api_version: Field<String>,
    /// What the file describes.
    #[schemars(extend("const" = "Slicing"))]
    pub kind: Field<String>,
    /// The host's own share, and how the rest is kept free of its work.
    pub host: Field<Host>,
    /// What holds for servers that are planned together.
    pub fleet: Field<crate::wire_fleet::Fleet>,
    /// The slices: guests that own their cores, memory and NICs.
    #[schemars(length(min = 1))]
    pub slices: Field<Vec<Field<Slice>>>,
}

/// The host's own share.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`host`"
)]
#[schemars(rename = "Host")]
pub(crate) struct Host {
    /// Cores that stay with the host.
    pub reserve: Field<Reserve>,
    /// How the slices' CPUs are kept free of host work.
    #[schemars(extend("default" = "boot"))]
    pub isolation: Field<Isolation>,
    /// Whether the timer's tick and RCU's callbacks leave the slices' CPUs too (`nohz_full=`,
    /// `rcu_nocbs=`). With `isolation: boot` only. Each entry into the kernel then costs more, and
    /// nothing is gained where two tasks share a CPU.
    #[schemars(extend("default" = false))]
    pub tickless: Field<bool>,
    /// How deep idle CPUs may sleep, all of the server's.
    #[schemars(extend("default" = "all"))]
    pub idle_states: Field<IdleStates>,
    /// Whether the kernel guards against flaws of the CPU.
    #[schemars(extend("default" = "auto"))]
    pub mitigations: Field<Mitigations>,
    /// Whether the kernel merges equal pages of guests; left as it is when not said.
    pub ksm: Field<bool>,
    /// Who gets transparent huge pages; left as it is when not said.
    pub transparent_huge_pages: Field<TransparentHugePages>,
    /// How the slices' CPUs are clocked; left as it is when not said.
    pub governor: Field<Governor>,
    /// The folder of images and seeds on the server.
    #[schemars(regex(pattern = r"^/"), extend("default" = "/var/lib/libvirt/images"))]
    pub images: Field<String>,
    /// Kernel arguments of your own beside those that the plan sets, as `nosmt` or
    /// `processor.max_cstate=1`; they are tried and confirmed like the plan's.
    pub kernel_args: Field<Vec<Field<String>>>,
    /// Minutes after a boot with new kernel arguments until a server that did not confirm them
    /// goes back to those before.
    #[schemars(range(min = 2, max = 1440), extend("default" = 10))]
    pub fall_back_minutes: Field<i64>,
}

/// Whole cores, with their siblings, that stay with the host.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`reserve`"
)]
#[schemars(rename = "Reserve")]
pub(crate) struct Reserve {
    /// How many; the core of CPU 0 is among them.
    #[schemars(range(min = 1, max = 1024), extend("default" = 1))]
    pub cores: Field<i64>,
    /// That many on each NUMA node, or in all.
    #[schemars(extend("default" = true))]
    pub per_numa: Field<bool>,
}

/// Who gets transparent huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    rename = "a setting of transparent huge pages"
)]
#[schemars(rename = "TransparentHugePages")]
pub(crate) enum TransparentHugePages {
    /// Every process.
    Always,
    /// Those that ask.
    Madvise,
    /// Nobody.
    Never,
}

/// A frequency governor of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a frequency governor")]
#[schemars(rename = "Governor")]
pub(crate) enum Governor {
    /// The highest frequency.
    Performance,
    /// By the scheduler's load.
    Schedutil,
    /// By load.
    Ondemand,
    /// By load, step by step.
    Conservative,
    /// The lowest frequency; with intel_pstate, by load.
    Powersave,
}

/// How the slices' CPUs are kept free of host work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a way of isolation")]
#[schemars(rename = "Isolation")]
pub(crate) enum Isolation {
    /// `isolcpus=` and its like, from the next boot on.
    Boot,
    /// A cgroup v2 isolated cpuset partition; no reboot.
    Dynamic,
    /// Pins only.
    None,
}

/// A slice: one guest.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "a slice"
)]
#[schemars(rename = "Slice", extend("required" = ["name", "vcpus", "memory", "image"]))]
pub(crate) struct Slice {
    /// Its name and its libvirt domain's; not digits alone, which libvirt's tools take for an id.
    #[schemars(
        regex(pattern = r"^([A-Za-z]|[0-9]+[A-Za-z_.-])[A-Za-z0-9_.-]*$"),
        length(max = 63)
    )]
    pub name: Field<String>,
    /// Whose it is. Siblings of one core never go to two tenants. A slice without a tenant is a
    /// tenant of its own.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"))]
    pub tenant: Field<String>,
    /// So many slices that differ in their names alone: `NAME-1`, `NAME-2` and so on. Without a
    /// tenant they are one tenant, `NAME`. With a smaller number the highest go.
    #[schemars(range(min = 1, max = 10000))]
    pub replicas: Field<i64>,
    /// vCPUs; each gets a host thread of its own.
    #[schemars(range(min = 1, max = 4096))]
    pub vcpus: Field<i64>,
    /// How vCPUs use sibling threads.
    #[schemars(extend("default" = "pack"))]
    pub smt: Field<Smt>,
    /// How vCPU numbers follow the siblings.
    #[schemars(extend("default" = "siblings-adjacent"))]
    pub vcpu_order: Field<VcpuOrder>,
    /// Whether the sibling that an odd vCPU leaves may run the odd vCPU of another slice; with
    /// `smt: pack` only, and only on cores of two threads.
    #[schemars(extend("default" = "none"))]
    pub sharing: Field<Sharing>,
    /// Cores for QEMU's emulator threads.
    pub emulator: Field<Emulator>,
    /// IOThreads, which serve the disk.
    pub iothreads: Field<IoThreads>,
    /// The guest's memory.
    pub memory: Field<Memory>,
    /// Which server, by its host name; any of those that are planned together when not given.
    #[schemars(regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"))]
    pub server: Field<String>,
    /// A group of slices no two of which share a server, by any name: `apart: red-workers`. Each
    /// goes to another of the servers that are planned together.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"))]
    pub apart: Field<String>,
    /// Only servers that `fleet.servers` gives all of these labels: `selector: { zone: a }`.
    #[schemars(extend("minProperties" = 1))]
    pub selector: Field<crate::wire_fleet::Labels>,
    /// Where in the server.
    #[schemars(extend("default" = "single"))]
    pub numa: Field<Numa>,
    /// Network cards, in the guest's order.
    #[schemars(length(max = 32))]
    pub nics: Field<Vec<Field<Nic>>>,
    /// The disk.
    pub image: Field<Image>,
    /// A user that is made in the guest.
    pub user: Field<User>,
    /// The guest's host name; made of the slice's name when not given.
    pub hostname: Field<String>,
    /// Commands of the guest's first boot, one shell line each.
    pub first_commands: Field<Vec<Field<String>>>,
    /// QEMU's machine type.
    #[schemars(extend("default" = "q35"))]
    pub machine: Field<Machine>,
    /// Whether it starts with the host.
    #[schemars(extend("default" = true))]
    pub autostart: Field<bool>,
    /// Seconds that its guest has to come up in, after each start: until its agent answers, or its
    /// serial console shows a login. 0 is for a guest that has neither; nobody waits for it.
    #[schemars(range(min = 0, max = 3600), extend("default" = 300))]
    pub up_within_seconds: Field<i64>,
}

/// How vCPUs use sibling threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename = "a use of siblings")]
#[schemars(rename = "Smt")]
pub(crate) enum Smt {
    /// vCPUs fill sibling pairs; an odd one leaves its sibling idle, unless `sharing` lends it.
    Pack,
    /// A whole core for each vCPU.
    Isolate,
    /// No promise.
    Any,
}

/// How vCPU numbers follow the siblings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename = "an order of vCPUs")]
#[schemars(rename = "VcpuOrder")]
pub(crate) enum VcpuOrder {
    /// Siblings side by side; the guest sees them as threads of one core.
    SiblingsAdjacent,
    /// All first threads, then all second ones; the guest sees a flat topology.
    SiblingsLast,
}

/// Whether the sibling that an odd vCPU leaves may go to another slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a way of sharing cores")]
#[schemars(rename = "Sharing")]
pub(crate) enum Sharing {
    /// It stays idle: no two slices share a core.
    None,
    /// It may go to the odd vCPU of another slice of the same tenant that says so, too; where there
    /// is none, it stays idle. The two guests slow each other on that core, and each can tell by
    /// its timing what the other does: for a tenant whose slices trust each other.
    Tenant,
}

/// Cores for QEMU's emulator threads.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`emulator`"
)]
#[schemars(rename = "Emulator")]
pub(crate) struct Emulator {
    /// Whole cores; 0 puts the threads on the host's cores.
    #[schemars(range(min = 0, max = 64), extend("default" = 1))]
    pub cores: Field<i64>,
    /// Whose these cores are.
    #[schemars(extend("default" = "slice"))]
    pub pool: Field<Pool>,
}

/// Whose the cores of emulator threads and IOThreads are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a pool of cores")]
#[schemars(rename = "Pool")]
pub(crate) enum Pool {
    /// The slice's alone.
    Slice,
    /// Shared, on each NUMA node, by all slices of the tenant that ask for this.
    Tenant,
}

/// IOThreads.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`iothreads`"
)]
#[schemars(rename = "IoThreads")]
pub(crate) struct IoThreads {
    /// How many.
    #[schemars(range(min = 0, max = 64), extend("default" = 1))]
    pub count: Field<i64>,
    /// Where they run.
    #[schemars(extend("default" = "emulator"))]
    pub place: Field<IoThreadsPlace>,
    /// The same as `place`, and a shorter word where no tool reads YAML 1.1, which takes it for
    /// `true`.
    pub on: Field<IoThreadsPlace>,
}

/// Where IOThreads run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a place for IOThreads")]
#[schemars(rename = "IoThreadsPlace")]
pub(crate) enum IoThreadsPlace {
    /// On the emulator's cores.
    Emulator,
}

/// The guest's memory.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`memory`"
)]
#[schemars(rename = "Memory", extend("required" = ["size"]))]
pub(crate) struct Memory {
    /// How much: a whole number and `MiB`, `GiB` or `TiB`; a multiple of the page.
    #[schemars(regex(pattern = r"^[0-9]+ ?(B|KiB|MiB|GiB|TiB)$"))]
    pub size: Field<String>,
    /// The huge page that backs it, or none.
    #[schemars(extend("default" = "none"))]
    pub hugepages: Field<HugePages>,
}

/// The huge pages of x86-64, which an Arm server with 4 KiB pages has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "a size of huge pages")]
#[schemars(rename = "HugePages")]
pub(crate) enum HugePages {
    /// Allocated at run time.
    #[serde(rename = "2MiB")]
    Small,
    /// Allocated at boot.
    #[serde(rename = "1GiB")]
    Large,
    /// Plain memory.
    #[serde(rename = "none")]
    None,
}

/// Where in the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a NUMA placement")]
#[schemars(rename = "Numa")]
pub(crate) enum Numa {
    /// All of it on one node, whichever.
    Single,
    /// All of it on this node.
    Node(#[schemars(range(min = 0, max = 1023))] i64),
    /// This many guest cells of equal size on as many nodes.
    Spread(#[schemars(range(min = 2, max = 64))] i64),
}

/// A network card: one of `passthrough`, `vf` and `virtio`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "a NIC"
)]
#[schemars(
    rename = "Nic",
    extend("oneOf" = [
        { "required": ["passthrough"] }, { "required": ["vf"] }, { "required": ["virtio"] }
    ])
)]
pub(crate) struct Nic {
    /// A whole physical function, with its IOMMU group.
    pub passthrough: Field<Device>,
    /// A virtual function.
    pub vf: Field<Vf>,
    /// A virtio card on a libvirt network.
    pub virtio: Field<Virtio>,
    /// What the switch should show of it, which `verify` proves.
    pub fabric: Field<Fabric>,
    /// What cloud-init sets up on it.
    pub network: Field<Network>,
}

/// A physical NIC: by name or PCI address, or by fields.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "\u{1}either", rename_all = "camelCase")]
#[schemars(rename = "Device", untagged)]
pub(crate) enum Device {
    /// An interface's name (`eno2`) or a PCI address (`"0000:01:00.1"`, in quotes: without them
    /// YAML 1.1 reads a number of sexagesimal digits).
    Text(String),
    /// By fields.
    Fields(DeviceFields),
}

/// A physical NIC: one of `pci`, `name` and `mac`, or what is needed of it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "the choice of a NIC"
)]
#[schemars(rename = "DeviceFields")]
pub(crate) struct DeviceFields {
    /// By PCI address: `"0000:01:00.0"`.
    #[schemars(regex(
        pattern = r"^([0-9A-Fa-f]{1,8}:)?[0-9A-Fa-f]{1,2}:[01]?[0-9A-Fa-f]\.[0-7]$"
    ))]
    pub pci: Field<String>,
    /// By interface name.
    pub name: Field<String>,
    /// By MAC address.
    #[schemars(regex(pattern = r"^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$"))]
    pub mac: Field<String>,
    /// Any that is at least this fast: `10G`, `1000M`.
    #[schemars(regex(pattern = r"^[0-9]+[MG]$"))]
    pub speed: Field<String>,
    /// Any that is this near to the slice.
    #[schemars(extend("default" = "same"))]
    pub numa: Field<Near>,
    /// Whether the guest gets it although the host's network goes through it: a default route, an
    /// address, a bond, bridge or VLAN. For a NIC that is named and goes whole. `apply` takes it
    /// at the server's own console only; what holds a file system of the host's is never taken.
    #[schemars(extend("default" = false))]
    pub take_from_host: Field<bool>,
}

/// How near a NIC must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a nearness")]
#[schemars(rename = "Near")]
pub(crate) enum Near {
    /// On one of the slice's NUMA nodes.
    Same,
    /// There if possible.
    Prefer,
    /// Anywhere.
    Any,
}

/// A virtual function.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "a VF"
)]
#[schemars(rename = "Vf", extend("required" = ["of"]))]
pub(crate) struct Vf {
    /// Of which physical function.
    pub of: Field<Device>,
    /// The VLAN that the NIC adds and takes away.
    #[schemars(range(min = 1, max = 4094))]
    pub vlan: Field<i64>,
    /// Its MAC; `auto` derives one from server and slice, the same each time.
    #[schemars(
        regex(pattern = r"^(auto|([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2})$"),
        extend("default" = "auto")
    )]
    pub mac: Field<String>,
    /// Whether the guest may change its MAC and see all traffic.
    #[schemars(extend("default" = false))]
    pub trust: Field<bool>,
    /// Whether the NIC drops frames that the guest sends with another MAC than its own.
    #[schemars(extend("default" = true))]
    pub spoof_check: Field<bool>,
    /// The most that the guest sends: `1G`, `500M`; as fast as the link when not said.
    #[schemars(regex(pattern = r"^[1-9][0-9]*[GM]$"))]
    pub max_rate: Field<String>,
    /// The link that the guest sees.
    #[schemars(extend("default" = "auto"))]
    pub link: Field<VfLink>,
}

/// The link that a VF sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a link of a VF")]
#[schemars(rename = "VfLink")]
pub(crate) enum VfLink {
    /// The NIC's own.
    Auto,
    /// Always up.
    Up,
    /// Always down.
    Down,
}

/// A virtio card.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "a virtio NIC"
)]
#[schemars(rename = "Virtio", extend("required" = ["network"]))]
pub(crate) struct Virtio {
    /// The libvirt network.
    pub network: Field<String>,
    /// Its MAC; `auto` derives one from server and slice, the same each time.
    #[schemars(
        regex(pattern = r"^(auto|([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2})$"),
        extend("default" = "auto")
    )]
    pub mac: Field<String>,
}

/// What the switch should show of a NIC.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`fabric`"
)]
#[schemars(rename = "Fabric")]
pub(crate) struct Fabric {
    /// The switch's port: `ge-0/0/9`. Any when not given.
    pub port: Field<String>,
    /// The VLAN by number.
    #[schemars(range(min = 1, max = 4094))]
    pub vlan: Field<i64>,
    /// The VLAN by the switch's name for it: `Red_Tenant_Network`.
    pub vlan_name: Field<String>,
}

/// What cloud-init sets up on a NIC.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`network`"
)]
#[schemars(rename = "Network")]
pub(crate) struct Network {
    /// Ask a DHCP server.
    #[schemars(extend("default" = false))]
    pub dhcp4: Field<bool>,
    /// Addresses with prefix length: `192.0.2.10/24`.
    pub addresses: Field<Vec<Field<String>>>,
    /// Default gateway.
    pub gateway4: Field<String>,
    /// DNS servers.
    pub nameservers: Field<Vec<Field<String>>>,
}

/// The guest's disk.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`image`"
)]
#[schemars(rename = "Image", extend("required" = ["base", "size"]))]
pub(crate) struct Image {
    /// The base image: a file in the host's image folder, or an absolute path. Never written to.
    pub base: Field<String>,
    /// The disk's size.
    #[schemars(regex(pattern = r"^[0-9]+ ?(B|KiB|MiB|GiB|TiB)$"))]
    pub size: Field<String>,
    /// How the disk comes from the base.
    #[schemars(extend("default" = "overlay"))]
    pub from: Field<From>,
    /// How the guest is set up.
    #[schemars(extend("default" = "cloud-init"))]
    pub setup: Field<Setup>,
}

/// How a disk comes from its base image.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a way to make a disk")]
#[schemars(rename = "From")]
pub(crate) enum From {
    /// A qcow2 overlay: quick and small; the base must stay.
    Overlay,
    /// A full copy.
    Copy,
    /// A full copy one of whose partitions is grown (`virt-resize --expand`).
    Resize(Resize),
}

/// Growing a partition.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`resize`"
)]
#[schemars(rename = "Resize", extend("required" = ["expand"]))]
pub(crate) struct Resize {
    /// The partition that gets the space: `/dev/sda1`.
    #[schemars(regex(pattern = r"^/dev/"))]
    pub expand: Field<String>,
}

/// How a guest is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename = "a way to set up a guest")]
#[schemars(rename = "Setup")]
pub(crate) enum Setup {
    /// A NoCloud seed, read by cloud-init at first boot.
    CloudInit,
    /// `virt-customize` on the disk, for images without cloud-init.
    VirtCustomize,
    /// Nothing.
    None,
}

/// A user that is made in the guest.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`user`"
)]
#[schemars(rename = "User", extend("required" = ["name"]))]
pub(crate) struct User {
    /// Login name.
    #[schemars(regex(pattern = r"^[a-z_][a-z0-9_-]{0,31}$"))]
    pub name: Field<String>,
    /// Public keys, a line of `authorized_keys` each.
    pub ssh_keys: Field<Vec<Field<String>>>,
    /// A file on the server, readable by root only, that holds a crypt(5) hash.
    #[schemars(regex(pattern = r"^/"))]
    pub password_hash_file: Field<String>,
    /// Whether it may become root without a password.
    #[schemars(extend("default" = false))]
    pub sudo: Field<bool>,
}

/// QEMU's machine type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a machine type")]
#[schemars(rename = "Machine")]
pub(crate) enum Machine {
    /// PCI Express.
    Q35,
    /// The i440FX of old images.
    Pc,
}
