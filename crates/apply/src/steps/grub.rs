//! GRUB as the keeper of kernel arguments: a drop-in, a script and an environment block of our own.
//!
//! ADR 0008 has the states. Takes where `grub.cfg` is and the arguments; gives each half of
//! [`BootArguments`](super::boot::BootArguments) and of the trial that concerns GRUB. Keeps true: as
//! long as the block says nothing, GRUB boots as before.

use std::path::Path;

use bmslice_host::{Command, HostError};
use bmslice_inventory::grub_cannot_write;
use bmslice_model::KernelArg;
use bmslice_render::{
    GRUB_DROP_IN, GRUB_ENV, GRUB_SCRIPT, GRUB_VARIABLE, GrubEnv, GrubScript, args_digest,
    grub_can_carry, grub_drop_in,
};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::{Before, Observation};
use crate::steps::boot::{KEY, conflicts, line};
use crate::steps::files::{file_before, observe_file, restore_file};

/// Programs that write GRUB's configuration: Debian's takes no argument, the others the file.
const GENERATORS: [&str; 3] = ["update-grub", "grub-mkconfig", "grub2-mkconfig"];

/// GRUB, and what it is to boot with.
#[derive(Debug, Clone, Copy)]
pub struct Grub<'a> {
    /// What GRUB's generator writes: `/boot/grub/grub.cfg`.
    pub config: &'a str,
    /// The arguments that every Linux entry of it gets once they are tried or confirmed.
    pub args: &'a [KernelArg],
}

