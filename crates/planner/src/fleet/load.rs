//! Guests and NUMA nodes as vectors of numbers.
//!
//! Takes what a guest cell asks for and what a node has; gives two vectors such that a node holds
//! some cells exactly when the sum of their vectors is nowhere above its own. So a search needs no
//! single threads.
//!
//! With two threads a core, C full and H half cores, W vCPUs that need a whole core or half of a
//! pair's, S single threads and E emulators of isolated guests, a node holds them iff for
//! e = min(E, H) both `W + E - e <= C` and `S <= 2(C - W - E + e) + H - e`. Written without the
//! minimum these are `W <= C`, `S + 2W + E <= 2C + H` and `S + 2W + 2E <= 2C + 2H`.

/// Numbers in a vector.
pub(crate) const DIMS: usize = 5;
/// Threads (cores, when cores are never shared): all that a cell takes, with what it leaves idle.
pub(crate) const MAIN: usize = 0;
/// GiB of huge pages.
pub(crate) const MEMORY: usize = 1;
/// Virtual functions.
pub(crate) const VFS: usize = 2;
/// Threads, where half cores serve isolated emulators.
pub(crate) const THREADS: usize = 3;
/// Whole cores.
pub(crate) const WHOLE: usize = 4;

/// What a cell takes, or a node has. Padded, so that it fills vector registers.
pub(crate) type Load = [i32; 8];

/// No amount is larger, so that sums stay far from overflow.
pub(crate) const MOST: u32 = 1 << 20;

/// Whether a core may be shared by guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Every free thread may be used, whoever has its sibling: the most that OpenStack Nova allows.
    Threads,
    /// A core belongs to one guest at most, and only wholly free ones are used: this product's default.
    #[default]
    WholeCores,
}

/// How a guest's vCPUs lie on sibling threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Threads {
    /// Any free threads of the node.
    Prefer,
    /// On sibling pairs; an odd last vCPU anywhere in the node. Never on a server without SMT.
    Require,
    /// Each on a full core whose sibling nobody uses.
    Isolate,
}

/// What a guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guest {
    /// vCPUs in all cells.
    pub vcpus: u32,
    /// How they lie on sibling threads.
    pub threads: Threads,
    /// Whether the emulator has a thread of its own, on the node of cell 0.
    pub emulator: bool,
    /// Guest cells on as many distinct nodes: 1 or 2.
    pub cells: u32,
    /// GiB of huge pages in all cells.
    pub memory: u32,
    /// Virtual functions, all from the guest's nodes.
    pub vfs: u32,
}

/// What a NUMA node has to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeShape {
    /// Threads of a core: 1 or 2.
    pub threads_per_core: u32,
    /// Cores of which every thread may be taken.
    pub full: u32,
    /// Cores of which one of two threads may be taken.
    pub half: u32,
    /// GiB of free huge pages.
    pub memory: u32,
    /// Free virtual functions.
    pub vfs: u32,
}

fn amount(n: u32) -> i32 {
    i32::try_from(n.min(MOST)).unwrap_or(i32::MAX)
}

impl NodeShape {
    /// What the node has.
    pub(crate) fn room(&self, sharing: Sharing) -> Load {
        let (full, half) = (amount(self.full), amount(self.half));
        let mut room = [0; 8];
        room[MEMORY] = amount(self.memory);
        room[VFS] = amount(self.vfs);
        if sharing == Sharing::WholeCores || self.threads_per_core < 2 {
            room[MAIN] = full;
            return room;
        }
        room[MAIN] = 2 * (full + half);
        room[THREADS] = 2 * full + half;
        room[WHOLE] = full;
        room
    }
}

impl Guest {
    /// Whether the guest can be asked for at all.
    pub(crate) fn is_sane(&self) -> bool {
        (1..=2).contains(&self.cells)
            && self.vcpus > 0
            && self.vcpus.is_multiple_of(self.cells)
            && [self.vcpus, self.memory, self.vfs]
                .iter()
                .all(|&n| n < MOST / 4)
    }

    /// vCPUs of each cell.
    pub(crate) fn cell_vcpus(&self) -> u32 {
        self.vcpus / self.cells.max(1)
    }

    /// What a cell takes of a node, without virtual functions; `None` where it cannot lie at all.
    pub(crate) fn load(&self, cell: usize, smt: bool, sharing: Sharing) -> Option<Load> {
        let vcpus = amount(self.cell_vcpus());
        let emulator = i32::from(self.emulator && cell == 0);
        let mut load = [0; 8];
        load[MEMORY] = amount(self.memory.div_ceil(self.cells.max(1)));
        if !smt {
            load[MAIN] = vcpus + emulator;
            return (self.threads != Threads::Require).then_some(load);
        }
        if sharing == Sharing::WholeCores {
            load[MAIN] = match self.threads {
                Threads::Isolate => vcpus + emulator,
                Threads::Prefer | Threads::Require => (vcpus + emulator + 1) / 2,
            };
            return Some(load);
        }
        let (whole, single, apart) = match self.threads {
            Threads::Isolate => (vcpus, 0, emulator),
            Threads::Require => (vcpus / 2, vcpus % 2 + emulator, 0),
            Threads::Prefer => (0, vcpus + emulator, 0),
        };
        load[MAIN] = single + 2 * whole + 2 * apart;
        load[THREADS] = single + 2 * whole + apart;
        load[WHOLE] = whole;
        Some(load)
    }
}

/// Whether a load fits into what is free. Without branches, since it is asked most of all: a
/// number that is negative anywhere leaves its sign.
pub(crate) fn fits(load: &Load, free: &Load) -> bool {
    let each = load.iter().zip(free);
    each.fold(0, |signs, (load, free)| signs | (free - load)) >= 0
}

pub(crate) fn take(free: &mut Load, load: &Load) {
    for (free, load) in free.iter_mut().zip(load) {
        *free -= load;
    }
}

pub(crate) fn give(free: &mut Load, load: &Load) {
    for (free, load) in free.iter_mut().zip(load) {
        *free += load;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The condition as the benchmark's page states it.
    fn holds(full: i32, half: i32, whole: i32, single: i32, apart: i32) -> bool {
        let e = apart.min(half);
        whole + apart - e <= full && single <= 2 * (full - whole - apart + e) + half - e
    }

    #[test]
    fn the_vectors_say_just_what_the_condition_with_the_minimum_says() {
        for full in 0..5 {
            for half in 0..4 {
                let node = NodeShape {
                    threads_per_core: 2,
                    full: full as u32,
                    half: half as u32,
                    memory: 0,
                    vfs: 0,
                };
                for whole in 0..7 {
                    for single in 0..14 {
                        for apart in 0..7 {
                            let mut load = [0; 8];
                            load[MAIN] = single + 2 * whole + 2 * apart;
                            load[THREADS] = single + 2 * whole + apart;
                            load[WHOLE] = whole;
                            assert_eq!(
                                fits(&load, &node.room(Sharing::Threads)),
                                holds(full, half, whole, single, apart),
                                "C={full} H={half} W={whole} S={single} E={apart}"
                            );
                        }
                    }
                }
            }
        }
    }
}
