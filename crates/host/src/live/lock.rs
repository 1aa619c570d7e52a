//! The lock of one writer per host: flock(2) on a file, which the kernel drops when its holder
//! ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::files;
use crate::machine::{HostError, Lock};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Held while it lives. The file stays: removing it would let two hold two files of one name.
#[derive(Debug)]
pub struct FileLock {
    // Closed on exec, so that no program that was started keeps the lock.
    file: File,
}

impl Drop for FileLock {
    /// Lets go in words: a program that another thread is starting has a copy of the file until
    /// it is executed, and closing ours alone would leave the lock held for that long (flock(2)).
    fn drop(&mut self) {
        // On an error the close that follows lets go.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

impl Lock for FileLock {}

impl FileLock {
    /// Takes the lock, or names the process that holds it once patience has ended.
    pub fn take(path: &Path, patience: Duration) -> Result<Self, HostError> {
        let failed = |source: io::Error| HostError::file("lock", path, source);
        let deadline = Instant::now() + patience;
        let dir = path.parent().unwrap_or(Path::new("/"));
        files::create_dir(dir, 0o755).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(failed)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(failed(error.into())),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(HostError::Locked {
                    holder: holder(&mut file),
                });
            }
            std::thread::sleep(left.min(PAUSE));
        }
        // The number is for people; the lock holds without it.
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        Ok(Self { file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.take(32).read_to_string(&mut text));
    match (read, text.trim()) {
        (Ok(_), pid) if !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()) => pid.into(),
        _ => "?".into(),
    }
}
