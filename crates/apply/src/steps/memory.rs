//! Huge pages per NUMA node (Documentation/admin-guide/mm/hugetlbpage.rst).

use bmslice_host::HostError;
use bmslice_model::{ByteSize, NumaNodeId, SliceName, count};
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::{Before, Observation};

/// Sees to huge pages on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllocateHugePages {
    /// Where.
    pub node: NumaNodeId,
    /// Page size.
    pub size: ByteSize,
    /// How many the slices need there.
    pub count: u64,
    /// Whether the boot arguments ask for them.
    pub at_boot: bool,
    /// Who needs how many.
    pub users: Vec<PageUser>,
}

/// Who needs huge pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageUser {
    /// Which slice.
    pub slice: SliceName,
    /// How many pages.
    pub pages: u64,
}

/// The folder of a pool in sysfs.
pub fn pool(node: NumaNodeId, size: ByteSize) -> String {
    format!(
        "/sys/devices/system/node/node{node}/hugepages/hugepages-{}kB",
        size.kib()
    )
}

impl AllocateHugePages {
    fn path(&self) -> String {
        format!("{}/nr_hugepages", pool(self.node, self.size))
    }

    fn total(&self, look: &Look<'_>) -> u64 {
        look.number(&self.path()).unwrap_or(0)
    }

    /// How many pages must be there: ours, and those that others have taken.
    fn target(&self, look: &Look<'_>) -> u64 {
        let free = look
            .number(&format!("{}/free_hugepages", pool(self.node, self.size)))
            .unwrap_or(0);
        let ours: u64 = self
            .users
            .iter()
            .filter(|user| look.running.contains(user.slice.as_str()))
            .map(|user| user.pages)
            .sum();
        let taken = self.total(look).saturating_sub(free);
        self.count + taken.saturating_sub(ours)
    }

    pub fn describe(&self) -> String {
        format!(
            "have {} of {} on node {}",
            count(self.count, "huge page"),
            self.size,
            self.node
        )
    }

    pub fn describe_undo(&self) -> String {
        format!(
            "give the huge pages of {} on node {} back",
            self.size, self.node
        )
    }

    pub fn precondition(&self, look: &Look<'_>) -> Vec<Problem> {
        if self.at_boot || look.machine.root().exists(self.path()) {
            return Vec::new();
        }
        vec![
            Problem::new(format!(
                "node {} has no huge pages of {}: `{}` is not there",
                self.node,
                self.size,
                self.path()
            ))
            .hint("ask for a page size that `bmslice inspect` lists"),
        ]
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        let (got, want) = (self.total(look), self.target(look));
        Ok(if got >= want {
            Observation::Held
        } else if got == 0 {
            Observation::NotHeld
        } else {
            Observation::different(format!(
                "node {} has {} of {}, and {want} are needed",
                self.node,
                count(got, "huge page"),
                self.size
            ))
        })
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        Ok(Before::HugePages {
            total: self.total(look),
        })
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        let (had, want) = (self.total(&site.look()), self.target(&site.look()));
        site.write(&self.path(), want)?;
        if self.total(&site.look()) < want {
            // Free memory in pieces becomes pages only once it is moved together
            // (Documentation/admin-guide/sysctl/vm.rst); a kernel without compaction has no such
            // file, and then there is nothing more to try.
            if site.machine.root().exists("/proc/sys/vm/compact_memory") {
                site.write("/proc/sys/vm/compact_memory", 1)?;
            }
            site.write(&self.path(), want)?;
        }
        let got = self.total(&site.look());
        if got >= want {
            return Ok(());
        }
        site.write(&self.path(), had)?;
        let users: Vec<String> = self
            .users
            .iter()
            .map(|user| format!("`{}` needs {}", user.slice, user.pages))
            .collect();
        Err(StepError::cannot(
            format!(
                "node {} gives {got} of the {want} huge pages of {} ({})",
                self.node,
                self.size,
                users.join(", ")
            ),
            format!(
                "free memory on node {} or reboot: after a boot memory is in one piece",
                self.node
            ),
        ))
    }

    /// Fewer are needed now: what is above that, and above what was there before us, goes back to
    /// the host.
    pub fn give_back(&self, before: u64, site: &mut Site<'_>) -> Result<(), StepError> {
        let look = site.look();
        let want = self.target(&look).max(before);
        // What the boot arguments ask for stays: it comes back with every boot.
        if !self.at_boot && self.total(&look) > want {
            site.write(&self.path(), want)?;
        }
        Ok(())
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        let Before::HugePages { total: want } = before else {
            return Ok(());
        };
        let look = site.look();
        if self.total(&look) == *want || !look.machine.root().exists(self.path()) {
            return Ok(());
        }
        site.write(&self.path(), want)?;
        let got = self.total(&site.look());
        if got == *want {
            Ok(())
        } else {
            Err(StepError::NotEffective {
                got: format!(
                    "node {} has {got} huge pages of {}, not {want}: something still uses them",
                    self.node, self.size
                ),
            })
        }
    }
}
