//! A plan as steps, in the order in which they are done.
//!
//! Mechanical: what is in a step is in the plan, in what `render` made of it, or (where the boot
//! loader's files are) in the inventory. What takes long and fails often (images) comes before the reboot, so that
//! a host is not rebooted for a plan that cannot be finished; what a boot takes away comes after it.

use bmslice_inventory::LiveInventory;
use bmslice_plan::{NicPlan, Plan, SlicePlan};
use bmslice_render::{
    CONFINED, FALL_BACK_TIMER, FALL_BACK_UNIT, HOST_UNIT, IRQBALANCE_DROP_IN, PARTITION_SLICE,
    PARTITION_UNIT, RenderError, RenderOptions, SLICES_UNIT, confinement, customize_argv,
    fall_back_timer, fall_back_unit, host_unit, irqbalance_drop_in, meta_data, network_config,
    partition_slice, resize_argv, slices_unit, user_data,
};
use bmslice_spec::{Isolation, Setup};

use crate::guest::{HashFile, PLACE, Seed};
use crate::journal::Ledger;
use crate::step::Step;
use crate::steps::boot::{BootArguments, BootPages, Reboot};
use crate::steps::device::GroupSound;
use crate::steps::disk::{BuildDisk, unfinished};
use crate::steps::domain::{DefineDomain, SetAutostart, StartDomain};
use crate::steps::files::{InstallFile, InstallUnit, StorePlan};
use crate::steps::loader::Loader;
use crate::steps::memory::{AllocateHugePages, PageUser};
use crate::steps::partition::{ConfineHost, IsolatePartition, UnitFile};
use crate::steps::queues::FitQueues;
use crate::steps::quiet::{Form, MoveInterrupts, MoveKernelThreads, SetAttributes, TellIrqbalance};
use crate::steps::seed::BuildSeed;
use crate::steps::sriov::{CreateVfs, DisableVfAutoprobe};
use crate::steps::trial::{ConfirmBoot, KEY, Management};
use crate::steps::vf::ConfigureVf;

/// The steps of a plan on a live server. `binary` is what the units call after a boot: the absolute
/// path of this program.
///
/// # Errors
/// When the plan cannot be written out.
pub fn steps(
    plan: &Plan,
    binary: &str,
    inventory: &LiveInventory,
) -> Result<Vec<Step>, RenderError> {
    let mut steps = vec![Step::StorePlan(StorePlan {
        plan: plan.to_json(),
    })];
    let options = RenderOptions {
        binary: binary.into(),
    };
    for (path, content) in [
        (HOST_UNIT, host_unit(&options, plan.host().isolation)?),
        (
            SLICES_UNIT,
            slices_unit(&options, &plan.host().images, plan.host().isolation)?,
        ),
    ] {
        let path = path.to_owned();
        steps.push(Step::InstallUnit(InstallUnit { path, content }));
    }
    steps.extend(told(plan));
    for slice in plan.slices() {
        steps.extend(image(slice)?);
    }
    let arguments = boot_arguments(plan, inventory);
    let confirm = arguments
        .as_ref()
        .map(|arguments| confirm_boot(plan, arguments, inventory));
    if let Some(arguments) = arguments {
        steps.push(Step::BootArguments(arguments));
        steps.push(Step::InstallFile(InstallFile {
            path: FALL_BACK_UNIT.into(),
            content: fall_back_unit(&options)?,
            mode: 0o644,
        }));
        steps.push(Step::InstallUnit(InstallUnit {
            path: FALL_BACK_TIMER.into(),
            content: fall_back_timer(plan.host().fall_back_minutes),
        }));
    }
    steps.extend(reboot_step(plan).map(Step::Reboot));
    steps.extend(confirm.map(Step::ConfirmBoot));
    steps.extend(quiet(plan));
    steps.extend(settings(plan).into_iter().map(Step::SetAttributes));
    steps.extend(page_steps(plan));
    for split in &plan.host().split {
        let pf = split.device.clone();
        steps.push(Step::DisableVfAutoprobe(DisableVfAutoprobe {
            pf: pf.clone(),
        }));
        steps.push(Step::CreateVfs(CreateVfs {
            pf,
            count: split.vfs,
        }));
    }
    for slice in plan.slices() {
        steps.extend(virtual_functions(slice));
    }
    for queues in &plan.host().queues {
        steps.push(Step::FitQueues(FitQueues {
            nic: queues.device.clone(),
            most: queues.most,
            apart: queues.apart,
        }));
    }
    // After the NICs have come up: a driver asks for its interrupts then.
    if plan.host().isolation != Isolation::None {
        steps.push(Step::MoveInterrupts(MoveInterrupts {
            cpus: plan.host().cpus.clone(),
        }));
    }
    for slice in plan.slices() {
        steps.extend(guest(slice)?);
    }
    Ok(steps)
}