impl Grub<'_> {
    pub fn precondition(&self, look: &Look<'_>) -> Result<Vec<Problem>, HostError> {
        let mut problems = Vec::new();
        if !GENERATORS
            .iter()
            .any(|program| look.machine.has_program(program))
        {
            problems.push(
                Problem::new(
                    "the plan has kernel arguments for GRUB, and there is no `update-grub` here",
                )
                .hint("`apt install grub2-common`"),
            );
        }
        for arg in self.args.iter().filter(|arg| !grub_can_carry(arg)) {
            problems.push(
                Problem::new(format!(
                    "GRUB would change the kernel argument `{arg}` on its way to the kernel"
                ))
                .hint("leave it out of the plan, or write it without quotes, `$` and wildcards"),
            );
        }
        problems.extend(self.conflicts(look)?);
        Ok(problems)
    }

    /// Arguments in the user's own GRUB files that would fight ours.
    fn conflicts(&self, look: &Look<'_>) -> Result<Vec<Problem>, HostError> {
        let folder = Path::new(GRUB_DROP_IN)
            .parent()
            .map_or_else(String::new, |dir| dir.display().to_string());
        let mut files = vec!["/etc/default/grub".to_owned()];
        files.extend(
            look.machine
                .root()
                .list(&folder)
                .unwrap_or_default()
                .into_iter()
                .filter(|name| name.ends_with(".cfg"))
                .map(|name| format!("{folder}/{name}"))
                .filter(|path| *path != GRUB_DROP_IN),
        );
        let mut problems = Vec::new();
        for path in files {
            let Some(bytes) = look.file(&path)? else {
                continue;
            };
            let text = String::from_utf8_lossy(&bytes);
            for (number, line) in text.lines().enumerate() {
                let line = line.trim_start();
                let Some((name, value)) = line.split_once('=') else {
                    continue;
                };
                if !name.starts_with("GRUB_CMDLINE_LINUX") || name.ends_with("_RECOVERY") {
                    continue;
                }
                // The value is shell; its words are what is wanted of it.
                let words = value.replace(['"', '\''], " ");
                let theirs = words
                    .split_whitespace()
                    .filter_map(|word| word.parse::<KernelArg>().ok())
                    .collect();
                problems.extend(conflicts(self.args, &theirs, &path, number + 1));
            }
        }
        Ok(problems)
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        match observe_file(look, GRUB_DROP_IN, &grub_drop_in(), 0o644)? {
            Observation::Held => {}
            seen => return Ok(seen),
        }
        Ok(match self.lacking(look)? {
            None => Observation::Held,
            Some(got) => Observation::different(got),
        })
    }

    /// The script that is there, if it is one of ours.
    fn script(look: &Look<'_>) -> Result<Option<GrubScript>, HostError> {
        let bytes = look.file(GRUB_SCRIPT)?;
        Ok(bytes.and_then(|bytes| GrubScript::parse(&String::from_utf8_lossy(&bytes))))
    }

    /// Whether GRUB strikes what it tries.
    fn one_shot(&self, look: &Look<'_>) -> bool {
        grub_cannot_write(look.machine.root(), self.config).is_none()
    }

    /// What script, block and generated configuration lack.
    fn lacking(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        let script = match Self::script(look)? {
            Some(script) if script.args == self.args && script.one_shot == self.one_shot(look) => {
                script
            }
            Some(_) | None => {
                return Ok(Some(format!(
                    "`{GRUB_SCRIPT}` has other content, or is not there"
                )));
            }
        };
        let mode = look.machine.root().mode(GRUB_SCRIPT).unwrap_or(0);
        if mode & 0o111 == 0 {
            return Ok(Some(format!(
                "`{GRUB_SCRIPT}` cannot be run (mode {mode:04o})"
            )));
        }
        let env = env_path(self.config);
        if read_env(look, &env)?.is_none() {
            return Ok(Some(format!(
                "`{env}` is not there, or is no block of GRUB's"
            )));
        }
        let Some(bytes) = look.file(self.config)? else {
            return Ok(Some(format!("`{}` is not there", self.config)));
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut entries = 0;
        for (number, words) in linux_entries(&text) {
            entries += 1;
            if !words.contains(&GRUB_VARIABLE) {
                return Ok(Some(format!(
                    "line {} of `{}` boots Linux without `{GRUB_VARIABLE}`, which stands for `{}`",
                    number + 1,
                    self.config,
                    line(self.args)
                )));
            }
        }
        if entries == 0 {
            return Ok(Some(format!(
                "`{}` has no entry that boots Linux",
                self.config
            )));
        }
        Ok((!text.contains(&script.block())).then(|| {
            format!(
                "`{}` has not what `{GRUB_SCRIPT}` prints: nothing there stands for `{}`",
                self.config,
                line(self.args)
            )
        }))
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        file_before(look, GRUB_DROP_IN)
    }

    fn generate(&self, site: &Site<'_>) -> Result<(), HostError> {
        let found = GENERATORS
            .iter()
            .find(|program| site.machine.has_program(program));
        let command = match found {
            None | Some(&"update-grub") => Command::new("update-grub", [""; 0]),
            Some(program) => Command::new(program, ["-o", self.config]),
        };
        site.machine.run(&command).map(drop)
    }

    /// The script with our arguments, and those that are confirmed to go back to.
    fn wanted(&self, look: &Look<'_>) -> Result<GrubScript, HostError> {
        let env = read_env(look, &env_path(self.config))?.unwrap_or_default();
        let known = Self::script(look)?;
        let known = known
            .into_iter()
            .flat_map(|s| [Some(s.args), s.before])
            .flatten();
        let confirmed = |args: &Vec<KernelArg>| Some(args_digest(args)) == env.confirmed;
        Ok(GrubScript {
            args: self.args.to_vec(),
            before: known.filter(|args| *args != self.args).find(confirmed),
            one_shot: self.one_shot(look),
        })
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        let before = site
            .ledger
            .get(KEY)
            .map_or(Before::Nothing, |entry| entry.before.clone());
        let script_before = file_before(&site.look(), GRUB_SCRIPT)?;
        let script = self.wanted(&site.look())?;
        let env = env_path(self.config);
        if let Some(why) = grub_cannot_write(site.machine.root(), self.config) {
            site.note(format!(
                "GRUB cannot write `{env}` ({why}): a kernel that panics or hangs before systemd runs would be tried again at each boot, until `e` in GRUB's menu takes `{GRUB_VARIABLE}` out; one that comes up without its management goes back by itself"
            ));
        }
        let written = (|| {
            // Each half of it boots as before: a script without entries that use it, entries whose
            // variable is empty.
            site.machine
                .install(Path::new(GRUB_SCRIPT), script.text().as_bytes(), 0o755)?;
            if read_env(&site.look(), &env)?.is_none() {
                let block = GrubEnv::default().text();
                site.machine
                    .install(Path::new(&env), block.as_bytes(), 0o600)?;
            }
            site.machine
                .install(Path::new(GRUB_DROP_IN), grub_drop_in().as_bytes(), 0o644)?;
            self.generate(site)?;
            match self.lacking(&site.look())? {
                None => Ok(()),
                Some(got) => Err(StepError::NotEffective { got }),
            }
        })();
        let Err(error) = written else { return Ok(()) };
        if error.is_gone() {
            return Err(error);
        }
        // The one place where half an effect could cost the next boot: take it back at once.
        let back = restore_file(site.machine, GRUB_DROP_IN, &before)
            .and_then(|()| restore_file(site.machine, GRUB_SCRIPT, &script_before))
            .and_then(|()| self.generate(site));
        match back {
            Ok(()) => site.note(format!("`{GRUB_DROP_IN}` was taken back")),
            Err(also) => site.note(format!(
                "`{GRUB_DROP_IN}` could not be taken back either: {also}"
            )),
        }
        Err(error)
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        restore_file(site.machine, GRUB_DROP_IN, before)?;
        site.machine.remove(Path::new(GRUB_SCRIPT))?;
        self.generate(site)?;
        // Last: without it a `grub.cfg` of ours boots as before.
        site.machine.remove(Path::new(&env_path(self.config)))?;
        Ok(())
    }

    /// The digest of what the next boot tries.
    pub fn tried(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        Ok(read_env(look, &env_path(self.config))?.and_then(|env| env.tried))
    }

    /// The digest of what is kept.
    pub fn confirmed(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        Ok(read_env(look, &env_path(self.config))?.and_then(|env| env.confirmed))
    }

    /// Why arguments that are still to be tried were not.
    pub fn untried(&self) -> String {
        format!(
            "GRUB did not try them: it booted by another configuration, or could not write `{}`",
            env_path(self.config)
        )
    }

    pub fn arm(&self, site: &Site<'_>) -> Result<(), StepError> {
        let path = env_path(self.config);
        let mut env = read_env(&site.look(), &path)?.unwrap_or_default();
        env.tried = Some(args_digest(self.args));
        Ok(write_env(site, &path, &env)?)
    }

    /// A block that GRUB could not write still says to try: not again.
    pub fn strike(&self, site: &Site<'_>) -> Result<(), HostError> {
        let path = env_path(self.config);
        match read_env(&site.look(), &path)? {
            Some(mut env) if env.tried.is_some() => {
                env.tried = None;
                write_env(site, &path, &env)
            }
            Some(_) | None => Ok(()),
        }
    }

    pub fn confirm(&self, site: &Site<'_>) -> Result<(), StepError> {
        let env = GrubEnv {
            tried: None,
            confirmed: Some(args_digest(self.args)),
        };
        Ok(write_env(site, &env_path(self.config), &env)?)
    }
}

