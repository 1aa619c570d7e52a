//! The end of a guest's serial console, as libvirt logs it (virtlogd keeps at most 2 MiB).

use bmslice_host::Root;
use bmslice_model::SliceName;
use bmslice_render::console_log;

/// How many lines are told.
const LINES: usize = 5;

/// The last lines that are not empty, without what only a terminal understands; none when the guest
/// wrote nothing, or nobody but root may read it.
pub fn last_lines(root: &Root, slice: &SliceName) -> Vec<String> {
    let text = plain(root, slice);
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(LINES);
    lines[from..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}

/// All that it wrote since its start, without what only a terminal understands.
pub fn plain(root: &Root, slice: &SliceName) -> String {
    let bytes = root.read(console_log(slice)).unwrap_or_default();
    let plain = without_escapes(&String::from_utf8_lossy(&bytes));
    // A carriage return writes over the line.
    let lines = plain.split('\n').map(|line| {
        line.trim_end_matches('\r')
            .rsplit('\r')
            .next()
            .unwrap_or_default()
            .trim_end()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Without ECMA-48's control sequences (`ESC [ … letter`) and other control characters.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
                } else {
                    chars.next();
                }
            }
            '\n' | '\r' | '\t' => plain.push(c),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_plain_text() {
        let folder = tempfile::tempdir().unwrap();
        let name: SliceName = "red".parse().unwrap();
        let path = folder
            .path()
            .join(console_log(&name).trim_start_matches('/'));
        #[allow(clippy::disallowed_methods, reason = "a test's own folder")]
        {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = "one\r\n\u{1b}[2J\u{1b}[01;31mtwo\u{1b}[0m\r\n\n 1 %\r99 %\n\
                        three\nfour\nKernel panic\u{7}\r\n";
            std::fs::write(&path, text).unwrap();
        }
        let root = Root::open(folder.path()).unwrap();
        assert_eq!(
            last_lines(&root, &name),
            ["two", "99 %", "three", "four", "Kernel panic"]
        );
        let other: SliceName = "blue".parse().unwrap();
        assert_eq!(last_lines(&root, &other), [""; 0]);
    }
}
