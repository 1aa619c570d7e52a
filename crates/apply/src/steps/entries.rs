//! Boot loader entries as the keeper of kernel arguments, where systemd-boot or GRUB reads them and
//! boots one of them once.
//!
//! ADR 0011, ADR 0013 and ADR 0016 have the states. Takes the folder of the entries, who starts them,
//! who makes those of kernels to come, and the arguments; gives each half of
//! [`BootArguments`](super::boot::BootArguments) and of the trial. Source: the Boot Loader
//! Specification (UAPI group). Keeps true: what is tried stands in an entry of its own that is not
//! the default; the entries of the system have confirmed arguments and no others; and what is in a
//! text of the user's beside ours stays as it is.

use std::path::Path;

use bmslice_host::HostError;
use bmslice_model::KernelArg;
use bmslice_render::{
    KERNEL_CMDLINE, args_digest, args_in, entry_value, own_args, trial_entry, trial_entry_digest,
    trial_entry_name, trial_options, with_args, without_args,
};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::{Before, Observation};
use crate::steps::boot::line;
use crate::steps::boot_interface::id;
use crate::steps::kernel_install;
use crate::steps::maker::Maker;
use crate::steps::starter::Starter;

/// The entries of a system, and what they are to boot it with.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    /// Where the entries are: `/boot/efi/loader/entries`.
    pub folder: &'a str,
    /// Who reads them.
    pub starter: Starter<'a>,
    /// Who makes those of kernels to come.
    pub maker: Maker,
    /// The arguments that every entry of this system gets once they are confirmed.
    pub args: &'a [KernelArg],
}

/// An entry that is there.
pub struct Entry {
    pub name: String,
    pub path: String,
    pub text: String,
}

/// What an id of the loader's stands for.
enum Booted {
    /// An entry that can be given arguments.
    Entry(Entry),
    /// Anything else: a unified kernel image, another system.
    Other(String),
    /// Nothing that is known.
    Unknown,
}

/// A file that has to be text, since it is written anew.
pub fn text(look: &Look<'_>, path: &str) -> Result<Option<String>, HostError> {
    let Some(bytes) = look.file(path)? else {
        return Ok(None);
    };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|error| HostError::File {
            action: "read",
            path: path.into(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error()),
        })
}

/// Writes a file of the user's anew, if that changes it.
pub fn rewrite(site: &Site<'_>, path: &str, was: &str, text: &str) -> Result<(), HostError> {
    if was == text {
        return Ok(());
    }
    let mode = site.machine.root().mode(path).unwrap_or(0o644);
    site.machine.install(Path::new(path), text.as_bytes(), mode)
}

