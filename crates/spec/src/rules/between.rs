//! What two slices of a spec cannot both have, or have to say alike.
//!
//! Takes all slices; notes what does not hold, with both places.

use std::collections::{HashMap, HashSet};

use bmslice_model::{MacAddress, count};

use crate::rules::{Found, Path};
use crate::sealed::{HostSpec, NicChoice, NicKind, SliceSpec};

/// Two slices that are to be apart and both name one server.
pub(super) fn apart_on_one(slices: &[(usize, &SliceSpec)], found: &mut Found) {
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    for &(i, slice) in slices {
        let (Some(group), Some(server)) = (&slice.apart, &slice.server) else {
            continue;
        };
        let at = |i, field| Path::default().field("slices").index(i).field(field);
        match seen.get(&(group.as_str(), server.as_str())) {
            Some(first) => found.clash(
                at(i, "server"),
                format!(
                    "two slices of the group `{group}`, which are to be apart, are for `{server}`"
                ),
                "name another server, or none, or take one of them out of the group",
                at(*first, "server"),
                "the first one",
            ),
            None => {
                seen.insert((group, server), i);
            }
        }
    }
}

/// Slices of one tenant that share a pool and want it of different sizes, or of no cores.
pub(super) fn one_pool(slices: &[(usize, &SliceSpec)], found: &mut Found) {
    let mut seen: HashMap<&str, (usize, u32)> = HashMap::new();
    for &(i, slice) in slices.iter().filter(|(_, slice)| slice.shared_pool) {
        let at = |i, field| {
            let emulator = Path::default().field("slices").index(i).field("emulator");
            emulator.field(field)
        };
        let cores = slice.emulator_cores;
        if cores == 0 {
            found.clash(
                at(i, "pool"),
                format!("the pool of tenant `{}` has no cores", slice.tenant),
                "write `cores: 1`, or leave `pool` out: without cores the host's are used",
                at(i, "cores"),
                "none are asked for here",
            );
            continue;
        }
        match seen.get(slice.tenant.as_str()) {
            Some(&(first, had)) if had != cores => found.clash(
                at(i, "cores"),
                format!(
                    "the pool of tenant `{}` is to have {} here and {} elsewhere",
                    slice.tenant,
                    count(cores, "core"),
                    count(had, "core")
                ),
                "write the same number for all slices that share it",
                at(first, "cores"),
                "the first one",
            ),
            Some(_) => {}
            None => {
                seen.insert(slice.tenant.as_str(), (i, cores));
            }
        }
    }
}

pub(super) fn unique_names(slices: &[(usize, &SliceSpec)], found: &mut Found) {
    let mut seen: HashMap<&str, (usize, bool)> = HashMap::new();
    let mut said = None;
    for &(i, slice) in slices {
        let at = |i| Path::default().field("slices").index(i).field("name");
        let name = slice.name.as_str();
        let one_of_several = slice.replica.is_some();
        match seen.get(name) {
            // Of replicas the first clash says it all.
            Some((first, _)) if said == Some((i, *first)) => {}
            Some(&(first, first_of_several)) => {
                said = Some((i, first));
                found.clash(
                    at(i),
                    format!("two slices are named `{name}`"),
                    if one_of_several || first_of_several {
                        "the slices that `replicas` makes are named after theirs, with `-1`, `-2` and so on: give one of the two another name"
                    } else {
                        "a slice's name is its libvirt domain's, which is unique on a server"
                    },
                    at(first),
                    if first_of_several {
                        "one of its replicas"
                    } else {
                        "the first one"
                    },
                );
            }
            None => {
                seen.insert(name, (i, one_of_several));
            }
        }
    }
}

