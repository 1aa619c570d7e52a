//! PCI functions, their IOMMU groups and interfaces, as sysfs shows them.
//!
//! Takes the cards of a description; gives `/sys/bus/pci`, `/sys/class/net` and
//! `/sys/kernel/iommu_groups`. Keeps true: a function's interface is there exactly while its
//! network driver is bound, and groups exist exactly while the IOMMU translates.

use bmslice_model::PciAddress;

use super::server::{FakeDisk, FakeNic};
use super::world::World;

/// A function that is there.
#[derive(Debug, Clone)]
pub struct Function {
    pub address: PciAddress,
    /// Its folder under `/sys/devices`.
    pub path: String,
    /// Vendor and device, `8086:10c9`.
    pub id: String,
    /// `0x020000`.
    pub class: &'static str,
    /// The driver that matches its id.
    pub native: Option<String>,
    pub driver: Option<String>,
    pub driver_override: Option<String>,
    pub node: i32,
    pub group: Option<u32>,
    pub group_with: Option<PciAddress>,
    pub net: Option<Net>,
    pub sriov: Option<Sriov>,
    /// Its physical function and its number there.
    pub physfn: Option<(PciAddress, u16)>,
}

/// The port of a card.
#[derive(Debug, Clone)]
pub struct Net {
    pub name: String,
    pub mac: String,
    /// Mbit/s with a cable in it.
    pub speed: Option<u32>,
    /// Set up by the administrator.
    pub up: bool,
    /// Still finding a speed with the other end.
    pub negotiates: bool,
    /// How many queues it receives and sends with.
    pub queues: u32,
}

/// SR-IOV as it stands.
#[derive(Debug, Clone)]
pub struct Sriov {
    pub total: u16,
    pub current: u16,
    pub offset: u16,
    pub stride: u16,
    pub vf_device: String,
    pub vf_driver: String,
    pub autoprobe: bool,
    /// What the administrator set of each VF, by index.
    pub vfs: Vec<VfSettings>,
}

/// What `ip link set … vf` sets, and `ip link show` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VfSettings {
    /// Its MAC, or all zero when none was set.
    pub mac: String,
    /// 0 is no VLAN.
    pub vlan: u16,
    /// Whether the guest may change its MAC.
    pub trust: bool,
    /// Whether the card checks the sender's MAC.
    pub spoof_check: bool,
    /// The most that it sends, in Mbit/s; 0 is no limit.
    pub max_rate: u32,
    /// `auto`, `enable` or `disable`.
    pub link_state: String,
}

impl Default for VfSettings {
    fn default() -> Self {
        Self {
            mac: "00:00:00:00:00:00".into(),
            vlan: 0,
            trust: false,
            spoof_check: true,
            max_rate: 0,
            link_state: "auto".into(),
        }
    }
}

impl World {
    /// All functions of the description, drivers bound.
    pub fn boot_pci(&mut self) {
        self.functions.clear();
        let tree = &self.tree;
        for dir in [
            "/sys/bus/pci/devices",
            "/sys/bus/pci/drivers",
            "/sys/class/net",
        ] {
            tree.dir(dir);
        }
        tree.put("/sys/bus/pci/drivers_probe", "", 0o200);
        tree.knob("/sys/bus/pci/drivers_autoprobe", 1);
        for driver in ["pcieport", "ahci", "virtio-pci"] {
            self.add_driver(driver);
        }
        let nics = self.server.nics.clone();
        let ports: std::collections::BTreeMap<PciAddress, i32> = nics
            .iter()
            .filter_map(|nic| Some((nic.root_port?, nic.node)))
            .collect();
        for (address, node) in ports {
            self.add_function(Function {
                native: Some("pcieport".into()),
                node,
                ..plain(address, "1b36:000c", "0x060400", None)
            });
        }
        let disk = match self.server.disk {
            FakeDisk::Virtio(address) => Function {
                native: Some("virtio-pci".into()),
                ..plain(address, "1af4:1001", "0x010000", None)
            },
            FakeDisk::Sata(address) => Function {
                native: Some("ahci".into()),
                ..plain(address, "8086:1d02", "0x010601", None)
            },
        };
        self.add_function(disk);
        for nic in nics {
            self.add_driver(&nic.driver);
            let module = match nic.driver.as_str() {
                "virtio-pci" => "virtio_net",
                other => other,
            };
            let refused = self
                .argument("module_blacklist")
                .is_some_and(|list| list.split(',').any(|name| name == module));
            let mut card = card(nic);
            if refused {
                // The kernel loads it for nobody, not even for the initramfs.
                card.net = None;
            }
            self.add_function(card);
        }
        self.boot_lo();
        self.mirror_routes();
    }

    /// A driver's folder.
    pub fn add_driver(&mut self, name: &str) {
        let at = format!("/sys/bus/pci/drivers/{name}");
        if !self.tree.exists(&at) {
            for file in ["bind", "unbind", "new_id", "remove_id"] {
                self.tree.put(format!("{at}/{file}"), "", 0o200);
            }
            self.modules.insert(name.replace('-', "_"));
        }
    }

