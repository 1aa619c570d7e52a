//! Sets of CPUs in the kernel's mask format: `ff`, `00000001,ffffffff`.
//!
//! As `%*pb` prints them (lib/vsprintf.c): hexadecimal words of 32 bits, the highest first. Some
//! files take nothing else (`/proc/irq/default_smp_affinity`, the workqueues' `cpumask`).

use crate::cpuset::CpuSet;
use crate::ids::CpuId;

impl CpuSet {
    /// The set that a mask names; `None` for what is no mask.
    #[must_use]
    pub fn from_mask(text: &str) -> Option<Self> {
        let mut set = Self::new();
        for (i, word) in text.trim().rsplit(',').enumerate() {
            if word.is_empty() || !word.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            let bits = u32::from_str_radix(word, 16).ok()?;
            for bit in (0..32).filter(|bit| bits & (1 << bit) != 0) {
                let number = u32::try_from(i).ok()?.checked_mul(32)?.checked_add(bit)?;
                set.insert(CpuId::new(number).ok()?);
            }
        }
        Some(set)
    }

    /// The mask that names the set, in as few words as hold it.
    #[must_use]
    pub fn to_mask(&self) -> String {
        let last = self.iter().last().map_or(0, CpuId::index);
        let mut words = vec![0u32; last / 32 + 1];
        for cpu in self.iter() {
            words[cpu.index() / 32] |= 1 << (cpu.index() % 32);
        }
        let mut words = words.iter().rev();
        let first = words.next().map_or_else(String::new, |w| format!("{w:x}"));
        words.fold(first, |text, word| format!("{text},{word:08x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_words_of_32_bits_the_highest_first() {
        for (list, mask) in [
            ("", "0"),
            ("0-1", "3"),
            ("0-31", "ffffffff"),
            ("32", "1,00000000"),
            ("4,36-39", "f0,00000010"),
        ] {
            let set: CpuSet = list.parse().unwrap();
            assert_eq!(set.to_mask(), mask, "{list}");
            assert_eq!(CpuSet::from_mask(mask), Some(set), "{mask}");
        }
        assert_eq!(
            CpuSet::from_mask("00000000,00ffffff\n").map(|set| set.to_string()),
            Some("0-23".into())
        );
        for no in ["", "0-3", "0x3", "fffffffff", "1,,2"] {
            assert_eq!(CpuSet::from_mask(no), None, "{no}");
        }
    }
}
