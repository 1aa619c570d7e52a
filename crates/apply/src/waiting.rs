//! Which guests are waited for at this moment, for `status` to tell one that is still booting from one
//! that did not come up.
//!
//! Whoever waits writes a file below `/run`, named after its process, with the time until which it
//! waits for each; takes it away when it is done. Keeps true: nobody is told to be waited for by a
//! process that has ended, however it ended: a process is known by its number *and* by when it
//! started (`starttime`, proc_pid_stat(5)).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bmslice_host::{HostError, Machine, Root};
use bmslice_model::SliceName;
use serde::{Deserialize, Serialize};

/// A file for each process that waits.
const FOLDER: &str = "/run/bmslice/waiting";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// Clock ticks after the boot at which the process started.
    started: u64,
    /// Until when each is waited for, in seconds since 1970.
    until: BTreeMap<SliceName, u64>,
}

/// Number and start of a process, as the kernel tells of it.
fn process(root: &Root, name: &str) -> Option<(u32, u64)> {
    let stat = root.read_text(format!("/proc/{name}/stat")).ok()?;
    let pid = stat.split(' ').next()?.parse().ok()?;
    // The command may hold anything, a `)` too; the fields after it are numbers. The 22nd is the start.
    let (_, fields) = stat.rsplit_once(')')?;
    Some((pid, fields.split_whitespace().nth(19)?.parse().ok()?))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Says that this process waits; gives the file that [`end`] takes away, and none where the kernel does
/// not tell which process this is.
pub fn begin(
    machine: &dyn Machine,
    guests: impl Iterator<Item = (SliceName, Duration)>,
) -> Result<Option<String>, HostError> {
    let Some((pid, started)) = process(machine.root(), "self") else {
        return Ok(None);
    };
    let now = machine.now();
    let until = guests.map(|(name, time)| (name, seconds(now + time)));
    let record = Record {
        started,
        until: until.collect(),
    };
    let path = format!("{FOLDER}/{pid}");
    let text = serde_json::to_string(&record).unwrap_or_default();
    machine.install(path.as_ref(), text.as_bytes(), 0o644)?;
    Ok(Some(path))
}

/// Says that nobody waits any more.
pub fn end(machine: &dyn Machine, path: &str) -> Result<(), HostError> {
    machine.remove(path.as_ref())
}

/// The guests that a living process waits for, and the seconds that it goes on waiting at most.
pub fn now(machine: &dyn Machine) -> BTreeMap<SliceName, u64> {
    let root = machine.root();
    let now = seconds(machine.now());
    let mut left = BTreeMap::new();
    for name in root.list(FOLDER).unwrap_or_default() {
        let text = root.read_text(format!("{FOLDER}/{name}"));
        let Some(record) = text
            .ok()
            .and_then(|text| serde_json::from_str::<Record>(&text).ok())
        else {
            continue;
        };
        let lives = process(root, &name).is_some_and(|(_, started)| started == record.started);
        for (slice, until) in record.until.into_iter().filter(|_| lives) {
            if let Some(more) = until.checked_sub(now).filter(|more| *more > 0) {
                let most = left.entry(slice).or_insert(more);
                *most = more.max(*most);
            }
        }
    }
    left
}
