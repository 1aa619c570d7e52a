//! Keys made on the spot, and ssh to the server. The public key and the server's host key reach it
//! as systemd credentials through QEMU's fw_cfg, so the image holds neither.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::network::Network;
use crate::qemu::SSH_PORT;
use crate::run::{Process, RunError, command, run};
use crate::state::State;

#[derive(Debug, thiserror::Error)]
pub enum SshError {
    #[error("the key folder `{path}` could not be used")]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the server is down; `bmslice-lab start` boots it")]
    Down,
    #[error(
        "the server did not answer by ssh within {0} s; `bmslice-lab console` shows how far it came"
    )]
    NoAnswer(u64),
    #[error("QEMU ended while the server booted; see `{0}`")]
    Ended(PathBuf),
    #[error(transparent)]
    Run(#[from] RunError),
}

/// The name under which the server's host key is known.
const HOST: &str = "bmserver";

/// Makes both key pairs unless they are there.
pub fn ensure_keys(state: &State) -> Result<(), SshError> {
    let folder = state.path("keys");
    let bad = |source| SshError::Folder {
        path: folder.clone(),
        source,
    };
    fs::create_dir_all(&folder).map_err(bad)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(bad)?;
    for (name, comment) in [("client", "bmslice-lab"), ("host", HOST)] {
        if !folder.join(name).exists() {
            run(command(
                "ssh-keygen",
                ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"],
            )
            .arg(folder.join(name)))?;
        }
    }
    let public = fs::read_to_string(folder.join("host.pub")).map_err(bad)?;
    fs::write(folder.join("known_hosts"), format!("{HOST} {public}")).map_err(bad)
}

fn options(state: &State) -> Vec<String> {
    let keys = state.path("keys");
    [
        format!("UserKnownHostsFile={}", keys.join("known_hosts").display()),
        format!("IdentityFile={}", keys.join("client").display()),
        format!("HostKeyAlias={HOST}"),
        "IdentitiesOnly=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "LogLevel=ERROR".to_owned(),
        "ConnectTimeout=10".to_owned(),
        "ServerAliveInterval=10".to_owned(),
    ]
    .into_iter()
    .flat_map(|option| ["-o".to_owned(), option])
    .collect()
}

/// A client that runs where the server listens.
fn client(state: &State, program: &str) -> Result<Command, SshError> {
    state.qemu().ok_or(SshError::Down)?;
    let mut client = Network::of(state).command(program);
    client
        .args(["-F", "none", "-o", &format!("Port={SSH_PORT}")])
        .args(options(state));
    Ok(client)
}

/// `ssh` with everything but the remote command.
pub fn ssh(state: &State) -> Result<Command, SshError> {
    let mut ssh = client(state, "ssh")?;
    ssh.arg("root@127.0.0.1");
    Ok(ssh)
}

/// `scp` from here to there.
pub fn push(state: &State, from: &str, to: &str) -> Result<Command, SshError> {
    let mut scp = client(state, "scp")?;
    scp.args(["-q", "-r", "-p", "--", from])
        .arg(format!("root@127.0.0.1:{to}"));
    Ok(scp)
}

/// Waits until a login works; calls `tell` with the seconds so far, every ten.
pub fn wait(
    state: &State,
    qemu: &Process,
    limit: Duration,
    tell: impl Fn(u64),
) -> Result<(), SshError> {
    let start = Instant::now();
    let mut told = 0;
    loop {
        let mut probe = ssh(state)?;
        probe.args(["-o", "ConnectTimeout=5", "-o", "BatchMode=yes", "true"]);
        probe
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if probe.status().is_ok_and(|status| status.success()) {
            return Ok(());
        }
        if !qemu.alive() {
            return Err(SshError::Ended(state.path("qemu.log")));
        }
        let seconds = start.elapsed().as_secs();
        if seconds >= limit.as_secs() {
            return Err(SshError::NoAnswer(seconds));
        }
        if seconds >= told + 10 {
            told = seconds;
            tell(seconds);
        }
        std::thread::sleep(Duration::from_millis(700));
    }
}
