//! All of a plan's files, by the path under which `bmslice render` writes them.
//!
//! Takes a plan, gives bytes, modes and the place on the host of those that are installed there as
//! they are. Domains are given to libvirt, commands are run, and seeds are built into an image, so
//! those have no place of their own.

use std::collections::BTreeMap;

use bmslice_plan::Plan;
use bmslice_spec::{Isolation, Setup};

use crate::grub::{self, GrubScript};
use crate::{RenderError, cloud_init, customize, domain_xml, host, isolation, json};

/// What rendering needs beside the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderOptions {
    /// Where `bmslice` is installed on the host; the units run it.
    pub binary: String,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            binary: "/usr/local/bin/bmslice".into(),
        }
    }
}

/// A rendered file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its mode, as chmod(2) takes it.
    pub mode: u32,
    /// Where it is installed on the host as it is; `None` for what is given to libvirt, run, or
    /// built into a seed.
    pub installed: Option<&'static str>,
}

/// The artifacts of a plan, by their path below the output folder: `domains/red.xml`.
pub type Artifacts = BTreeMap<String, Artifact>;

/// What systemd is told of the CPUs: path in the folder, content, place on the host.
fn isolation_files(plan: &Plan) -> Vec<(String, String, &'static str)> {
    let host = plan.host();
    let below = |installed: &str| installed.replacen("/etc/systemd/system", "host/systemd", 1);
    let mut files = Vec::new();
    if host.isolation == Isolation::Dynamic {
        let unit = isolation::PARTITION_UNIT;
        files.push((
            below(unit),
            isolation::partition_slice(&host.isolated),
            unit,
        ));
        for (unit, path) in isolation::CONFINED {
            files.push((below(path), isolation::confinement(unit, &host.cpus), path));
        }
    }
    if host.isolation != Isolation::None {
        let path = isolation::IRQBALANCE_DROP_IN;
        files.push((
            below(path),
            isolation::irqbalance_drop_in(&host.isolated),
            path,
        ));
    }
    files
}

/// Every artifact of a plan:
///
/// | path | what | installed as |
/// |---|---|---|
/// | `domains/NAME.xml` | the libvirt domain | |
/// | `host/kernel-args` | the boot arguments, one line | |
/// | `host/grub.d/90-bmslice.cfg` | gives GRUB's entries a variable | [`GRUB_DROP_IN`](crate::GRUB_DROP_IN) |
/// | `host/grub/09_bmslice` | fills it with the boot arguments, tried or confirmed | [`GRUB_SCRIPT`](crate::GRUB_SCRIPT) |
/// | `host/systemd/bmslice-fall-back.service`, `….timer` | goes back from arguments that were not confirmed | [`FALL_BACK_UNIT`](crate::FALL_BACK_UNIT), [`FALL_BACK_TIMER`](crate::FALL_BACK_TIMER) |
/// | `host/systemd/bmslice-host.service` | brings back after a boot what a boot takes away | [`HOST_UNIT`](crate::HOST_UNIT) |
/// | `host/systemd/bmslice-slices.service` | goes on with the slices | [`SLICES_UNIT`](crate::SLICES_UNIT) |
/// | `host/systemd/bmslice.slice`, `host/systemd/*.slice.d/90-bmslice.conf`, … | isolation without a reboot: who may be where | [`PARTITION_UNIT`](crate::PARTITION_UNIT), [`CONFINED`](crate::CONFINED) |
/// | `host/systemd/irqbalance.service.d/90-bmslice.conf` | keeps irqbalance off the slices' CPUs | [`IRQBALANCE_DROP_IN`](crate::IRQBALANCE_DROP_IN) |
/// | `cloud-init/NAME/…` | `meta-data`, `user-data`, `network-config` of a NoCloud seed | |
/// | `images/NAME.json` | the argv of `virt-resize` and `virt-customize`, where the plan has them | |
///
/// Those of the boot arguments are left out when there are none.
///
/// # Errors
/// [`RenderError`], for plans edited by hand.
pub fn render(plan: &Plan, options: &RenderOptions) -> Result<Artifacts, RenderError> {
    let mut artifacts = Artifacts::new();
    let mut add = |path: String, text: String, mode: u32, installed: Option<&'static str>| {
        artifacts.insert(
            path,
            Artifact {
                bytes: text.into_bytes(),
                mode,
                installed,
            },
        );
    };
    let args = &plan.host().kernel_args;
    if !args.is_empty() {
        add(
            "host/kernel-args".into(),
            grub::kernel_args(args),
            0o644,
            None,
        );
        let script = GrubScript {
            args: args.clone(),
            before: None,
            one_shot: true,
        };
        for (path, text, mode, installed) in [
            (
                "host/grub.d/90-bmslice.cfg",
                grub::grub_drop_in(),
                0o644,
                grub::GRUB_DROP_IN,
            ),
            (
                "host/grub/09_bmslice",
                script.text(),
                0o755,
                grub::GRUB_SCRIPT,
            ),
            (
                "host/systemd/bmslice-fall-back.service",
                host::fall_back_unit(options)?,
                0o644,
                host::FALL_BACK_UNIT,
            ),
            (
                "host/systemd/bmslice-fall-back.timer",
                host::fall_back_timer(plan.host().fall_back_minutes),
                0o644,
                host::FALL_BACK_TIMER,
            ),
        ] {
            add(path.into(), text, mode, Some(installed));
        }
    }
    let isolation = plan.host().isolation;
    for (path, text, installed) in isolation_files(plan) {
        add(path, text, 0o644, Some(installed));
    }
    let units = [
        (
            "bmslice-host.service",
            host::host_unit(options, isolation)?,
            host::HOST_UNIT,
        ),
        (
            "bmslice-slices.service",
            host::slices_unit(options, &plan.host().images, isolation)?,
            host::SLICES_UNIT,
        ),
    ];
    for (name, text, installed) in units {
        add(format!("host/systemd/{name}"), text, 0o644, Some(installed));
    }
    for slice in plan.slices() {
        let name = &slice.name;
        add(
            format!("domains/{name}.xml"),
            domain_xml(slice)?,
            0o644,
            None,
        );
        if slice.disk.setup == Setup::CloudInit {
            let folder = format!("cloud-init/{name}");
            add(
                format!("{folder}/meta-data"),
                cloud_init::meta_data(slice),
                0o644,
                None,
            );
            add(
                format!("{folder}/user-data"),
                cloud_init::user_data(slice, None),
                0o600,
                None,
            );
            if let Some(network) = cloud_init::network_config(slice)? {
                add(format!("{folder}/network-config"), network, 0o644, None);
            }
        }
        let commands: Vec<Vec<String>> = customize::resize_argv(slice, &slice.disk.path)
            .into_iter()
            .chain(customize::customize_argv(slice, &slice.disk.path))
            .collect();
        if !commands.is_empty() {
            let text = json::pretty(&commands);
            add(format!("images/{name}.json"), text, 0o644, None);
        }
    }
    Ok(artifacts)
}
