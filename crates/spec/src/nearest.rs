//! The nearest right word to a wrong one.

/// What people write, and the field that holds it here.
const SYNONYMS: [(&str, &str); 22] = [
    ("ram", "memory"),
    ("mem", "memory"),
    ("cpu", "vcpus"),
    ("cores", "vcpus"),
    ("disk", "image"),
    ("storage", "image"),
    ("network", "nics"),
    ("interfaces", "nics"),
    ("node", "numa"),
    ("numanode", "numa"),
    ("keys", "sshKeys"),
    ("sshauthorizedkeys", "sshKeys"),
    ("vms", "slices"),
    ("guests", "slices"),
    ("pf", "of"),
    ("device", "of"),
    ("parent", "of"),
    ("address", "pci"),
    ("interface", "name"),
    ("runcmd", "firstCommands"),
    ("commands", "firstCommands"),
    ("isolated", "isolate"),
];

/// The candidate that was probably meant: the same but for case and separators, a known synonym,
/// its beginning, or within a third of the length in edits.
pub(crate) fn nearest<'a>(wrong: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let bare = |text: &str| -> String {
        text.chars()
            .filter(|c| c.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect()
    };
    let wrong = bare(wrong);
    if let Some(same) = candidates.iter().find(|c| bare(c) == wrong) {
        return Some(same);
    }
    let by_edits = candidates
        .iter()
        .map(|c| (distance(&wrong, &bare(c)), *c))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, c)| *edits <= (wrong.len().max(c.len()) / 3).max(1) && *edits < c.len());
    let by_meaning = || {
        let (_, right) = SYNONYMS.iter().find(|(word, _)| *word == wrong)?;
        candidates.iter().find(|c| *c == right).copied()
    };
    let by_start = || {
        let starts = |c: &&&str| wrong.len() > 1 && bare(c).starts_with(&wrong);
        candidates.iter().find(starts).copied()
    };
    by_edits
        .map(|(_, c)| c)
        .or_else(by_meaning)
        .or_else(by_start)
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment). Words
/// longer than 64 characters are far from everything.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1)
                .min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let fields = [
            "name",
            "tenant",
            "vcpus",
            "vcpuOrder",
            "memory",
            "image",
            "nics",
        ];
        for (wrong, right) in [
            ("vcpu", Some("vcpus")),
            ("vcpu_order", Some("vcpuOrder")),
            ("Memroy", Some("memory")),
            ("ram", Some("memory")),
            ("disk", Some("image")),
            ("tennant", Some("tenant")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, &fields), right, "{wrong}");
        }
        assert_eq!(nearest("1G", &["2MiB", "1GiB"]), Some("1GiB"));
        assert_eq!(nearest("packed", &["pack", "isolate", "any"]), Some("pack"));
        assert_eq!(nearest(&"x".repeat(1000), &fields), None);
    }
}
