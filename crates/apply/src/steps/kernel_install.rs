//! kernel-install's command line: the arguments of the entries that it makes for kernels to come.
//!
//! Takes the form in which `/etc/kernel/cmdline` holds them, and an entry where that file is not
//! there; gives the file with our arguments, or as it was. Source: kernel-install(8). Keeps true:
//! what is not ours in it stays as it is.

use std::path::Path;

use bmslice_host::HostError;
use bmslice_model::KernelArg;
use bmslice_render::{
    Form, KERNEL_CMDLINE, VENDOR_CMDLINE, args_digest, args_in, own_args, with_args, without_args,
};

use crate::error::Problem;
use crate::site::{Look, Site};
use crate::step::Before;
use crate::steps::boot::{KEY, conflicts};
use crate::steps::entries::{rewrite, text};

/// An entry's text, and how arguments stand in it.
pub type Model<'e> = (Form, &'e str);

/// Whether it is there. Where it is not, kernel-install takes the running kernel's arguments, which
/// on trial has what must not stay.
pub fn is_there(look: &Look<'_>) -> Result<bool, HostError> {
    Ok(look.file(KERNEL_CMDLINE)?.is_some())
}

/// The digest of our arguments that it has.
pub fn confirmed(look: &Look<'_>, form: Form) -> Result<Option<String>, HostError> {
    Ok(text(look, KERNEL_CMDLINE)?.and_then(|text| args_in(form, &text)))
}

/// Arguments of the user's in it that fight ours.
pub fn conflicting(
    look: &Look<'_>,
    form: Form,
    args: &[KernelArg],
) -> Result<Vec<Problem>, HostError> {
    let text = text(look, KERNEL_CMDLINE)?.unwrap_or_default();
    let lines = own_args(form, &text).into_iter();
    Ok(lines
        .flat_map(|(number, theirs)| conflicts(args, &theirs, KERNEL_CMDLINE, number))
        .collect())
}

/// What kernel-install would give to kernels to come if this entry booted them. Variables of GRUB's
/// are left to who wrote them into the entries.
pub fn stand_in(look: &Look<'_>, (form, entry): Model<'_>) -> Result<String, HostError> {
    if let Some(vendors) = text(look, VENDOR_CMDLINE)? {
        return Ok(vendors);
    }
    let own = own_args(form, entry);
    let args = own.iter().flat_map(|(_, args)| args.iter());
    let words: Vec<&str> = args
        .map(KernelArg::as_str)
        .filter(|word| !word.starts_with('$'))
        .collect();
    Ok(format!("{}\n", words.join(" ")))
}

/// Its text without ours, or what stands in for it.
fn own(site: &Site<'_>, entry: Model<'_>) -> Result<String, HostError> {
    if let Some(text) = text(&site.look(), KERNEL_CMDLINE)? {
        return Ok(text);
    }
    match site.ledger.get(KEY).map(|entry| &entry.before) {
        Some(Before::KernelCmdline { stand_in, .. }) if !stand_in.is_empty() => {
            Ok(stand_in.clone())
        }
        _ => stand_in(&site.look(), entry),
    }
}

/// Has it be there before a boot on trial.
pub fn prepare(site: &Site<'_>, entry: Model<'_>) -> Result<(), HostError> {
    let own = own(site, entry)?;
    if is_there(&site.look())? {
        return Ok(());
    }
    let path = Path::new(KERNEL_CMDLINE);
    site.machine.install(path, own.as_bytes(), 0o644)
}

/// Gives it our arguments.
pub fn keep(
    site: &Site<'_>,
    form: Form,
    entry: Model<'_>,
    args: &[KernelArg],
) -> Result<(), HostError> {
    if confirmed(&site.look(), form)? == Some(args_digest(args)) {
        return Ok(());
    }
    let text = with_args(form, &own(site, entry)?, args);
    let mode = site.machine.root().mode(KERNEL_CMDLINE).unwrap_or(0o644);
    let path = Path::new(KERNEL_CMDLINE);
    site.machine.install(path, text.as_bytes(), mode)
}

/// Takes ours out of it, and it away where we made it and nobody has changed it since.
pub fn undo(site: &Site<'_>, form: Form, before: &Before) -> Result<(), HostError> {
    let Some(found) = text(&site.look(), KERNEL_CMDLINE)? else {
        return Ok(());
    };
    let left = without_args(form, &found);
    match before {
        Before::KernelCmdline {
            was_there: false,
            stand_in,
            ..
        } if *stand_in == left => site.machine.remove(Path::new(KERNEL_CMDLINE)),
        _ => rewrite(site, KERNEL_CMDLINE, &found, &left),
    }
}
