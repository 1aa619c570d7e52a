//! The levels above a core: package, die, cluster, and on s390 book and drawer.
//!
//! Source: `Documentation/admin-guide/cputopology.rst`. Keeps true: CPUs have the same number at a
//! level if and only if the kernel puts them together there. The kernel's own numbers are kept
//! where they can tell the groups apart; where not (s390 counts sockets in each book anew, some
//! arm64 firmware numbers nothing), groups are counted, and noted.

use std::collections::BTreeMap;

use bmslice_model::CpuSet;

use crate::facts::Cpu;
use crate::scan::Scan;

/// A level: its name, the file with its number, and the files with its CPUs, newest name first.
pub(crate) struct Level {
    name: &'static str,
    number: &'static str,
    members: &'static [&'static str],
    get: fn(&Cpu) -> Option<u32>,
    set: fn(&mut Cpu, Option<u32>),
    /// Whether its numbers start anew in each package.
    in_package: bool,
    /// Whether firmware's silence is worth a note.
    expected: bool,
}

/// Widest first, since numbers of the others are told apart by package.
pub(crate) const LEVELS: [Level; 5] = [
    Level {
        name: "package",
        number: "physical_package_id",
        members: &["package_cpus", "core_siblings"],
        get: |cpu| cpu.package,
        set: |cpu, number| cpu.package = number,
        in_package: false,
        expected: true,
    },
    Level {
        name: "die",
        number: "die_id",
        members: &["die_cpus"],
        get: |cpu| cpu.die,
        set: |cpu, number| cpu.die = number,
        in_package: true,
        expected: false,
    },
    Level {
        name: "cluster",
        number: "cluster_id",
        members: &["cluster_cpus"],
        get: |cpu| cpu.cluster,
        set: |cpu, number| cpu.cluster = number,
        in_package: true,
        expected: false,
    },
    Level {
        name: "book",
        number: "book_id",
        members: &["book_siblings"],
        get: |cpu| cpu.book,
        set: |cpu, number| cpu.book = number,
        in_package: false,
        expected: false,
    },
    Level {
        name: "drawer",
        number: "drawer_id",
        members: &["drawer_siblings"],
        get: |cpu| cpu.drawer,
        set: |cpu, number| cpu.drawer = number,
        in_package: false,
        expected: false,
    },
];

/// Whether a number is one. -1 does not parse where it has a sign; x86 shows a number that its APIC
/// ids do not tell (the cluster's in a guest without a shared L2) as `BAD_APICID`, without one.
pub(crate) fn is_known(number: u32) -> bool {
    !matches!(number, 0xffff | u32::MAX)
}

/// The files that CPUs show of their topology, as the first and the last CPU that run show them: a
/// kernel shows the same of all. With none there, all may be.
pub(crate) struct Shown(Vec<String>);

impl Shown {
    pub(crate) fn of(scan: &Scan, root: &str, online: &CpuSet) -> Self {
        let mut names = Vec::new();
        for cpu in [online.first(), online.iter().last()].into_iter().flatten() {
            names.extend(scan.list(&format!("{root}/cpu{cpu}/topology")));
        }
        Self(names)
    }

    /// Whether a file, or the list beside a mask, may be there.
    pub(crate) fn has(&self, name: &str) -> bool {
        let of = |shown: &String| {
            shown == name || shown.strip_suffix("_list").is_some_and(|mask| mask == name)
        };
        self.0.is_empty() || self.0.iter().any(of)
    }
}

