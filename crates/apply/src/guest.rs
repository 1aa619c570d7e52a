//! What is set up inside a guest, and the one secret in it.
//!
//! A step is journalled, so it never holds a password's hash: where one belongs, its texts hold
//! [`PLACE`]. The hash is read from the user's file at the moment of acting, and goes into a file of
//! mode 0600 that becomes part of the guest.

use bmslice_model::SliceName;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::site::Look;

/// Stands for a password's hash in a rendered text. No crypt(5) hash looks like it, and it needs no
/// quoting in YAML or in a shell.
pub const PLACE: &str = "@bmslice-password-hash@";

/// No crypt(5) hash is longer.
const LONGEST: u64 = 512;

/// A password's hash in a file on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HashFile(pub String);

impl HashFile {
    /// Why the file cannot be used. Never quotes what is in it.
    pub fn problem(&self, look: &Look<'_>, slice: &SliceName) -> Option<Problem> {
        self.read(look).err().map(|why| {
            Problem::new(format!(
                "the password hash of `{slice}` in `{}` cannot be used: {why}",
                self.0
            ))
            .hint("write one with `mkpasswd -m yescrypt` or `openssl passwd -6`, readable by root alone")
        })
    }

    fn read(&self, look: &Look<'_>) -> Result<String, String> {
        let bytes = look
            .machine
            .root()
            .read_head(&self.0, LONGEST + 2)
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
        let hash = text.trim_end_matches(['\n', '\r']);
        if is_crypt(hash) {
            Ok(hash.to_owned())
        } else {
            Err("it does not hold one crypt(5) hash, such as begins with `$y$` or `$6$`".into())
        }
    }

    /// The hash.
    pub fn take(&self, look: &Look<'_>, slice: &SliceName) -> Result<String, StepError> {
        self.read(look)
            .map_err(|_| match self.problem(look, slice) {
                Some(problem) => StepError::Cannot {
                    what: problem.text,
                    hint: problem.hint,
                },
                None => StepError::Cannot {
                    what: format!("`{}` changed while it was read", self.0),
                    hint: None,
                },
            })
    }
}

/// `$id$…` with the characters of crypt(5) alone: what passes cannot break out of a text.
fn is_crypt(hash: &str) -> bool {
    let mut parts = hash.split('$');
    let known = ["1", "2a", "2b", "2y", "5", "6", "7", "gy", "y"];
    hash.len() as u64 <= LONGEST
        && parts.next() == Some("")
        && parts.next().is_some_and(|id| known.contains(&id))
        && parts.next().is_some_and(|salt| !salt.is_empty())
        && hash
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "./$,=-".contains(c))
}

/// The texts of a NoCloud seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seed {
    /// `user-data`, with [`PLACE`] for the hash.
    pub user_data: String,
    /// `meta-data`.
    pub meta_data: String,
    /// `network-config`, if any card is configured.
    pub network_config: Option<String>,
    /// Where the hash is.
    pub hash: Option<HashFile>,
}

impl Seed {
    /// What cloud-init calls the texts.
    pub const NAMES: [&'static str; 3] = ["user-data", "meta-data", "network-config"];

    pub fn precondition(&self, look: &Look<'_>, slice: &SliceName) -> Option<Problem> {
        self.hash.as_ref()?.problem(look, slice)
    }

    /// The texts with the hash in them.
    pub fn files(
        &self,
        look: &Look<'_>,
        slice: &SliceName,
    ) -> Result<Vec<(&'static str, String)>, StepError> {
        let user_data = match &self.hash {
            Some(file) => self.user_data.replace(PLACE, &file.take(look, slice)?),
            None => self.user_data.clone(),
        };
        let [user, meta, network] = Self::NAMES;
        let mut files = vec![(user, user_data), (meta, self.meta_data.clone())];
        files.extend(
            self.network_config
                .as_ref()
                .map(|text| (network, text.clone())),
        );
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crypt_hashes_pass() {
        for good in [
            "$6$rounds=5000$saltsalt$dGVzdA./x",
            "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
            "$2b$12$abcdefghijklmnopqrstuv",
            "$1$salt$hash",
        ] {
            assert!(is_crypt(good), "{good}");
        }
        for bad in [
            "",
            "secret",
            "$6$",
            "$6$salt$hash\nroot",
            "$6$salt$ha sh",
            "$6$salt$\"; rm",
            "$3$salt$hash",
            PLACE,
        ] {
            assert!(!is_crypt(bad), "{bad}");
        }
    }
}
