//! Kernel arguments: written for the next boot, and in force in this one.

use std::path::Path;

use bmslice_host::{Command, HostError};
use bmslice_model::{ByteSize, CpuSet, KernelArg, KernelCmdline, NumaNodeId};
use bmslice_render::{
    GRUB_SCRIPT, GRUB_VARIABLE, GrubEnv, GrubScript, grub_can_carry, grub_digest,
};
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::{Before, Observation};
use crate::steps::files::{file_before, observe_file, restore_file};
use crate::steps::memory::pool;
use crate::steps::trial::{env_path, read_env, why_read_only};

/// Gives GRUB our kernel arguments, and reads back what its generator made of them: a drop-in of our
/// own adds a variable to each entry, a script of our own has GRUB fill it in, and a block of our own
/// says with what (ADR 0008). As long as that says nothing, GRUB boots as before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootArguments {
    /// Our drop-in: `/etc/default/grub.d/90-bmslice.cfg`.
    pub drop_in: String,
    /// Its content.
    pub content: String,
    /// What GRUB's generator writes: `/boot/grub/grub.cfg`.
    pub config: String,
    /// The arguments that every Linux entry of it gets once they are tried or confirmed.
    pub args: Vec<KernelArg>,
}

/// Programs that write GRUB's configuration: Debian's takes no argument, the others the file.
const GENERATORS: [&str; 3] = ["update-grub", "grub-mkconfig", "grub2-mkconfig"];

/// Whether a second, different argument of that name in the user's own files would not add to ours
/// but fight it. Page sizes come in pairs, of which none is the other's.
fn is_exclusive(arg: &KernelArg) -> bool {
    !arg.may_repeat() || arg.is("hugepages") || arg.is("hugepagesz")
}

impl BootArguments {
    fn line(&self) -> String {
        let args: Vec<&str> = self.args.iter().map(KernelArg::as_str).collect();
        args.join(" ")
    }

    pub fn describe(&self) -> String {
        format!(
            "give GRUB the kernel arguments `{}` by `{}`",
            self.line(),
            self.drop_in
        )
    }

