//! Memory per node, and huge pages as the kernel gives them.
//!
//! Takes counts written to `nr_hugepages`; gives what there is. Keeps true: a node never has more
//! pages than its memory holds, a request for more is granted in part and *without an error*, and
//! pages in use are not taken back. (Documentation/admin-guide/mm/hugetlbpage.rst)

use rustix::io::Errno;

use super::world::World;

/// Page sizes that the fake's CPU has, in KiB, with the suffix of the kernel argument.
const SIZES: [(u64, &str); 2] = [(2048, "2M"), (1_048_576, "1G")];

/// The huge pages of one size on one node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pool {
    pub total: u64,
    pub used: u64,
}

impl World {
    /// The pools that the kernel arguments ask for, and `/sys/devices/system/node`.
    pub fn boot_memory(&mut self) {
        self.pools.clear();
        for node in 0..self.server.nodes {
            for (size, _) in SIZES {
                self.pools.insert((node, size), Pool::default());
            }
        }
        let mut size = match self.argument("default_hugepagesz") {
            Some("1G") => SIZES[1].0,
            _ => SIZES[0].0,
        };
        let arguments: Vec<(String, String)> = self
            .cmdline
            .kernel_args()
            .filter_map(|arg| Some((arg.key().to_owned(), arg.value()?.to_owned())))
            .collect();
        for (key, value) in arguments {
            match key.as_str() {
                "hugepagesz" => {
                    let known = SIZES.iter().find(|(_, suffix)| *suffix == value);
                    size = known.map_or(size, |(size, _)| *size);
                }
                "hugepages" => self.boot_pages(size, &value),
                _ => {}
            }
        }
        self.show_nodes();
        self.mirror_memory();
    }

    /// `hugepages=4`, node after node in turns, or `hugepages=0:2,1:2`.
    fn boot_pages(&mut self, size: u64, value: &str) {
        if value.contains(':') {
            for (node, count) in value.split(',').filter_map(|part| part.split_once(':')) {
                if let (Ok(node), Ok(count)) = (node.parse(), count.parse()) {
                    self.set_pages(node, size, count);
                }
            }
        } else if let Ok(count) = value.parse::<u64>() {
            for i in 0..count {
                let node = u32::try_from(i % u64::from(self.server.nodes)).unwrap_or(0);
                let has = self.pools.get(&(node, size)).map_or(0, |pool| pool.total);
                self.set_pages(node, size, has + 1);
            }
        }
    }

    fn show_nodes(&self) {
        let (tree, nodes) = (&self.tree, "/sys/devices/system/node");
        let last = self.server.nodes - 1;
        let all = if last == 0 {
            "0".into()
        } else {
            format!("0-{last}")
        };
        for list in [
            "online",
            "possible",
            "has_cpu",
            "has_memory",
            "has_normal_memory",
        ] {
            tree.show(format!("{nodes}/{list}"), &all);
        }
        for node in 0..self.server.nodes {
            let at = format!("{nodes}/node{node}");
            let mut cpus: Vec<u32> = self
                .threads()
                .filter(|&(socket, core, _)| self.server.node_of(socket, core) == node)
                .map(|(socket, core, thread)| self.server.cpu(socket, core, thread))
                .collect();
            cpus.sort_unstable();
            for cpu in &cpus {
                tree.link(
                    format!("{at}/cpu{cpu}"),
                    format!("/sys/devices/system/cpu/cpu{cpu}"),
                );
            }
            let set: bmslice_model::CpuSet = cpus
                .into_iter()
                .filter_map(|cpu| bmslice_model::CpuId::new(cpu).ok())
                .collect();
            tree.show(format!("{at}/cpulist"), set);
            let distances: Vec<_> = (0..self.server.nodes)
                .map(|other| if other == node { "10" } else { "21" })
                .collect();
            tree.show(format!("{at}/distance"), distances.join(" "));
        }
    }

