//! Deployments of ostree's, whose entries GRUB reads: which one runs, which one boots by default, and
//! which one waits to be the next.
//!
//! ADR 0016 has the states. Takes `/proc/cmdline`, the entries and `/run/ostree`; gives names of
//! entries. Source: ostree (`ostree-sysroot-deploy.c`, `ostree-kernel-args.c`), rpm-ostree
//! (`rpmostree-sysroot-upgrader.cxx`). Keeps true: nothing of ostree's is written.
//!
//! An entry is all that ostree keeps of a deployment's kernel arguments: `ostree admin kargs
//! edit-in-place` writes it where it is, and each new deployment takes its arguments from the entry of
//! the one before.

use bmslice_host::{Command, HostError};
use bmslice_model::{KernelArg, KernelCmdline};
use bmslice_render::{ARGS_MARK, Form, args_digest, args_in, entry_value, trial_entry_digest};

use crate::error::Problem;
use crate::site::Look;
use crate::steps::blscfg;
use crate::steps::boot::running_args;

/// What ostree writes of a deployment that is made at shutdown: a GVariant, in which strings are as
/// they are.
const STAGED: &str = "/run/ostree/staged-deployment";

/// The deployment that a kernel's arguments name: `/ostree/boot.1/fedora/…/0`.
fn deployment(args: &KernelCmdline) -> Option<&str> {
    args.last("ostree").and_then(KernelArg::value)
}

/// Whether these are the arguments of the deployment that runs. The path in them changes whenever
/// ostree writes all entries anew: then none is, until the next boot.
pub fn runs(look: &Look<'_>, args: &KernelCmdline) -> bool {
    let running = running_args(look);
    deployment(&running).is_some_and(|runs| deployment(args) == Some(runs))
}

/// The number in the name of a deployment's entry, which GRUB sorts by: the highest is the newest.
pub fn number(name: &str) -> Option<u64> {
    let rest = name.strip_suffix(".conf")?.strip_prefix("ostree-")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The entry that boots unless somebody says otherwise: what GRUB's block says, or the newest.
pub fn default(look: &Look<'_>, folder: &str, env: &str) -> Result<Option<String>, HostError> {
    let names = names(look, folder)?;
    if let Some(saved) = blscfg::saved(look, env)? {
        if saved.parse::<usize>().is_ok_and(|index| index > 0) {
            // In an order that only GRUB knows for sure.
            return Ok(None);
        }
        for name in &names {
            let text = look.file(&format!("{folder}/{name}"))?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let is_it = name.strip_suffix(".conf") == Some(&*saved)
                || entry_value(&text, "title") == Some(&*saved);
            if is_it {
                return Ok(Some(name.clone()));
            }
        }
    }
    Ok(names.into_iter().max_by_key(|name| number(name)))
}

/// All entries' names, but those on trial.
fn names(look: &Look<'_>, folder: &str) -> Result<Vec<String>, HostError> {
    let list = look.machine.root().list(folder);
    let mut names = list.map_err(|source| HostError::File {
        action: "list",
        path: folder.into(),
        source,
    })?;
    names.retain(|name| {
        name.ends_with(".conf") && !name.starts_with('.') && trial_entry_digest(name).is_none()
    });
    Ok(names)
}

/// What keeps an entry on trial from being there at the next boot, or GRUB's default from being known.
pub fn precondition(look: &Look<'_>, folder: &str) -> Result<Vec<Problem>, HostError> {
    let mut problems: Vec<Problem> = waiting(look)?.into_iter().collect();
    for name in names(look, folder)? {
        if number(&name).is_none() {
            problems.push(
                Problem::new(format!(
                    "`{folder}/{name}` is no entry of ostree's, so it is not known what GRUB boots by default"
                ))
                .hint(format!("take it away: `rm {folder}/{name}`; ostree's next deployment does so, too")),
            );
        }
    }
    Ok(problems)
}

/// A deployment that is staged: at shutdown ostree makes the folder of the entries anew, and no other
/// entry is in it.
pub fn waiting(look: &Look<'_>) -> Result<Option<Problem>, HostError> {
    Ok(look.file(STAGED)?.map(|_| {
        Problem::new(format!(
            "a deployment is staged (`{STAGED}`): ostree makes the folder of the entries anew at shutdown, and an entry on trial would be gone"
        ))
        .hint("reboot into it, or drop it (`rpm-ostree cleanup --pending`); then apply again")
    }))
}

/// Whether a staged deployment has arguments of ours; `None` when none is staged.
pub fn staged_has_ours(look: &Look<'_>) -> Result<Option<bool>, HostError> {
    let mark = format!("{ARGS_MARK}=");
    let has = |bytes: Vec<u8>| {
        let mut windows = bytes.windows(mark.len());
        windows.any(|window| window == mark.as_bytes())
    };
    Ok(look.file(STAGED)?.map(has))
}

/// Why a deployment to come would be without arguments that the one that runs has, if it would.
pub fn passed_over(look: &Look<'_>, args: &[KernelArg]) -> Result<Option<String>, HostError> {
    if staged_has_ours(look)? == Some(false) {
        return Ok(Some("a deployment was staged in the meantime, which boots next and has not these kernel arguments: apply again once it runs, or drop it (`rpm-ostree cleanup --pending`)".into()));
    }
    if !look.machine.has_program("rpm-ostree") {
        return Ok(None);
    }
    Ok(match look.machine.run(&Command::new("rpm-ostree", ["kargs"])) {
        Ok(said) if args_in(Form::Cmdline, &said.stdout) == Some(args_digest(args)) => None,
        // Its daemon looks anew when a deployment was made, and ends when nobody asks for a minute.
        Ok(_) => Some("rpm-ostree does not see these kernel arguments yet: until `rpm-ostree kargs` shows them, what it stages is without them".into()),
        Err(error) => Some(format!(
            "rpm-ostree could not be asked whether it passes these kernel arguments on: {error}"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments_are_numbered_in_both_ways_of_naming_them() {
        assert_eq!(number("ostree-2-fedora.conf"), Some(2));
        assert_eq!(number("ostree-10.conf"), Some(10));
        assert_eq!(number("ostree-3+2-1.conf"), Some(3));
        for other in ["ostree-x.conf", "fedora.conf", "ostree-1"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