    pub fn describe_undo(&self) -> String {
        format!(
            "take the kernel arguments of `{}` away from GRUB",
            self.drop_in
        )
    }

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
        let folder = Path::new(&self.drop_in)
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
                .filter(|path| *path != self.drop_in),
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
                let theirs: KernelCmdline = words
                    .split_whitespace()
                    .filter_map(|word| word.parse::<KernelArg>().ok())
                    .collect();
                let mut seen: Vec<&str> = Vec::new();
                for ours in self.args.iter().filter(|arg| is_exclusive(arg)) {
                    let key = ours.key();
                    let Some(theirs) = theirs.last(key) else {
                        continue;
                    };
                    if seen.contains(&key) || self.args.contains(theirs) {
                        continue;
                    }
                    seen.push(key);
                    problems.push(
                        Problem::new(format!(
                            "the plan sets the kernel argument `{key}`, and line {} of `{path}` has `{theirs}`",
                            number + 1
                        ))
                        .hint(format!("take `{theirs}` out of `{path}`: the plan's own argument replaces it")),
                    );
                }
            }
        }
        Ok(problems)
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        match observe_file(look, &self.drop_in, &self.content, 0o644)? {
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
        why_read_only(look, &self.config).is_none()
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
        let env = env_path(&self.config);
        if read_env(look, &env)?.is_none() {
            return Ok(Some(format!(
                "`{env}` is not there, or is no block of GRUB's"
            )));
        }
        let Some(bytes) = look.file(&self.config)? else {
            return Ok(Some(format!("`{}` is not there", self.config)));
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut entries = 0;
        for (number, line) in linux_entries(&text) {
            entries += 1;
            if !line.contains(&GRUB_VARIABLE) {
                return Ok(Some(format!(
                    "line {} of `{}` boots Linux without `{GRUB_VARIABLE}`, which stands for `{}`",
                    number + 1,
                    self.config,
                    self.line()
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
                self.line()
            )
        }))
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        file_before(look, &self.drop_in)
    }

    fn generate(&self, site: &Site<'_>) -> Result<(), HostError> {
        let found = GENERATORS
            .iter()
            .find(|program| site.machine.has_program(program));
        let command = match found {
            None | Some(&"update-grub") => Command::new("update-grub", [""; 0]),
            Some(program) => Command::new(program, ["-o", &self.config]),
        };
        site.machine.run(&command).map(drop)
    }

    /// The script with our arguments, and those that are confirmed to go back to.
    fn wanted(&self, look: &Look<'_>) -> Result<GrubScript, HostError> {
        let env = read_env(look, &env_path(&self.config))?.unwrap_or_default();
        let known = Self::script(look)?;
        let known = known
            .into_iter()
            .flat_map(|s| [Some(s.args), s.before])
            .flatten();
        let confirmed = |args: &Vec<KernelArg>| Some(grub_digest(args)) == env.confirmed;
        Ok(GrubScript {
            args: self.args.clone(),
            before: known.filter(|args| *args != self.args).find(confirmed),
            one_shot: self.one_shot(look),
        })
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        let before = site
            .ledger
            .get("boot arguments")
            .map_or(Before::Nothing, |entry| entry.before.clone());
        let script_before = file_before(&site.look(), GRUB_SCRIPT)?;
        let script = self.wanted(&site.look())?;
        let env = env_path(&self.config);
        if let Some(why) = why_read_only(&site.look(), &self.config) {
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
                .install(Path::new(&self.drop_in), self.content.as_bytes(), 0o644)?;
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
        let back = restore_file(site.machine, &self.drop_in, &before)
            .and_then(|()| restore_file(site.machine, GRUB_SCRIPT, &script_before))
            .and_then(|()| self.generate(site));
        match back {
            Ok(()) => site.note(format!("`{}` was taken back", self.drop_in)),
            Err(also) => site.note(format!(
                "`{}` could not be taken back either: {also}",
                self.drop_in
            )),
        }
        Err(error)
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        restore_file(site.machine, &self.drop_in, before)?;
        site.machine.remove(Path::new(GRUB_SCRIPT))?;
        self.generate(site)?;
        // Last: without it a `grub.cfg` of ours boots as before.
        site.machine.remove(Path::new(&env_path(&self.config)))?;
        let running = running_args(&site.look());
        if self.args.iter().any(|arg| running.contains(arg)) {
            site.note("the running kernel keeps its arguments until the next reboot");
        }
        Ok(())
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

/// The arguments of the running kernel.
pub fn running_args(look: &Look<'_>) -> KernelCmdline {
    look.machine
        .root()
        .attribute("/proc/cmdline")
        .and_then(|line| line.parse().ok())
        .unwrap_or_default()
}

/// Which boot of the host this is: random(4).
pub fn boot_id(look: &Look<'_>) -> String {
    look.machine
        .root()
        .attribute("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
}

/// Huge pages that the boot arguments ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPages {
    /// Where.
    pub node: NumaNodeId,
    /// Page size.
    pub size: ByteSize,
    /// How many.
    pub count: u64,
}

/// Boots the host, so that the kernel arguments are in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reboot {
    /// Arguments that the running kernel must have.
    pub args: Vec<KernelArg>,
    /// What `/sys/devices/system/cpu/isolated` must say, when the arguments isolate.
    pub isolated: Option<CpuSet>,
    /// Huge pages that must be there.
    pub huge_pages: Vec<BootPages>,
}

impl Reboot {
    pub fn describe(&self) -> String {
        "reboot the host, so that its kernel arguments are in force".into()
    }

    /// What the running kernel lacks, each as a clause.
    pub fn lacking(&self, look: &Look<'_>) -> Vec<String> {
        let mut lacking = Vec::new();
        let running = running_args(look);
        let missing: Vec<&str> = self
            .args
            .iter()
            // `last` would hide a repeated `hugepagesz=` that is there.
            .filter(|arg| !running.contains(arg))
            .map(KernelArg::as_str)
            .collect();
        if !missing.is_empty() {
            lacking.push(format!("the running kernel has no `{}`", missing.join(" ")));
            // What follows from them need not be said too.
            return lacking;
        }
        if let Some(want) = &self.isolated {
            let path = "/sys/devices/system/cpu/isolated";
            let text = look.machine.root().attribute(path).unwrap_or_default();
            let got: Option<CpuSet> = text.parse().ok();
            let is_empty = text.is_empty();
            if got.as_ref() != Some(want) && !(is_empty && want.is_empty()) {
                lacking.push(format!(
                    "CPUs {} are isolated, not {want}",
                    if is_empty { "none" } else { &text }
                ));
            }
        }
        for pages in &self.huge_pages {
            let got = look
                .number(&format!("{}/nr_hugepages", pool(pages.node, pages.size)))
                .unwrap_or(0);
            if got < pages.count {
                lacking.push(format!(
                    "node {} has {got} huge pages of {}, not {}",
                    pages.node, pages.size, pages.count
                ));
            }
        }
        lacking
    }

    pub fn observe(&self, look: &Look<'_>) -> Observation {
        let lacking = self.lacking(look);
        if lacking.is_empty() {
            Observation::Held
        } else {
            Observation::different(lacking.join("; "))
        }
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        site.run("systemctl", ["reboot"])?;
        Ok(())
    }
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
