//! Whether the plan is of this spec and this server, and says of each slice what was asked.

use std::collections::BTreeMap;

use bmslice_plan::{Fingerprint, SlicePlan};
use bmslice_spec::Setup;

use crate::{Case, Found, Invariant};

pub(crate) const SPEC_DIGEST: Invariant = Invariant {
    code: "spec-digest",
    rule: "the plan carries the digest of what was asked",
    test: |case, found| {
        let (plan, spec) = (&case.plan.parts().spec_digest, &case.spec.digest);
        if plan != spec {
            found.host(format!(
                "the plan is of another spec: it carries {plan}, this is {spec}"
            ));
        }
    },
};

pub(crate) const FINGERPRINT: Invariant = Invariant {
    code: "fingerprint",
    rule: "the plan carries this server's fingerprint and name, and no slice is for another server",
    test: |case, found| {
        let server = &case.plan.parts().server;
        let now = Fingerprint::of(case.inventory);
        for moved in server.fingerprint.moved(&now) {
            found.host(format!("the plan is of another server: {moved}"));
        }
        if server.fingerprint.digest != now.digest {
            let (plan, now) = (&server.fingerprint.digest, now.digest);
            found.host(format!(
                "the plan carries the fingerprint {plan}, this server's is {now}"
            ));
        }
        let hostname = &case.inventory.machine.hostname;
        if server.hostname != *hostname {
            let name = &server.hostname;
            found.host(format!(
                "the plan is for `{name}`, this server is `{hostname}`"
            ));
        }
        for slice in &case.spec.slices {
            if let Some(named) = slice.server.as_ref().filter(|named| *named != hostname) {
                found.push(
                    Some(slice.name.clone()),
                    format!("it is for the server `{named}`, this is `{hostname}`"),
                );
            }
        }
    },
};

pub(crate) const APART: Invariant = Invariant {
    code: "apart",
    rule: "no two slices of a group that is to be apart are on this server",
    test: |case, found| {
        let mut first: BTreeMap<&str, &SlicePlan> = BTreeMap::new();
        for (slice, spec) in case.slices() {
            let Some(group) = &spec.apart else { continue };
            match first.get(group.as_str()) {
                Some(other) => found.slice(
                    slice,
                    format!(
                        "it is to be apart from slice `{}`, as the group `{group}` says, and is on the same server",
                        other.name
                    ),
                ),
                None => {
                    first.insert(group, slice);
                }
            }
        }
    },
};

pub(crate) const SLICES: Invariant = Invariant {
    code: "slices",
    rule: "the plan has every slice that was asked for, in that order, and no other",
    test: |case, found| {
        for spec in &case.spec.slices {
            if !case.plan.slices().iter().any(|s| s.name == spec.name) {
                found.push(
                    Some(spec.name.clone()),
                    "it is asked for and not in the plan".into(),
                );
            }
        }
        for slice in case.plan.slices() {
            if !case.spec.slices.iter().any(|s| s.name == slice.name) {
                found.slice(slice, "it is in the plan and nobody asked for it");
            }
        }
        let asked = case.spec.slices.iter().map(|s| &s.name);
        let asked = asked.filter(|name| case.plan.slices().iter().any(|s| s.name == **name));
        if !case.slices().map(|(slice, _)| &slice.name).eq(asked) {
            found.host("the slices are not in the order in which they were asked for");
        }
    },
};

pub(crate) const AS_ASKED: Invariant = Invariant {
    code: "as-asked",
    rule: "tenant, machine, sibling policy, guest set-up, autostart and deadline of a slice are those asked for",
    test: |case, found| {
        for (slice, spec) in case.slices() {
            found.differs(slice, "the tenant", &slice.tenant, &spec.tenant);
            found.differs(slice, "the machine type", &slice.machine, &spec.machine);
            found.differs(slice, "the sibling policy", &slice.smt, &spec.smt);
            found.differs(slice, "the guest's set-up", &slice.guest, &spec.guest);
            found.differs(slice, "the autostart", &slice.autostart, &spec.autostart);
            let (is, asked) = (&slice.up_within_seconds, &spec.up_within_seconds);
            found.differs(slice, "the seconds until it is up", is, asked);
        }
        let (plan, asked) = (&case.plan.host().images, &case.spec.host.images);
        if plan != asked {
            found.host(format!("images are kept in `{plan}`, asked was `{asked}`"));
        }
    },
};

pub(crate) const IDENTITY: Invariant = Invariant {
    code: "identity",
    rule: "each slice has a UUID of its own, and no name or UUID is another domain's",
    test: identity,
};

fn identity(case: &Case<'_>, found: &mut Found) {
    let mut seen = BTreeMap::new();
    for slice in case.plan.slices() {
        let uuid = &slice.uuid;
        let shape = [8, 4, 4, 4, 12];
        let parts: Vec<&str> = uuid.split('-').collect();
        let hex = |part: &str| {
            part.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let lengths = parts.iter().map(|part| part.len());
        if !lengths.eq(shape) || !parts.iter().all(|part| hex(part)) {
            found.slice(
                slice,
                format!("`{uuid}` is not a UUID as libvirt prints it"),
            );
        }
        if let Some(first) = seen.insert(uuid, &slice.name) {
            found.slice(slice, format!("it has the UUID of slice `{first}`"));
        }
        let domains = case
            .inventory
            .hypervisor
            .libvirt
            .iter()
            .flat_map(|l| &l.domains);
        for domain in domains {
            let (name, id) = (domain.name == slice.name.as_str(), domain.uuid == *uuid);
            // Both alike is the slice itself, as an earlier plan made it.
            if name != id {
                let what = if name { "name" } else { "UUID" };
                found.slice(
                    slice,
                    format!(
                        "its {what} is that of the domain `{}` ({}), which is not its own",
                        domain.name, domain.uuid
                    ),
                );
            }
        }
    }
}

pub(crate) const DISK: Invariant = Invariant {
    code: "disk",
    rule: "each slice has a disk as asked, of its own, and a seed of its own when cloud-init sets it up; none is a base image",
    test: disk,
};

fn disk(case: &Case<'_>, found: &mut Found) {
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for (slice, spec) in case.slices() {
        let (disk, asked) = (&slice.disk, &spec.image);
        found.differs(slice, "the disk's size", &disk.size, &asked.size);
        found.differs(slice, "the disk's making", &disk.from, &asked.from);
        found.differs(slice, "the set-up", &disk.setup, &asked.setup);
        let base = if asked.base.starts_with('/') {
            asked.base.clone()
        } else {
            format!(
                "{}/{}",
                case.spec.host.images.trim_end_matches('/'),
                asked.base
            )
        };
        found.differs(slice, "the base image", &disk.base, &base);
        if disk.seed.is_some() != (asked.setup == Setup::CloudInit) {
            found.slice(slice, "a seed goes with cloud-init, and with nothing else");
        }
    }
    for slice in case.plan.slices() {
        let disk = &slice.disk;
        let own = [("disk", Some(&disk.path)), ("seed", disk.seed.as_ref())];
        for (what, path) in own {
            let Some(path) = path else { continue };
            if !path.starts_with('/') {
                found.slice(
                    slice,
                    format!("the path of its {what}, `{path}`, is not absolute"),
                );
            }
            if let Some(first) = files.insert(path, format!("the {what} of slice `{}`", slice.name))
            {
                found.slice(slice, format!("its {what} `{path}` is {first} too"));
            }
        }
    }
    for slice in case.plan.slices() {
        if let Some(whose) = files.get(slice.disk.base.as_str()) {
            found.slice(
                slice,
                format!("its base image is {whose}, which would be written to"),
            );
        }
    }
}
