//! The rules of the host's own share.
//!
//! Takes a sealed [`HostSpec`], notes what does not hold. Keeps true: no kernel argument of the
//! user's is one that a plan sets, and each reaches the kernel as it is written.

use bmslice_model::{KernelArg, count};

use crate::choices::{IdleStates, Mitigations};
use crate::rules::{Found, Path};
use crate::sealed::{HostSpec, Isolation};

pub(crate) fn rules(host: &HostSpec, at: &Path, found: &mut Found) {
    if !(1..=1024).contains(&host.reserve_cores) {
        found.say(
            at.field("reserve").field("cores"),
            format!("the host cannot keep {}", count(host.reserve_cores, "core")),
            "the host needs at least 1 core, that of CPU 0; at most 1024 can be kept",
        );
    }
    if !host.images.starts_with('/') || host.images.chars().any(char::is_control) {
        found.say(
            at.field("images"),
            format!(
                "`{}` is not an absolute path",
                crate::diagnostic::shown(&host.images)
            ),
            "write the folder's whole path, as `/var/lib/libvirt/images`",
        );
    }
    if host.tickless && host.isolation != Isolation::Boot {
        found.clash(
            at.field("tickless"),
            "the tick cannot be stopped without boot arguments".into(),
            "write `isolation: boot`, or leave `tickless` out",
            at.field("isolation"),
            "isolation without them is asked for here",
        );
    }
    if !(2..=1440).contains(&host.fall_back_minutes) {
        found.say(
            at.field("fallBackMinutes"),
            format!(
                "a server cannot fall back after {}",
                count(host.fall_back_minutes, "minute")
            ),
            "2 to 1440 are possible; give it longer than it takes to boot",
        );
    }
    kernel_args(&host.kernel_args, &at.field("kernelArgs"), found);
    twice(host, at, found);
}

/// What is asked for by name, and by an argument that says the same or the contrary.
fn twice(host: &HostSpec, at: &Path, found: &mut Found) {
    let idle = (host.idle_states != IdleStates::All).then_some("idleStates");
    let guard = (host.mitigations != Mitigations::Auto).then_some("mitigations");
    let chosen = [
        (idle, "idle"),
        (idle, "intel_idle.max_cstate"),
        (idle, "processor.max_cstate"),
        (guard, "mitigations"),
    ];
    for (i, arg) in host.kernel_args.iter().enumerate() {
        let field = chosen
            .iter()
            .find_map(|(field, key)| field.filter(|_| arg.is(key)));
        let Some(field) = field else { continue };
        found.clash(
            at.field("kernelArgs").index(i),
            format!("`{arg}` and `{field}` are about the same"),
            "leave one of them out",
            at.field(field),
            "asked for here by name",
        );
    }
}

/// Arguments that a plan sets itself, by what of the spec it does so for; those of `bmslice` last.
const PLANNED: [(&str, &str); 11] = [
    ("isolcpus", "`isolation`"),
    ("irqaffinity", "`isolation`"),
    ("nohz_full", "`tickless`"),
    ("rcu_nocbs", "`tickless`"),
    ("intel_iommu", "the slices' `nics`"),
    ("amd_iommu", "the slices' `nics`"),
    ("iommu", "the slices' `nics`"),
    ("default_hugepagesz", "the slices' `memory`"),
    ("hugepagesz", "the slices' `memory`"),
    ("hugepages", "the slices' `memory`"),
    ("bmslice.trial", "a boot that is not confirmed yet"),
];

fn kernel_args(args: &[KernelArg], at: &Path, found: &mut Found) {
    for (i, arg) in args.iter().enumerate() {
        let at_this = at.index(i);
        let shown = crate::diagnostic::shown(arg.as_str());
        if let Some((key, why)) = PLANNED.iter().find(|(key, _)| arg.is(key)) {
            found.say(
                at_this,
                format!("`{shown}` and the plan's own `{key}=` would fight"),
                format!("leave it out: the plan sets it, by {why}"),
            );
        } else if arg.as_str() == "--" {
            found.say(
                at_this,
                "what follows `--` is not the kernel's",
                "leave it out",
            );
        } else if !arg.as_str().chars().all(plain_on_a_command_line) {
            found.say(
                at_this,
                format!("`{shown}` has a character that boot loaders read as their own"),
                "write it without white space, quotes, `\\`, `$` and `*?[`; \
                 what needs those belongs into `/etc/modprobe.d`",
            );
        } else if let Some(first) = args.iter().take(i).position(|other| other == arg) {
            let message = format!("the argument `{shown}` is given twice");
            found.clash(
                at_this,
                message,
                "leave it out",
                at.index(first),
                "here first",
            );
        }
    }
}

/// What reaches the kernel through a variable of GRUB as it is written: GRUB splits at white
/// space, matches wildcards against files, and escapes quotes, so that those arrive as others.
fn plain_on_a_command_line(c: char) -> bool {
    c.is_ascii_graphic() && !"\"'\\$`*?[]".contains(c)
}