    /// Shows a function, gives it a group, lets its driver probe it.
    pub fn add_function(&mut self, mut function: Function) {
        let address = function.address;
        if self.iommu_on() {
            let partner = function
                .group_with
                .and_then(|with| self.functions.get(&with));
            let shared = partner.and_then(|partner| partner.group);
            // The lowest number that is free, as the kernel's ida gives it.
            let free = || (0..).find(|&group| self.members(group).is_empty());
            function.group = shared.or_else(free);
        }
        let (tree, at) = (&self.tree, &function.path);
        let (vendor, device) = function.id.split_once(':').unwrap_or(("0000", "0000"));
        tree.show(format!("{at}/vendor"), format!("0x{vendor}"));
        tree.show(format!("{at}/device"), format!("0x{device}"));
        tree.show(format!("{at}/class"), function.class);
        tree.knob(format!("{at}/numa_node"), function.node);
        tree.knob(format!("{at}/driver_override"), "(null)");
        tree.put(format!("{at}/config"), "", 0o644);
        tree.link(format!("{at}/subsystem"), "/sys/bus/pci");
        if let Some(sriov) = &function.sriov {
            tree.show(format!("{at}/sriov_totalvfs"), sriov.total);
            tree.knob(format!("{at}/sriov_numvfs"), sriov.current);
            tree.show(format!("{at}/sriov_offset"), sriov.offset);
            tree.show(format!("{at}/sriov_stride"), sriov.stride);
            tree.show(format!("{at}/sriov_vf_device"), &sriov.vf_device);
            tree.knob(format!("{at}/sriov_drivers_autoprobe"), 1);
        }
        tree.link(format!("/sys/bus/pci/devices/{address}"), at);
        if let Some(group) = function.group {
            let shown = format!("/sys/kernel/iommu_groups/{group}");
            tree.link(format!("{shown}/devices/{address}"), at);
            tree.link(format!("{at}/iommu_group"), &shown);
            let through = self.argument("iommu") == Some("pt");
            let kind = if through { "identity" } else { "DMA-FQ" };
            tree.knob(format!("{shown}/type"), kind);
            tree.show(
                format!("{shown}/reserved_regions"),
                "0x00000000fee00000 0x00000000feefffff msi",
            );
        }
        self.functions.insert(address, function);
        // The kernel probes what appears; nobody hears how it went.
        let _ = self.probe(address);
    }

    /// Takes a function away: its driver lets go, its group goes with the last member.
    pub fn remove_function(&mut self, address: PciAddress) {
        self.let_go(address);
        if let Some(function) = self.functions.remove(&address) {
            self.tree.remove(format!("/sys/bus/pci/devices/{address}"));
            self.tree.remove(&function.path);
            if let Some(group) = function.group {
                let shown = format!("/sys/kernel/iommu_groups/{group}");
                self.tree.remove(format!("{shown}/devices/{address}"));
                if self.members(group).is_empty() {
                    self.tree.remove(shown);
                }
            }
        }
    }

    /// The functions of an IOMMU group.
    pub fn members(&self, group: u32) -> Vec<PciAddress> {
        self.functions
            .values()
            .filter(|function| function.group == Some(group))
            .map(|function| function.address)
            .collect()
    }

    /// The function whose interface this is, while it is there.
    pub fn interface(&self, name: &str) -> Option<&Function> {
        self.functions.values().find(|function| {
            function.has_interface() && function.net.as_ref().is_some_and(|net| net.name == name)
        })
    }

    /// Shows the interface of a function whose network driver has just been bound.
    pub fn show_interface(&mut self, address: PciAddress) {
        let Some((function, net)) = self
            .functions
            .get(&address)
            .filter(|function| function.has_interface())
            .and_then(|function| Some((function, function.net.as_ref()?)))
        else {
            return;
        };
        let device = function.net_parent();
        let at = format!("{device}/net/{}", net.name);
        let tree = &self.tree;
        tree.link(format!("{at}/device"), &device);
        tree.link(format!("{at}/subsystem"), "/sys/class/net");
        tree.show(format!("{at}/address"), &net.mac);
        // igbvf sets the address of a VF (NET_ADDR_SET), be it given or made up.
        let set = if function.physfn.is_some() { 3 } else { 0 };
        tree.show(format!("{at}/addr_assign_type"), set);
        tree.show(format!("{at}/type"), 1);
        tree.show(format!("{at}/ifindex"), 2 + self.index_of(address));
        tree.knob(format!("{at}/mtu"), 1500);
        if function.sriov.is_some() {
            tree.show(format!("{at}/phys_switch_id"), "");
        }
        tree.link(format!("/sys/class/net/{}", net.name), &at);
        self.show_link(net, &at);
        let most = self.most_queues(function);
        self.set_queues(address, most);
        self.show_queues(address);
    }

    /// How many queues an interface can have: one for each CPU up to eight, as igb; a VF and a NIC
    /// of the hypervisor's have one.
    pub fn most_queues(&self, function: &Function) -> u32 {
        match function.native.as_deref() {
            Some("igb" | "ixgbe") => self.server.cpus().min(8),
            Some(_) | None => 1,
        }
    }