/// The words of each line of grub.cfg that boots this Linux, with its number from 0. Memory testers
/// and the like have no `root=`; other systems on other disks, and what the administrator wrote
/// himself, are not for our variable.
fn linux_entries(config: &str) -> Vec<(usize, Vec<&str>)> {
    const OTHERS: [&str; 3] = ["30_os-prober", "40_custom", "41_custom"];
    let mut entries = Vec::new();
    let mut others = false;
    for (number, line) in config.lines().enumerate() {
        if let Some(script) = line.strip_prefix("### BEGIN ") {
            others = OTHERS.iter().any(|name| script.contains(name));
        }
        let mut words = line.split_whitespace();
        let boots = matches!(words.next(), Some("linux" | "linux16" | "linuxefi"));
        let words: Vec<&str> = words.collect();
        if boots && !others && words.iter().any(|word| word.starts_with("root=")) {
            entries.push((number, words));
        }
    }
    entries
}

/// Where the block is: beside `grub.cfg`.
fn env_path(config: &str) -> String {
    let folder = config.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{GRUB_ENV}")
}

/// What the block says; `None` when it is not there, or is none.
fn read_env(look: &Look<'_>, path: &str) -> Result<Option<GrubEnv>, HostError> {
    let bytes = look.file(path)?;
    Ok(bytes.and_then(|bytes| GrubEnv::parse(&String::from_utf8_lossy(&bytes))))
}

/// Writes the block over in place: renaming a new file over it would need the file system's own
/// log to be written back before GRUB, which does not read that log, sees it.
fn write_env(site: &Site<'_>, path: &str, env: &GrubEnv) -> Result<(), HostError> {
    site.write(path, env.text())?;
    site.machine.sync(Path::new(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_other_systems_are_not_ours() {
        let config = "### BEGIN /etc/grub.d/10_linux ###\n\
            \tlinux\t/boot/vmlinuz root=UUID=1 ro ${bmslice_args}\n\
            ### END /etc/grub.d/10_linux ###\n\
            ### BEGIN /etc/grub.d/20_memtest86+ ###\n\
            \tlinux16\t/boot/memtest86+.bin\n\
            ### BEGIN /etc/grub.d/30_os-prober ###\n\
            \tlinux /vmlinuz root=/dev/sdb1\n\
            ### BEGIN /etc/grub.d/50_late ###\n\
            \tlinuxefi /vmlinuz root=UUID=1\n";
        let entries = linux_entries(config);
        let numbers: Vec<usize> = entries.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 8]);
        assert!(entries[0].1.contains(&"${bmslice_args}"));
    }
}
