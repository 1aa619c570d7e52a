//! cloud-init's NoCloud seed: an ISO 9660 image with the volume id `cidata`
//! (cloudinit.readthedocs.io, datasources/nocloud).

use std::path::Path;

use bmslice_host::{Command, HostError};
use bmslice_model::SliceName;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::guest::Seed;
use crate::paths::STAGING;
use crate::site::{Licence, Look, Site};
use crate::step::{Observation, Step};

/// Makes a slice's seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSeed {
    /// Whose.
    pub slice: SliceName,
    /// Where.
    pub path: String,
    /// What is in it, but for the password's hash.
    pub seed: Seed,
}

impl BuildSeed {
    fn part(&self) -> String {
        format!("{}.part", self.path)
    }

    fn staging(&self, name: &str) -> String {
        format!("{STAGING}/seed-{}-{name}", self.slice)
    }

    pub fn describe(&self) -> String {
        format!("make the cloud-init seed `{}`", self.path)
    }

    pub fn describe_undo(&self, licence: Licence) -> String {
        if licence.delete_images {
            format!("delete the seed `{}`", self.path)
        } else {
            format!("leave the seed `{}`", self.path)
        }
    }

    pub fn precondition(&self, look: &Look<'_>) -> Result<Vec<Problem>, HostError> {
        let mut problems = Vec::new();
        let makers = ["genisoimage", "xorriso"];
        if !makers
            .iter()
            .any(|program| look.machine.has_program(program))
        {
            problems.push(
                Problem::server_lacks(format!(
                    "the seed of `{}` is made with `genisoimage` or `xorriso`, and neither is here",
                    self.slice
                ))
                .hint("`apt install genisoimage`"),
            );
        }
        problems.extend(self.seed.precondition(look, &self.slice));
        Ok(problems)
    }

    pub fn observe(&self, look: &Look<'_>) -> Observation {
        if !look.machine.root().exists(&self.path) {
            return Observation::NotHeld;
        }
        let staged = |name: &&str| look.machine.root().exists(self.staging(name));
        if let Some(name) = Seed::NAMES.iter().find(|name| staged(name)) {
            // An interrupted run left a text that may hold a secret.
            return Observation::different(format!("`{}` is left over", self.staging(name)));
        }
        match look
            .ledger
            .done(&format!("seed {}", self.path))
            .map(|entry| &entry.step)
        {
            Some(Step::BuildSeed(made)) if made.seed != self.seed => {
                Observation::different(format!("`{}` was made from an older plan", self.path))
            }
            // One that we did not make is used as it is, as a disk is.
            Some(_) | None => Observation::Held,
        }
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        let files = self.seed.files(&site.look(), &self.slice)?;
        let made = self.make(&files, site);
        if let Err(error) = &made
            && error.is_gone()
        {
            return made;
        }
        // Whatever happened, a secret does not stay beside its place.
        for (name, _) in &files {
            site.machine.remove(Path::new(&self.staging(name)))?;
        }
        if made.is_err() {
            site.machine.remove(Path::new(&self.part()))?;
        }
        made
    }

    fn make(&self, files: &[(&'static str, String)], site: &Site<'_>) -> Result<(), StepError> {
        let part = self.part();
        if let Some(folder) = Path::new(&self.path).parent() {
            site.machine.create_dir(folder, 0o711)?;
        }
        // 0600 before anything is in it; the tool writes into the file that is there.
        site.machine.install(Path::new(&part), b"", 0o600)?;
        let mut args: Vec<String> = ["-output", &part, "-volid", "cidata", "-joliet", "-rock"]
            .map(str::to_owned)
            .to_vec();
        args.push("-quiet".into());
        args.push("-graft-points".into());
        for (name, text) in files {
            let staged = self.staging(name);
            site.machine
                .install(Path::new(&staged), text.as_bytes(), 0o600)?;
            args.push(format!("{name}={staged}"));
        }
        let command = if site.machine.has_program("genisoimage") {
            Command::new("genisoimage", args)
        } else {
            let front = ["-as", "mkisofs"].map(str::to_owned);
            Command::new("xorriso", front.into_iter().chain(args))
        };
        site.machine.run(&command)?;
        site.machine.sync(Path::new(&part))?;
        site.machine
            .rename(Path::new(&part), Path::new(&self.path))?;
        Ok(())
    }

    pub fn undo(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        for name in Seed::NAMES {
            site.machine.remove(Path::new(&self.staging(name)))?;
        }
        site.machine.remove(Path::new(&self.part()))?;
        if site.licence.delete_images {
            site.machine.remove(Path::new(&self.path))?;
        }
        Ok(())
    }
}