    /// What `ethtool -L NAME combined N` does: igb gives an interface that is down its queues when it
    /// comes up, and sysfs shows those that it had until then.
    pub fn set_queues(&mut self, address: PciAddress, count: u32) {
        let function = self.functions.get_mut(&address);
        if let Some(net) = function.and_then(|function| function.net.as_mut()) {
            net.queues = count;
            if net.up {
                self.show_queues(address);
            }
        }
    }

    pub fn show_queues(&self, address: PciAddress) {
        let Some(function) = self.functions.get(&address) else {
            return;
        };
        let parent = function.net_parent();
        let Some(net) = &function.net else { return };
        let count = net.queues;
        let folder = format!("{parent}/net/{}/queues", net.name);
        self.tree.remove(&folder);
        for number in 0..count {
            self.tree.dir(format!("{folder}/rx-{number}"));
            self.tree.dir(format!("{folder}/tx-{number}"));
        }
    }

    /// Hides it again.
    pub fn hide_interface(&self, address: PciAddress) {
        if let Some(function) = self.functions.get(&address)
            && let Some(net) = &function.net
        {
            self.tree.remove(format!("/sys/class/net/{}", net.name));
            self.tree.remove(format!("{}/net", function.net_parent()));
        }
    }

    fn index_of(&self, address: PciAddress) -> usize {
        self.functions
            .keys()
            .take_while(|&&at| at != address)
            .count()
    }

    fn boot_lo(&self) {
        let tree = &self.tree;
        let at = "/sys/devices/virtual/net/lo";
        for (name, value) in [
            ("address", "00:00:00:00:00:00"),
            ("operstate", "unknown"),
            ("carrier", "1"),
            ("mtu", "65536"),
            ("type", "772"),
            ("ifindex", "1"),
            ("addr_assign_type", "0"),
        ] {
            tree.show(format!("{at}/{name}"), value);
        }
        tree.link("/sys/class/net/lo", at);
    }

    /// `/proc/net`: the default route goes away with its interface.
    pub fn mirror_routes(&self) {
        let name = &self.server.default_route;
        let head =
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
        let mut routes = format!("{head}\n");
        let mut inet6 = "00000000000000000000000000000001 01 80 10 80       lo\n".to_owned();
        if self.interface(name).is_some() {
            routes.push_str(&format!(
                "{name}\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                 {name}\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
            ));
            inet6.push_str(&format!(
                "fe80000000000000505400fffe123456 02 40 20 80 {name:>8}\n"
            ));
        }
        self.tree.put("/proc/net/route", routes, 0o444);
        self.tree.put("/proc/net/ipv6_route", "", 0o444);
        self.tree.put("/proc/net/if_inet6", inet6, 0o444);
    }
}

impl Function {
    /// Whether the driver that makes its interface is bound.
    pub fn has_interface(&self) -> bool {
        self.net.is_some() && self.driver.is_some() && self.driver == self.native
    }

    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.class.starts_with("0x06")
    }

    /// The folder that holds `net/`.
    pub fn net_parent(&self) -> String {
        match self.native.as_deref() {
            Some("virtio-pci") => format!("{}/virtio{}", self.path, self.address.device()),
            _ => self.path.clone(),
        }
    }
}

/// `0000:41:00.0` below `0000:40:00.0` is `/sys/devices/pci0000:40/0000:40:00.0/0000:41:00.0`.
pub fn path(address: PciAddress, root_port: Option<PciAddress>) -> String {
    let top = root_port.unwrap_or(address);
    let bus = format!("/sys/devices/pci{:04x}:{:02x}", top.domain(), top.bus());
    match root_port {
        Some(port) => format!("{bus}/{port}/{address}"),
        None => format!("{bus}/{address}"),
    }
}

fn plain(
    address: PciAddress,
    id: &str,
    class: &'static str,
    root_port: Option<PciAddress>,
) -> Function {
    Function {
        address,
        path: path(address, root_port),
        id: id.into(),
        class,
        native: None,
        driver: None,
        driver_override: None,
        node: -1,
        group: None,
        group_with: None,
        net: None,
        sriov: None,
        physfn: None,
    }
}

fn card(nic: FakeNic) -> Function {
    Function {
        native: Some(nic.driver),
        node: nic.node,
        group_with: nic.group_with,
        net: Some(Net {
            name: nic.name,
            mac: nic.mac,
            speed: nic.speed,
            up: nic.up,
            negotiates: false,
            queues: 0,
        }),
        sriov: nic.sriov.map(|sriov| Sriov {
            total: sriov.total,
            current: 0,
            offset: sriov.offset,
            stride: sriov.stride,
            vf_device: sriov.vf_device,
            vf_driver: sriov.vf_driver,
            autoprobe: true,
            vfs: Vec::new(),
        }),
        ..plain(nic.address, &nic.id, "0x020000", nic.root_port)
    }
}
