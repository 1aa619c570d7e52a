//! Which kernel code a written attribute reaches, and a picture of the whole server.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bmslice_model::PciAddress;
use rustix::io::Errno;

use super::world::World;

impl World {
    /// One write(2) to an attribute.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn write_attribute(&mut self, path: &Path, value: &str) -> Result<(), Errno> {
        let value = if value.is_empty() { "\n" } else { value };
        let root = self.tree.at("/");
        let root = root.canonicalize().map_err(|_| Errno::IO)?;
        let real = self
            .tree
            .at(path)
            .canonicalize()
            .map_err(|_| Errno::NOENT)?;
        let found = std::fs::metadata(&real).map_err(|_| Errno::NOENT)?;
        if found.is_dir() {
            return Err(Errno::ISDIR);
        }
        let inside = real.strip_prefix(&root).map_err(|_| Errno::XDEV)?;
        let path = format!("/{}", inside.display());
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let kernel = matches!(parts.first(), Some(&("sys" | "proc")));
        // sysfs asks for a writable mode even of root.
        if kernel && found.permissions().mode() & 0o222 == 0 {
            return Err(Errno::ACCESS);
        }
        match parts.as_slice() {
            ["sys", "bus", "pci", "drivers_probe"] => self.write_probe(value),
            ["sys", "bus", "pci", "drivers", driver, "bind"] => self.write_bind(driver, value),
            ["sys", "bus", "pci", "drivers", driver, "unbind"] => self.write_unbind(driver, value),
            ["sys", "devices", .., device, attribute] if device.parse::<PciAddress>().is_ok() => {
                let address = device.parse().map_err(|_| Errno::NODEV)?;
                match *attribute {
                    "driver_override" => self.write_override(address, value),
                    "sriov_numvfs" => self.write_numvfs(address, value),
                    "sriov_drivers_autoprobe" => self.write_autoprobe(address, value),
                    _ => self.store(&path, value),
                }
            }
            [
                "sys",
                "fs",
                "cgroup",
                group @ ..,
                file @ ("cpuset.cpus" | "cpuset.cpus.partition"),
            ] => self.write_cpuset(&group.join("/"), file, value),
            [.., "cpufreq", "scaling_governor"] => self.write_governor(&path, value),
            [.., "transparent_hugepage", "enabled"] => self.write_thp(value),
            ["proc", "irq", "default_smp_affinity"] => self.write_irq_default(value),
            ["proc", "irq", number, "smp_affinity_list"] => self.write_irq(number, value),
            ["sys", "devices", "virtual", "workqueue", "cpumask"] => self.write_workqueues(value),
            [.., "nr_hugepages"] => self.write_pages(&path, value),
            _ => self.store(&path, value),
        }
    }

    /// An attribute without consequences here: it reads as it was written.
    fn store(&self, path: &str, value: &str) -> Result<(), Errno> {
        if !path.starts_with("/sys/") && !path.starts_with("/proc/") {
            // A file on the disk is written over from its start, and no shorter than it was.
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .open(self.tree.at(path))
                .map_err(|_| Errno::IO)?;
            return file.write_all(value.as_bytes()).map_err(|_| Errno::IO);
        }
        let newline = if value.ends_with('\n') { "" } else { "\n" };
        std::fs::write(self.tree.at(path), format!("{value}{newline}")).map_err(|_| Errno::IO)
    }

    /// See [`FakeMachine::state`](super::FakeMachine::state).
    pub fn state(&self) -> BTreeMap<String, String> {
        let mut state = BTreeMap::new();
        for top in ["/etc", "/boot", "/usr", "/var"] {
            self.files(top, &mut state);
        }
        for function in self.functions.values() {
            let sriov = function.sriov.as_ref();
            state.insert(
                format!("pci {}", function.address),
                format!(
                    "driver {:?}, override {:?}, vfs {:?}, queues {:?}",
                    function.driver,
                    function.driver_override,
                    sriov.map(|sriov| (sriov.current, sriov.autoprobe, &sriov.vfs)),
                    function.net.as_ref().map(|net| net.queues),
                ),
            );
        }
        for ((node, size), pool) in &self.pools {
            state.insert(
                format!("huge pages of {size} KiB on node {node}"),
                format!("{} ({} used)", pool.total, pool.used),
            );
        }
        for domain in self.list() {
            state.insert(format!("domain {}", domain.name), format!("{domain:?}"));
        }
        state.extend(self.cgroup_state());
        state.extend(self.quiet_state());
        for name in ["LoaderEntryOneShot", "LoaderEntryDefault"] {
            if let Some(value) = self.nvram.get(name) {
                state.insert(format!("efi variable {name}"), value.clone());
            }
        }
        for unit in self.enabled_units() {
            state.insert(format!("unit {unit}"), "enabled".into());
        }
        state
    }

    fn files(&self, dir: &str, state: &mut BTreeMap<String, String>) {
        // What a guest wrote to its console is nobody's to put back.
        if dir == "/var/log" {
            return;
        }
        for name in self.tree.list(dir) {
            let path = format!("{dir}/{name}");
            let at = self.tree.at(&path);
            if at.is_symlink() {
                let target = std::fs::read_link(&at).unwrap_or_default();
                state.insert(path, format!("-> {}", target.display()));
            } else if at.is_dir() {
                self.files(&path, state);
            } else {
                let mode = std::fs::metadata(&at).map_or(0, |found| found.permissions().mode());
                // A file that stands for an image is large and sparse: its start tells it apart.
                let mut text = Vec::new();
                let read = std::fs::File::open(&at).and_then(|file| {
                    std::io::Read::read_to_end(&mut std::io::Read::take(file, 1 << 16), &mut text)
                });
                let text = read.map(|_| String::from_utf8_lossy(&text).into_owned());
                let text = text.unwrap_or_default();
                state.insert(path, format!("{:o} {text}", mode & 0o7777));
            }
        }
    }
}
