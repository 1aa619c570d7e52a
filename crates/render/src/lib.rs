//! A plan as the files and commands that make it so.
//!
//! Takes a [`Plan`](bmslice_plan::Plan), gives texts; the same plan gives the same bytes. Decides
//! nothing (what is in an artifact is in the plan) and touches no system.

mod artifacts;
mod cloud_init;
mod customize;
mod domain;
mod element;
mod entries;
mod error;
mod grub;
mod host;
mod isolation;
mod json;

pub use artifacts::{Artifact, Artifacts, RenderOptions, render};
pub use cloud_init::{meta_data, network_config, user_data};
pub use customize::{CustomizeOperation, customize_argv, customize_commands, resize_argv};
pub use domain::{METADATA_NAMESPACE, console_log, definition_digest, domain_xml};
pub use entries::{
    ARGS_MARK, Form, KERNEL_CMDLINE, VENDOR_CMDLINE, args_in, entry_value, own_args, trial_entry,
    trial_entry_digest, trial_entry_name, trial_options, with_args, without_args,
};
pub use error::RenderError;
pub use grub::{
    GRUB_DROP_IN, GRUB_ENV, GRUB_SCRIPT, GRUB_VARIABLE, GrubEnv, GrubScript, TRIAL, args_digest,
    grub_can_carry, grub_drop_in, kernel_args,
};
pub use host::{
    FALL_BACK_TIMER, FALL_BACK_UNIT, HOST_UNIT, SLICES_UNIT, fall_back_timer, fall_back_unit,
    host_unit, slices_unit,
};
pub use isolation::{
    CONFINED, IRQBALANCE_DROP_IN, PARTITION, PARTITION_SLICE, PARTITION_UNIT, confinement,
    irqbalance_drop_in, partition_slice,
};