    /// Writes every count where the kernel shows it.
    pub fn mirror_memory(&self) {
        let tree = &self.tree;
        let total_kib = self.server.node_memory.kib();
        let mut all_free = 0;
        for node in 0..self.server.nodes {
            let at = format!("/sys/devices/system/node/node{node}");
            let free = self.free_kib(node);
            all_free += free;
            tree.put(
                format!("{at}/meminfo"),
                format!(
                    "Node {node} MemTotal:       {total_kib} kB\n\
                     Node {node} MemFree:        {free} kB\n\
                     Node {node} MemUsed:        {} kB\n",
                    total_kib - free
                ),
                0o444,
            );
            for (size, _) in SIZES {
                let pool = self.pool(node, size);
                let at = format!("{at}/hugepages/hugepages-{size}kB");
                tree.knob(format!("{at}/nr_hugepages"), pool.total);
                tree.show(format!("{at}/free_hugepages"), pool.total - pool.used);
                tree.show(format!("{at}/surplus_hugepages"), 0);
            }
        }
        for (size, _) in SIZES {
            let at = format!("/sys/kernel/mm/hugepages/hugepages-{size}kB");
            let of_size = || {
                self.pools
                    .iter()
                    .filter(move |((_, other), _)| *other == size)
            };
            let total: u64 = of_size().map(|(_, pool)| pool.total).sum();
            let used: u64 = of_size().map(|(_, pool)| pool.used).sum();
            tree.knob(format!("{at}/nr_hugepages"), total);
            tree.show(format!("{at}/free_hugepages"), total - used);
            tree.show(format!("{at}/resv_hugepages"), 0);
            tree.knob(format!("{at}/nr_overcommit_hugepages"), 0);
        }
        tree.put(
            "/proc/meminfo",
            format!(
                "MemTotal:       {} kB\nMemFree:        {all_free} kB\n\
                 MemAvailable:   {all_free} kB\nHugepagesize:       2048 kB\n",
                total_kib * u64::from(self.server.nodes)
            ),
            0o444,
        );
    }

    pub fn pool(&self, node: u32, size: u64) -> Pool {
        self.pools.get(&(node, size)).copied().unwrap_or_default()
    }

    /// What neither the host nor any pool has.
    pub fn free_kib(&self, node: u32) -> u64 {
        let pools: u64 = self
            .pools
            .iter()
            .filter(|((of, _), _)| *of == node)
            .map(|((_, size), pool)| size * pool.total)
            .sum();
        let plain: u64 = self
            .domains
            .values()
            .map(|domain| domain.plain_kib(node))
            .sum();
        (self.server.node_memory.kib())
            .saturating_sub(self.server.host_memory.kib() + pools + plain)
    }

    fn set_pages(&mut self, node: u32, size: u64, wanted: u64) {
        let free = self.free_kib(node);
        if let Some(pool) = self.pools.get_mut(&(node, size)) {
            let most = pool.total + free / size;
            pool.total = wanted.min(most).max(pool.used);
        }
    }

    /// A write to a `nr_hugepages`, of one node or of all.
    pub fn write_pages(&mut self, path: &str, value: &str) -> Result<(), Errno> {
        let wanted: u64 = value.trim().parse().map_err(|_| Errno::INVAL)?;
        let size = path
            .split("/hugepages-")
            .nth(1)
            .and_then(|rest| rest.split_once("kB"))
            .and_then(|(size, _)| size.parse().ok())
            .ok_or(Errno::INVAL)?;
        let node = path
            .strip_prefix("/sys/devices/system/node/node")
            .and_then(|rest| rest.split('/').next()?.parse().ok());
        match node {
            Some(node) => self.set_pages(node, size, wanted),
            None => {
                // The kernel spreads what is asked of all nodes evenly.
                let nodes = u64::from(self.server.nodes);
                for node in 0..self.server.nodes {
                    let extra = u64::from(u64::from(node) < wanted % nodes);
                    self.set_pages(node, size, wanted / nodes + extra);
                }
            }
        }
        self.mirror_memory();
        Ok(())
    }

    /// Takes pages out of the pools for a guest; all or none.
    pub fn take_pages(&mut self, wanted: &[(u32, u64, u64)]) -> Result<(), String> {
        for &(node, size, count) in wanted {
            let pool = self.pool(node, size);
            if pool.total - pool.used < count {
                let everywhere: u64 = self
                    .pools
                    .iter()
                    .filter(|((_, other), _)| *other == size)
                    .map(|(_, pool)| pool.total - pool.used)
                    .sum();
                // The reservation is made over all nodes; the binding fails when pages are touched.
                return Err(if everywhere < count {
                    "unable to map backing store for guest RAM: Cannot allocate memory".into()
                } else {
                    "preallocating memory failed: Bad address".into()
                });
            }
        }
        self.move_pages(wanted, |pool, count| pool.used += count);
        Ok(())
    }

    /// Gives a guest's pages back.
    pub fn give_pages(&mut self, held: &[(u32, u64, u64)]) {
        self.move_pages(held, |pool, count| {
            pool.used = pool.used.saturating_sub(count);
        });
    }

    fn move_pages(&mut self, pages: &[(u32, u64, u64)], change: impl Fn(&mut Pool, u64)) {
        for &(node, size, count) in pages {
            if let Some(pool) = self.pools.get_mut(&(node, size)) {
                change(pool, count);
            }
        }
        self.mirror_memory();
    }
}