impl Entries<'_> {
    /// All of them, by name: those of the loader's, without ours on trial.
    fn all(&self, look: &Look<'_>) -> Result<Vec<Entry>, HostError> {
        let names = look
            .machine
            .root()
            .list(self.folder)
            .map_err(|source| HostError::File {
                action: "list",
                path: self.folder.into(),
                source,
            })?;
        let mut entries = Vec::new();
        for name in names {
            let is_entry = name.ends_with(".conf") && !name.starts_with('.');
            if !is_entry || trial_entry_digest(&name).is_some() {
                continue;
            }
            let path = format!("{}/{name}", self.folder);
            if let Some(text) = text(look, &path)? {
                entries.push(Entry { name, path, text });
            }
        }
        Ok(entries)
    }

    /// Those that are given arguments: they boot the system that runs.
    fn of_this_system(&self, look: &Look<'_>) -> Result<Vec<Entry>, HostError> {
        let mut entries = self.all(look)?;
        entries.retain(|entry| self.maker.is_of_this_system(look, self.starter, entry));
        Ok(entries)
    }

    /// What is on trial or was, by name.
    fn trials(&self, look: &Look<'_>) -> Vec<String> {
        let names = look.machine.root().list(self.folder).unwrap_or_default();
        let ours = |name: &String| trial_entry_digest(name).is_some();
        names.into_iter().filter(ours).collect()
    }

    fn named(&self, look: &Look<'_>, wanted: &str) -> Result<Booted, HostError> {
        let entries = self.of_this_system(look)?;
        let found = entries.into_iter().find(|e| id(&e.name) == id(wanted));
        Ok(found.map_or_else(|| Booted::Other(wanted.to_owned()), Booted::Entry))
    }

    /// What boots unless somebody says otherwise.
    fn default(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        self.maker.default(look, self.starter, self.folder)
    }

    /// The entry that booted, or else the default.
    fn base(&self, look: &Look<'_>) -> Result<Booted, HostError> {
        let entries = self.of_this_system(look)?.into_iter();
        let mut booted = entries.filter(|e| self.maker.is_booted(look, self.starter, e));
        if let Some(entry) = booted.next() {
            return Ok(Booted::Entry(entry));
        }
        match self.default(look)? {
            Some(id) => self.named(look, &id),
            None => Ok(Booted::Unknown),
        }
    }

    pub fn precondition(&self, look: &Look<'_>) -> Result<Vec<Problem>, HostError> {
        let mut problems: Vec<Problem> = self.maker.lacks(look, self.starter).into_iter().collect();
        if problems.is_empty() {
            problems = self.starter.precondition(look, self.args)?;
        }
        if !problems.is_empty() {
            return Ok(problems);
        }
        problems = self.maker.precondition(look, self.folder)?;
        let name = self.starter.name();
        let (see, choose) = (
            self.maker.see(self.starter),
            self.maker.choose(self.starter),
        );
        // The default is what the server goes back to, and what has the arguments in the end.
        match self.default(look) {
            Err(error) => problems.push(
                Problem::server_lacks(format!("what {name} boots cannot be told: {error}"))
                    .hint(see),
            ),
            Ok(None) => problems.push(
                Problem::new(format!(
                    "{name} has no default entry, so it is not known what this server would go back to"
                ))
                .hint(format!("{see}; {choose}")),
            ),
            // Armed earlier, and not booted yet.
            Ok(Some(id)) if trial_entry_digest(&id).is_some() => {}
            Ok(Some(id)) => problems.extend(self.cannot_give(look, &id)?),
        }
        for entry in self.of_this_system(look)? {
            for (number, theirs) in own_args(self.starter.entry(), &entry.text) {
                let found = self
                    .maker
                    .conflicts(self.args, &theirs, &entry.path, number);
                problems.extend(found);
            }
        }
        problems.extend(self.starter.conflicts(look, self.args)?);
        problems.extend(self.maker.conflicting(look, self.starter, self.args)?);
        Ok(problems)
    }

    /// Why what boots by default cannot be given arguments.
    fn cannot_give(&self, look: &Look<'_>, id: &str) -> Result<Option<Problem>, HostError> {
        let Booted::Other(id) = self.named(look, id)? else {
            return Ok(None);
        };
        Ok(Some(if id.to_ascii_lowercase().ends_with(".efi") {
            Problem::new(format!(
                "this server boots the unified kernel image `{id}`, which has its kernel arguments inside"
            ))
            .hint(format!(
                "add `{}` to `{KERNEL_CMDLINE}`, build the image anew (`kernel-install add`, or what made it), reboot, and apply again",
                line(self.args)
            ))
        } else {
            Problem::new(format!(
                "{}'s default, `{id}`, is {}",
                self.starter.name(),
                self.maker.foreign(self.folder)
            ))
            .hint(format!(
                "{}; {}",
                self.maker.see(self.starter),
                self.maker.choose(self.starter)
            ))
        }))
    }

    /// What has not the arguments that are confirmed, or has more than it should.
    fn not_spread(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        let digest = args_digest(self.args);
        for entry in self.of_this_system(look)? {
            if args_in(self.starter.entry(), &entry.text).as_ref() != Some(&digest) {
                let args = line(self.args);
                return Ok(Some(format!("`{}` boots without `{args}`", entry.path)));
            }
        }
        let left = self.trials(look);
        Ok(left
            .first()
            .map(|name| format!("`{}/{name}` is still there", self.folder)))
    }

    /// What the entry on trial lacks.
    fn not_ready(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        let path = self.trial_path();
        let Some(text) = text(look, &path)? else {
            return Ok(Some(format!("`{path}` is not there")));
        };
        if !text.ends_with(&trial_options(self.args)) {
            return Ok(Some(format!("`{path}` has other content")));
        }
        let root = self.folder.strip_suffix("/loader/entries").unwrap_or("");
        let kernel = entry_value(&text, "linux").unwrap_or_default();
        let kernels = self.starter.kernels(root, kernel);
        if !kernels.iter().any(|path| look.machine.root().exists(path)) {
            let kernel = kernels.first().map_or(kernel, String::as_str);
            return Ok(Some(format!(
                "`{path}` boots `{kernel}`, which is not there"
            )));
        }
        let others = self.trials(look).len() > 1;
        if others {
            return Ok(Some(format!("`{}` has an older trial, too", self.folder)));
        }
        self.maker.not_ready(look)
    }

    fn trial_path(&self) -> String {
        format!(
            "{}/{}",
            self.folder,
            trial_entry_name(self.starter.entry(), &args_digest(self.args))
        )
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        let confirmed = self.confirmed(look)? == Some(args_digest(self.args));
        let lacking = if confirmed {
            self.not_spread(look)?
        } else {
            self.not_ready(look)?
        };
        Ok(lacking.map_or(Observation::Held, Observation::different))
    }

    /// What the maker's own file was, and GRUB's wish.
    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        let base = match self.base(look)? {
            Booted::Entry(entry) => Some(entry),
            Booted::Other(_) | Booted::Unknown => None,
        };
        self.maker.before(look, self.starter, base.as_ref())
    }

    /// Takes away what a write that was cut short left beside the files that we write.
    fn tidy(&self, site: &Site<'_>) -> Result<(), HostError> {
        let kernel = Path::new(KERNEL_CMDLINE).parent();
        let folders = [
            (Path::new(self.folder), "."),
            (kernel.unwrap_or(Path::new("/")), ".cmdline."),
        ];
        for (folder, prefix) in folders {
            let names = site.machine.root().list(folder).unwrap_or_default();
            let is_left =
                |name: &&String| name.starts_with(prefix) && name.ends_with(".bmslice-new");
            for name in names.iter().filter(is_left) {
                site.machine.remove(&folder.join(name))?;
            }
        }
        Ok(())
    }

    fn remove_trials(&self, site: &Site<'_>, except: Option<&str>) -> Result<(), HostError> {
        for name in self.trials(&site.look()) {
            if Some(&*name) != except {
                let path = format!("{}/{name}", self.folder);
                site.machine.remove(Path::new(&path))?;
            }
        }
        Ok(())
    }

    /// Nothing of ours is to boot next.
    pub fn disarm(&self, site: &Site<'_>) -> Result<(), HostError> {
        if self.tried(&site.look())?.is_some() {
            self.starter.disarm(site)?;
        }
        Ok(())
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        self.disarm(site)?;
        if self.confirmed(&site.look())? == Some(args_digest(self.args)) {
            return self.confirm(site);
        }
        let base = match self.base(&site.look())? {
            Booted::Entry(base) => base,
            Booted::Other(_) | Booted::Unknown => {
                return Err(StepError::cannot(
                    format!(
                        "no entry of this system is the default in `{}`",
                        self.folder
                    ),
                    self.maker.see(self.starter),
                ));
            }
        };
        self.maker.prepare(site, self.starter, &base)?;
        let name = trial_entry_name(self.starter.entry(), &args_digest(self.args));
        self.remove_trials(site, Some(&name))?;
        let text = trial_entry(self.starter.entry(), &base.text, self.args);
        site.machine
            .install(Path::new(&self.trial_path()), text.as_bytes(), 0o644)?;
        // It sorts last, and whoever wrote a pattern for the default may have met it all the same.
        let name = self.starter.name();
        match self.default(&site.look())? {
            Some(id) if trial_entry_digest(&id).is_none() => match self.not_ready(&site.look())? {
                None => Ok(()),
                Some(got) => Err(StepError::NotEffective { got }),
            },
            found => {
                self.remove_trials(site, None)?;
                Err(StepError::cannot(
                    match found {
                        Some(id) => {
                            format!("{name} would boot `{id}` by default, and not only once")
                        }
                        None => format!("{name} would boot no entry by default"),
                    },
                    self.maker.choose(self.starter),
                ))
            }
        }
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        self.disarm(site)?;
        self.tidy(site)?;
        for entry in self.all(&site.look())? {
            let text = without_args(self.starter.entry(), &entry.text);
            rewrite(site, &entry.path, &entry.text, &text)?;
        }
        self.remove_trials(site, None)?;
        let next_entry = match before {
            Before::KernelCmdline { next_entry, .. } | Before::NextEntry { next_entry } => {
                next_entry.as_deref()
            }
            _ => None,
        };
        self.starter.settle(site, next_entry)?;
        self.maker.undo(site, self.starter, before)
    }

    /// The digest of what the next boot tries.
    pub fn tried(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        let armed = self.starter.armed(look)?;
        Ok(armed.and_then(|id| trial_entry_digest(&id).map(str::to_owned)))
    }

    /// The digest of what is kept, by the text that gets it last: kernel-install's, or where there
    /// is none the default's entry.
    pub fn confirmed(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        match self.maker {
            Maker::KernelInstall => kernel_install::confirmed(look, self.starter.cmdline()),
            Maker::Ostree => {
                let Some(name) = self.default(look)? else {
                    return Ok(None);
                };
                let entry = text(look, &format!("{}/{name}", self.folder))?;
                Ok(entry.and_then(|text| args_in(self.starter.entry(), &text)))
            }
        }
    }

    /// Why arguments that are still to be tried were not.
    pub fn untried(&self) -> String {
        self.starter.untried()
    }

    /// Why arguments that are no longer to be tried were not, if it shows.
    pub fn lost(&self, look: &Look<'_>) -> Option<String> {
        let path = self.trial_path();
        let is_there = look.machine.root().exists(&path);
        (!is_there).then(|| format!("its entry `{path}` was gone{}", self.maker.whodunit()))
    }

    /// What would boot without the arguments that were just confirmed.
    pub fn passed_over(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        self.maker.passed_over(look, self.args)
    }

    pub fn arm(&self, site: &Site<'_>) -> Result<(), StepError> {
        self.maker.may_arm(&site.look())?;
        let name = trial_entry_name(self.starter.entry(), &args_digest(self.args));
        self.starter.arm(site, &name)
    }

    /// Each entry of this system gets the arguments, and then kernels to come; the entry on trial,
    /// which boots also when a power cut tears another, is the last to go.
    pub fn confirm(&self, site: &Site<'_>) -> Result<(), StepError> {
        let digest = Some(args_digest(self.args));
        let entries = self.of_this_system(&site.look())?;
        let Some(first) = entries.first() else {
            return Err(StepError::cannot(
                format!("no entry in `{}` boots this system", self.folder),
                format!(
                    "{}, and whether that file system is mounted",
                    self.maker.see(self.starter)
                ),
            ));
        };
        for entry in &entries {
            if args_in(self.starter.entry(), &entry.text) != digest {
                let text = with_args(self.starter.entry(), &entry.text, self.args);
                rewrite(site, &entry.path, &entry.text, &text)?;
            }
        }
        self.maker.keep(site, self.starter, first, self.args)?;
        Ok(self.remove_trials(site, None)?)
    }
}