/// A physical function goes whole to one guest, or is split (planning rule 7); a MAC is one card's.
pub(super) fn unique_devices(slices: &[(usize, &SliceSpec)], found: &mut Found) {
    let mut whole: HashMap<String, Path> = HashMap::new();
    let mut split: HashMap<String, Path> = HashMap::new();
    let mut macs: HashMap<MacAddress, Path> = HashMap::new();
    for &(i, slice) in slices {
        for (j, nic) in slice.nics.iter().enumerate() {
            let at = Path::default()
                .field("slices")
                .index(i)
                .field("nics")
                .index(j);
            let (at, device, mac) = match &nic.kind {
                NicKind::Passthrough { device } => (at.field("passthrough"), Some(device), None),
                NicKind::Vf { of, mac, .. } => (at.field("vf"), Some(of), *mac),
                NicKind::Virtio { mac, .. } => (at.field("virtio"), None, *mac),
            };
            if let Some(mac) = mac {
                match macs.get(&mac) {
                    Some(first) => found.clash(
                        at.field("mac"),
                        format!("two NICs have the MAC {mac}"),
                        "a switch learns a MAC on one port only; leave one out to get one derived",
                        first.clone(),
                        "the first one",
                    ),
                    None => {
                        macs.insert(mac, at.field("mac"));
                    }
                }
            }
            let is_vf = matches!(nic.kind, NicKind::Vf { .. });
            let (key, field) = match device {
                Some(NicChoice::Pci(pci)) => (format!("at {pci}"), "pci"),
                Some(NicChoice::Name(name)) => (format!("`{name}`"), "name"),
                Some(NicChoice::Mac(mac)) => (format!("with the MAC {mac}"), "mac"),
                Some(NicChoice::Need { .. }) | None => continue,
            };
            let at = if is_vf {
                at.field("of").field(field)
            } else {
                at.field(field)
            };
            if let Some(first) = whole.get(&key) {
                let (message, hint) = if is_vf {
                    (
                        format!("the NIC {key} is passed through whole and split into VFs"),
                        "take a VF in both places, or another NIC in one",
                    )
                } else {
                    (
                        format!("the NIC {key} is passed through twice"),
                        "a whole NIC goes to one slice; split it with `vf: { of: … }` to share it",
                    )
                };
                found.clash(
                    at,
                    message,
                    hint,
                    first.clone(),
                    "passed through whole here",
                );
            } else if is_vf {
                split.entry(key).or_insert(at);
            } else if let Some(first) = split.get(&key) {
                found.clash(
                    at,
                    format!("the NIC {key} is passed through whole and split into VFs"),
                    "take a VF in both places, or another NIC in one",
                    first.clone(),
                    "split into VFs here",
                );
            } else {
                whole.insert(key, at);
            }
        }
    }
}

/// A base image is read by many and written to by none: it is no slice's own disk or seed.
pub(super) fn bases_are_no_disks(
    host: &HostSpec,
    slices: &[(usize, &SliceSpec)],
    found: &mut Found,
) {
    // Which slice's name would make a base image its file: looked up by base, of which there are few.
    let folder = host.images.trim_end_matches('/');
    let file_of = |base: &'_ str| -> Option<(String, &'static str)> {
        let file = match base.strip_prefix('/') {
            Some(_) => base.strip_prefix(folder)?.strip_prefix('/')?,
            None => base,
        };
        let disk = file.strip_suffix(".qcow2").map(|name| (name, "disk"));
        let seed = || file.strip_suffix("-seed.iso").map(|name| (name, "seed"));
        disk.or_else(seed)
            .map(|(name, what)| (name.to_owned(), what))
    };
    let mut bases: HashMap<&str, Option<(String, &'static str)>> = HashMap::new();
    for (_, slice) in slices {
        let base = slice.image.base.as_str();
        bases.entry(base).or_insert_with(|| file_of(base));
    }
    let names: HashSet<&str> = bases.values().flatten().map(|(n, _)| n.as_str()).collect();
    let owners: HashMap<&str, (usize, &SliceSpec)> = slices
        .iter()
        .filter(|(_, slice)| names.contains(slice.name.as_str()))
        .map(|&(i, slice)| (slice.name.as_str(), (i, slice)))
        .collect();
    if owners.is_empty() {
        return;
    }
    let mut told = None;
    for &(i, slice) in slices {
        let base = &slice.image.base;
        let Some((name, what)) = bases.get(base.as_str()).and_then(Option::as_ref) else {
            continue;
        };
        let Some(&(at, other)) = owners.get(name.as_str()) else {
            continue;
        };
        // Of replicas once.
        if told.replace(i) == Some(i) {
            continue;
        }
        let slices = Path::default().field("slices");
        found.clash(
            slices.index(i).field("image").field("base"),
            format!(
                "the base image `{}` is the {what} of slice `{}`, which is written to",
                crate::diagnostic::shown(base),
                other.name
            ),
            "give the image or the slice another name",
            slices.index(at).field("name"),
            "its name makes it that file",
        );
    }
}
