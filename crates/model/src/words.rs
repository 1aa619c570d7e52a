//! Numbers of things in sentences.

use std::fmt::Display;

use crate::CpuSet;

/// `1 slice`, `2 slices`, `0 VFs`: a number and what it counts, which takes an `s` for many.
#[must_use]
pub fn count<N: Display + PartialEq + From<u8>>(number: N, one: &str) -> String {
    let many = if number == N::from(1) { "" } else { "s" };
    format!("{number} {one}{many}")
}

/// `CPU 4`, `CPUs 4,16`.
#[must_use]
pub fn cpus(set: &CpuSet) -> String {
    let many = if set.len() == 1 { "" } else { "s" };
    format!("CPU{many} {set}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_things() {
        assert_eq!(count(1u32, "VF"), "1 VF");
        assert_eq!(count(0usize, "VF"), "0 VFs");
        assert_eq!(count(2u64, "whole core"), "2 whole cores");
        assert_eq!(cpus(&"4".parse().unwrap()), "CPU 4");
        assert_eq!(cpus(&"4,16".parse().unwrap()), "CPUs 4,16");
    }
}
