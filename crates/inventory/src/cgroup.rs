//! The CPUs and memory nodes that this process's cgroup may use.
//!
//! Source: `Documentation/admin-guide/cgroup-v2.rst` (cpuset.cpus.effective), cgroup v1's
//! `cpusets.rst`, and the older cpuset file system that both grew from.

use bmslice_model::CpuSet;

use crate::scan::Scan;

/// The allowed CPUs; `None` when no cpuset controller tells, which means all.
pub(crate) fn allowed_cpus(scan: &mut Scan) -> Option<CpuSet> {
    allowed(scan, "cpus")
}

/// The numbers of the allowed nodes; `None` means all.
pub(crate) fn allowed_nodes(scan: &mut Scan) -> Option<CpuSet> {
    allowed(scan, "mems")
}

fn allowed(scan: &mut Scan, what: &str) -> Option<CpuSet> {
    let (mount, name, file) = controller(scan)?;
    let file = file.replace("WHAT", what);
    // A cgroup whose parent does not hand the controller down has no file of its own; the nearest
    // ancestor's holds for it.
    let mut group = name.trim_end_matches('/');
    loop {
        let path = format!("{mount}{group}/{file}");
        if let Some(set) = scan.cpu_list(&path)
            && !set.is_empty()
        {
            return Some(set);
        }
        group = group.rsplit_once('/')?.0;
    }
}

/// Where cpusets are mounted, this process's group there, and the name of the file that tells
/// what it may use (`cpus` or `mems` for `WHAT`).
fn controller(scan: &Scan) -> Option<(String, String, &'static str)> {
    let mounts = ["/proc/self/mounts", "/proc/mounts"]
        .iter()
        .find_map(|path| scan.root.read_text(path).ok())?;
    let groups = scan.file("/proc/self/cgroup");
    let by_controller = |wanted: &str| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            controllers
                .split(',')
                .any(|c| c == wanted)
                .then(|| path.to_owned())
        })
    };
    let legacy = || scan.text("/proc/self/cpuset");
    let mut unified = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(_), Some(at), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let has = |option: &str| options.split(',').any(|o| o == option);
        match kind {
            "cgroup" if has("cpuset") => {
                let name = by_controller("cpuset").or_else(legacy)?;
                let file = if has("noprefix") {
                    "WHAT"
                } else {
                    // Version 1 keeps what was set here; its effective set has been seen wrong.
                    "cpuset.WHAT"
                };
                return Some((at.to_owned(), name, file));
            }
            "cpuset" => {
                let name = by_controller("cpuset").or_else(legacy)?;
                return Some((at.to_owned(), name, "WHAT"));
            }
            "cgroup2" => unified = Some(at.to_owned()),
            _ => {}
        }
    }
    // The empty controller list is the unified hierarchy's line.
    let name = by_controller("").or_else(legacy)?;
    Some((unified?, name, "cpuset.WHAT.effective"))
}