/// What is written for systemd and irqbalance to go by.
fn told(plan: &Plan) -> Vec<Step> {
    let host = plan.host();
    let mut steps = Vec::new();
    if host.isolation == Isolation::Dynamic {
        let partition = UnitFile {
            path: PARTITION_UNIT.into(),
            content: partition_slice(&host.isolated),
        };
        let confined = CONFINED.iter().map(|(unit, path)| UnitFile {
            path: (*path).into(),
            content: confinement(unit, &host.cpus),
        });
        steps.push(Step::ConfineHost(ConfineHost {
            cpus: host.cpus.clone(),
            files: std::iter::once(partition).chain(confined).collect(),
            groups: CONFINED.iter().map(|(unit, _)| (*unit).into()).collect(),
        }));
    }
    if host.isolation != Isolation::None {
        steps.push(Step::TellIrqbalance(TellIrqbalance {
            path: IRQBALANCE_DROP_IN.into(),
            content: irqbalance_drop_in(&host.isolated),
            banned: host.isolated.clone(),
        }));
    }
    steps
}

/// What keeps the kernel's own work off the slices' CPUs. What boot arguments do is left to them.
fn quiet(plan: &Plan) -> Vec<Step> {
    let host = plan.host();
    match host.isolation {
        Isolation::None | Isolation::Boot => Vec::new(),
        Isolation::Dynamic => vec![
            Step::IsolatePartition(IsolatePartition {
                unit: PARTITION_SLICE.into(),
                cpus: host.isolated.clone(),
            }),
            Step::SetAttributes(SetAttributes {
                about: "the CPUs of unbound workqueues".into(),
                paths: vec!["/sys/devices/virtual/workqueue/cpumask".into()],
                value: host.cpus.to_mask(),
                form: Form::Mask,
            }),
            Step::MoveKernelThreads(MoveKernelThreads {
                cpus: host.cpus.clone(),
                isolated: host.isolated.clone(),
            }),
        ],
    }
}

/// What the spec asks of the kernel's settings.
fn settings(plan: &Plan) -> Vec<SetAttributes> {
    let (host, asked) = (plan.host(), plan.host().settings);
    let ksm = asked.ksm.map(|on| SetAttributes {
        about: "the merging of equal pages (KSM)".into(),
        paths: vec!["/sys/kernel/mm/ksm/run".into()],
        // 2 stops it, and gives back what was merged; 0 would leave that.
        value: if on { "1" } else { "2" }.into(),
        form: Form::Word,
    });
    let pages = asked.transparent_huge_pages.map(|pages| SetAttributes {
        about: "transparent huge pages".into(),
        paths: vec!["/sys/kernel/mm/transparent_hugepage/enabled".into()],
        value: pages.word().into(),
        form: Form::Choice,
    });
    let governor = asked.governor.map(|governor| SetAttributes {
        about: format!("the frequency governor of CPUs {}", host.isolated),
        paths: host
            .isolated
            .iter()
            .map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))
            .collect(),
        value: governor.word().into(),
        form: Form::Word,
    });
    [ksm, pages, governor].into_iter().flatten().collect()
}

fn boot_arguments(plan: &Plan, inventory: &LiveInventory) -> Option<BootArguments> {
    if plan.host().kernel_args.is_empty() {
        return None;
    }
    Some(BootArguments {
        args: plan.host().kernel_args.clone(),
        // Any other boot loader is refused before, unless the arguments are there already.
        loader: Loader::of(&inventory.boot.loader)?,
    })
}

fn confirm_boot(plan: &Plan, arguments: &BootArguments, inventory: &LiveInventory) -> ConfirmBoot {
    ConfirmBoot {
        args: arguments.args.clone(),
        loader: arguments.loader.clone(),
        management: Management::of(inventory, plan),
        minutes: plan.host().fall_back_minutes,
    }
}