/// Reads one level of every CPU. `online` are the CPUs whose groups count; an offline one keeps
/// the number that it tells.
pub(crate) fn read(
    scan: &mut Scan,
    root: &str,
    cpus: &mut [Cpu],
    online: &CpuSet,
    shown: &Shown,
    level: &Level,
) {
    if !shown.has(level.number) && !level.members.iter().any(|name| shown.has(name)) {
        return;
    }
    let folder = |cpu: &Cpu| format!("{root}/cpu{}/topology", cpu.id);
    let number_of = |scan: &Scan, cpu: &Cpu| {
        let number = scan.number(&format!("{}/{}", folder(cpu), level.number));
        number.filter(|number| is_known(*number))
    };
    // A level that no CPU numbers and that is not always there is not told at all: by default the
    // kernel then shows each CPU as a group of its own. Mostly the first CPU says enough.
    let told = level.expected || cpus.iter().any(|cpu| number_of(scan, cpu).is_some());
    if !told {
        return;
    }
    let mut groups: Vec<CpuSet> = Vec::new();
    let mut seen = CpuSet::new();
    let mut torn = CpuSet::new();
    for cpu in cpus.iter().filter(|cpu| online.contains(cpu.id)) {
        if seen.contains(cpu.id) {
            continue;
        }
        let folder = folder(cpu);
        let set = level
            .members
            .iter()
            .filter(|name| shown.has(name))
            .find_map(|name| scan.cpus(&folder, &format!("{name}_list"), name));
        let Some(set) = set else { continue };
        let mut set = set.intersection(online);
        if !set.contains(cpu.id) {
            torn.insert(cpu.id);
            continue;
        }
        if !set.is_disjoint(&seen) {
            // The lower CPU was there first.
            torn.extend_from(&set.intersection(&seen));
            set = set.difference(&seen);
        }
        seen.extend_from(&set);
        groups.push(set);
    }
    // Of a group the first and the last CPU are asked for its number; who is in none, each.
    let asked: CpuSet = groups
        .iter()
        .flat_map(|group| [group.first(), group.iter().last()])
        .flatten()
        .collect();
    for cpu in cpus.iter_mut() {
        if asked.contains(cpu.id) || !seen.contains(cpu.id) {
            let number = number_of(scan, cpu);
            (level.set)(cpu, number);
        }
    }
    if !torn.is_empty() {
        scan.note(
            root,
            format!(
                "CPUs {torn} are not told alike by all members of their {}; the lowest CPU's word was taken",
                level.name
            ),
        );
    }
    number(scan, root, cpus, &groups, level);
}

/// Gives each group its number: the kernel's, if that tells the groups apart.
fn number(scan: &mut Scan, root: &str, cpus: &mut [Cpu], groups: &[CpuSet], level: &Level) {
    let mut group_of: BTreeMap<bmslice_model::CpuId, usize> = BTreeMap::new();
    for (i, group) in groups.iter().enumerate() {
        group_of.extend(group.iter().map(|id| (id, i)));
    }
    // What the kernel calls each group, its package beside it where numbers start anew there.
    let mut names: Vec<Option<(Option<u32>, u32)>> = vec![None; groups.len()];
    let mut mixed = false;
    for cpu in cpus.iter() {
        let Some(&group) = group_of.get(&cpu.id) else {
            continue;
        };
        let name = (level.get)(cpu).map(|n| (cpu.package.filter(|_| level.in_package), n));
        match (names[group], name) {
            (None, Some(_)) => names[group] = name,
            (Some(one), Some(other)) if one != other => mixed = true,
            _ => {}
        }
    }
    let mut owners: BTreeMap<(Option<u32>, u32), usize> = BTreeMap::new();
    for name in names.iter().flatten() {
        *owners.entry(*name).or_default() += 1;
    }
    let ambiguous = owners.values().any(|count| *count > 1);
    let nameless = names.iter().filter(|name| name.is_none()).count();
    let keep = |name: &Option<(Option<u32>, u32)>| !ambiguous && name.is_some();
    let mut next = match names.iter().flatten().map(|(_, n)| *n).max() {
        Some(max) if !ambiguous => max.saturating_add(1),
        _ => 0,
    };
    let numbers: Vec<u32> = names
        .iter()
        .map(|name| match name {
            Some((_, number)) if keep(name) => *number,
            _ => {
                let number = next;
                next = next.saturating_add(1);
                number
            }
        })
        .collect();
    let mut homeless = CpuSet::new();
    for cpu in cpus.iter_mut() {
        match group_of.get(&cpu.id) {
            Some(&group) => (level.set)(cpu, Some(numbers[group])),
            // Its number could mean any group once they are counted anew.
            None if ambiguous => {
                homeless.insert(cpu.id);
                (level.set)(cpu, None);
            }
            None => {}
        }
    }
    let what = level.name;
    if ambiguous {
        let several: Vec<String> = owners
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|((_, number), count)| format!("{count} have number {number}"))
            .collect();
        let mut text = format!(
            "{} {what}s are not told apart by their numbers ({}); they were counted",
            groups.len(),
            several.join(", ")
        );
        if !homeless.is_empty() {
            text.push_str(&format!("; the {what} of CPUs {homeless} is not known"));
        }
        scan.note(root, text);
    } else if nameless > 0 {
        scan.note(
            root,
            format!("{nameless} {what}s have no number; they were counted"),
        );
    }
    if mixed {
        scan.note(
            root,
            format!("CPUs of one {what} tell several numbers for it; the lowest CPU's was taken"),
        );
    }
}
