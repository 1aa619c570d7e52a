//! The network that the lab lives in: a namespace of its own, named after the state folder. Taps,
//! switch and server are in it, so that no interface, port or route of this machine is touched, two
//! labs do not meet, and whatever a killed lab left goes when its namespace goes.

use std::path::PathBuf;
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::run::{Process, RunError, command, read, run};
use crate::state::State;

/// One lab's namespace, there or not.
pub struct Network {
    name: String,
}

impl Network {
    pub fn of(state: &State) -> Self {
        let digest = Sha256::digest(state.folder.as_os_str().as_encoded_bytes());
        let digits: String = digest[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            name: format!("bmslice-lab-{digits}"),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where `ip netns` keeps it.
    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A program that runs inside. `nsenter` becomes the program, so its pid is the program's.
    pub fn command(&self, program: &str) -> Command {
        let mut inside = command("nsenter", [format!("--net={}", self.path().display())]);
        inside.args(["--", program]);
        inside
    }

    /// Makes it anew, with a loopback.
    pub fn make(&self) -> Result<(), RunError> {
        self.remove()?;
        run(&mut command("ip", ["netns", "add", &self.name]))?;
        self.ip(&["link", "set", "lo", "up"])
    }

    /// `ip` on what is inside.
    pub fn ip(&self, arguments: &[&str]) -> Result<(), RunError> {
        run(command("ip", ["-n", &self.name]).args(arguments)).map(drop)
    }

    /// Ends whatever still runs inside, which only a lab starts there, and takes it away with its
    /// interfaces.
    pub fn remove(&self) -> Result<(), RunError> {
        if !self.path().exists() {
            return Ok(());
        }
        let inside = read(&mut command("ip", ["netns", "pids", &self.name]))?;
        inside
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .filter_map(Process::find)
            .for_each(|process| process.end());
        run(&mut command("ip", ["netns", "delete", &self.name])).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_name_and_two_folders_have_two() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [first, second] = [0, 1].map(|index| State::open(folders[index].path()).unwrap());
        assert_eq!(Network::of(&first).name(), Network::of(&first).name());
        assert_ne!(Network::of(&first).name(), Network::of(&second).name());
        let command = Network::of(&first).command("true");
        let words: Vec<_> = command.get_args().collect();
        assert_eq!(words[1..], ["--", "true"]);
    }
}