/// What a boot on trial must have is what was there *before* it: a server that comes up without its
/// management would otherwise ask for none.
pub(crate) fn remember(steps: &mut [Step], ledger: &Ledger) {
    let Some(entry) = ledger.get(KEY).filter(|entry| entry.begun_in.is_some()) else {
        return;
    };
    for step in steps {
        if let (Step::ConfirmBoot(now), Step::ConfirmBoot(then)) = (&*step, &entry.step)
            && now.args == then.args
        {
            *step = entry.step.clone();
        }
    }
}

/// The reboot that a plan's kernel arguments need.
pub(crate) fn reboot_step(plan: &Plan) -> Option<Reboot> {
    let host = plan.host();
    if host.kernel_args.is_empty() {
        return None;
    }
    let isolates =
        host.isolation == Isolation::Boot && host.kernel_args.iter().any(|arg| arg.is("isolcpus"));
    Some(Reboot {
        args: host.kernel_args.clone(),
        isolated: isolates.then(|| host.isolated.clone()),
        huge_pages: host
            .huge_pages
            .iter()
            .filter(|pool| pool.at_boot)
            .map(|pool| BootPages {
                node: pool.node,
                size: pool.size,
                count: pool.count,
            })
            .collect(),
    })
}

/// The huge pages of a plan, with who needs them.
pub(crate) fn page_steps(plan: &Plan) -> Vec<Step> {
    let users = |node, size| {
        plan.slices()
            .iter()
            .map(|slice| PageUser {
                slice: slice.name.clone(),
                pages: slice.pages_on(node, size),
            })
            .filter(|user| user.pages > 0)
            .collect()
    };
    plan.host()
        .huge_pages
        .iter()
        .map(|pool| {
            Step::AllocateHugePages(AllocateHugePages {
                node: pool.node,
                size: pool.size,
                count: pool.count,
                at_boot: pool.at_boot,
                users: users(pool.node, pool.size),
            })
        })
        .collect()
}

fn image(slice: &SlicePlan) -> Result<Vec<Step>, RenderError> {
    let disk = &slice.disk;
    let user = slice.guest.user.as_ref();
    let hash = user
        .and_then(|user| user.password_hash_file.clone())
        .map(HashFile);
    let part = unfinished(&disk.path);
    let customize = customize_argv(slice, &part);
    let mut steps = vec![Step::BuildDisk(BuildDisk {
        slice: slice.name.clone(),
        path: disk.path.clone(),
        base: disk.base.clone(),
        size: disk.size,
        from: disk.from.clone(),
        resize: resize_argv(slice, &part),
        hash: customize.is_some().then(|| hash.clone()).flatten(),
        customize,
    })];
    if let (Setup::CloudInit, Some(path)) = (disk.setup, &disk.seed) {
        steps.push(Step::BuildSeed(BuildSeed {
            slice: slice.name.clone(),
            path: path.clone(),
            seed: Seed {
                user_data: user_data(slice, hash.as_ref().map(|_| PLACE)),
                meta_data: meta_data(slice),
                network_config: network_config(slice)?,
                hash,
            },
        }));
    }
    Ok(steps)
}

fn virtual_functions(slice: &SlicePlan) -> Vec<Step> {
    let mut steps = Vec::new();
    for nic in &slice.nics {
        match nic {
            NicPlan::Vf {
                pf,
                index,
                address,
                vlan,
                rules,
                nic,
            } => steps.push(Step::ConfigureVf(ConfigureVf {
                slice: slice.name.clone(),
                pf: pf.clone(),
                index: *index,
                address: *address,
                mac: nic.mac,
                vlan: *vlan,
                rules: *rules,
            })),
            NicPlan::Passthrough { .. } | NicPlan::Virtio { .. } => {}
        }
    }
    steps
}

fn guest(slice: &SlicePlan) -> Result<Vec<Step>, RenderError> {
    let name = || slice.name.clone();
    let functions: Vec<_> = slice.nics.iter().flat_map(NicPlan::functions).collect();
    let mut steps = Vec::new();
    if !functions.is_empty() {
        steps.push(Step::GroupSound(GroupSound {
            slice: name(),
            functions: functions.clone(),
        }));
    }
    steps.push(Step::DefineDomain(DefineDomain {
        slice: name(),
        uuid: slice.uuid.clone(),
        xml: bmslice_render::domain_xml(slice)?,
    }));
    // Whether it starts with the host is our unit's business (ADR 0012).
    steps.push(Step::SetAutostart(SetAutostart {
        slice: name(),
        on: false,
    }));
    steps.push(Step::StartDomain(StartDomain {
        slice: name(),
        functions,
    }));
    Ok(steps)
}
