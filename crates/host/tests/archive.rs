//! Captured trees as archives: every packing, and what strangers may put into one.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests make the archives that are then read"
)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bmslice_host::{ArchiveError, Limits, Root, Tree};

/// A tar with the entries of a builder.
fn archive(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    fill(&mut builder);
    builder.into_inner().unwrap()
}

/// An entry whose path is written as it is, however bad.
fn entry(
    builder: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    path: &str,
    target: &str,
    bytes: &[u8],
) {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, bytes).unwrap();
}

fn file(builder: &mut tar::Builder<Vec<u8>>, path: &str, text: &str) {
    entry(builder, tar::EntryType::Regular, path, "", text.as_bytes());
}

fn good() -> Vec<u8> {
    archive(|tar| {
        entry(tar, tar::EntryType::Directory, "any name/", "", b"");
        file(tar, "any name/sys/devices/cpu", "inside\n");
        entry(
            tar,
            tar::EntryType::Symlink,
            "any name/sys/link",
            "devices/cpu",
            b"",
        );
        entry(
            tar,
            tar::EntryType::Symlink,
            "any name/absolute",
            "/sys/link",
            b"",
        );
    })
}

fn unpack(bytes: &[u8]) -> Result<Tree, ArchiveError> {
    Tree::unpack(bytes, Limits::default())
}

fn refused(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> String {
    let bytes = archive(|tar| {
        file(tar, "top/sys/x", "");
        fill(tar);
    });
    unpack(&bytes).unwrap_err().to_string()
}

/// What a program makes of bytes; `None` when it is not installed.
fn through(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Some(output.stdout)
}

#[test]
fn every_packing_reads_alike_whatever_the_top_folder_is_called() {
    let plain = good();
    let mut packed = vec![("tar".to_owned(), plain.clone())];
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        match through(program, &plain) {
            Some(bytes) => packed.push((program.to_owned(), bytes)),
            None => eprintln!("SKIPPED: {program} is not installed"),
        }
    }
    for (name, bytes) in packed {
        let root = Root::tree(unpack(&bytes).unwrap(), Path::new(&name));
        assert_eq!(
            root.attribute("/absolute").as_deref(),
            Some("inside"),
            "{name}"
        );
        assert_eq!(root.list("/sys").unwrap(), ["devices", "link"], "{name}");
        // Streams one after another are one stream.
        if name != "tar" {
            let (a, b) = plain.split_at(600);
            let (a, b) = (through(&name, a).unwrap(), through(&name, b).unwrap());
            let root = Root::tree(unpack(&[a, b].concat()).unwrap(), Path::new(&name));
            assert_eq!(
                root.attribute("/sys/link").as_deref(),
                Some("inside"),
                "{name}"
            );
        }
    }
}

#[test]
fn a_folder_around_the_tree_is_entered_too() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("server7/sys")).unwrap();
    std::fs::write(dir.path().join("server7/sys/x"), "there\n").unwrap();
    let root = Root::captured(dir.path(), Limits::default()).unwrap();
    assert_eq!(root.attribute("/sys/x").as_deref(), Some("there"));
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in [
        "../evil",
        "top/../../evil",
        "/etc/evil",
        "top/sys/../../../x",
    ] {
        let text = refused(|tar| file(tar, path, "evil"));
        assert_eq!(
            text,
            format!("the archive holds `{path}`, which leads out of it")
        );
    }
}

#[test]
fn links_that_lead_out_and_what_is_below_links_are_refused() {
    let text = refused(|tar| {
        entry(tar, tar::EntryType::Symlink, "top/out", "../../etc", b"");
    });
    assert!(
        text.contains("the link `top/out` to `../../etc`, which leads out"),
        "{text}"
    );
    let text = refused(|tar| {
        entry(tar, tar::EntryType::Symlink, "top/link", "/tmp", b"");
        file(tar, "top/link/evil", "evil");
    });
    assert!(
        text.contains("`top/link/evil` below something that is no folder"),
        "{text}"
    );
}

#[test]
fn devices_pipes_and_hard_links_are_refused() {
    for (kind, what) in [
        (tar::EntryType::Link, "a hard link"),
        (tar::EntryType::Char, "a device"),
        (tar::EntryType::Block, "a device"),
        (tar::EntryType::Fifo, "a pipe"),
    ] {
        let text = refused(|tar| entry(tar, kind, "top/odd", "top/sys/x", b""));
        assert!(
            text.contains(&format!("`top/odd`, which is {what}")),
            "{text}"
        );
    }
}

#[test]
fn bombs_are_refused_before_they_are_large() {
    let limits = Limits {
        entries: 100,
        file: 1 << 20,
        bytes: 4 << 20,
    };
    let packed = |bytes: &[u8]| {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    };
    let many = archive(|tar| (0..101).for_each(|i| file(tar, &format!("top/sys/{i}"), "")));
    let error = Tree::unpack(packed(&many).as_slice(), limits).unwrap_err();
    assert!(
        matches!(error, ArchiveError::Entries { limit: 100 }),
        "{error}"
    );

    let large = archive(|tar| file(tar, "top/sys/large", &"0".repeat((1 << 20) + 1)));
    let error = Tree::unpack(packed(&large).as_slice(), limits).unwrap_err();
    assert!(matches!(error, ArchiveError::File { .. }), "{error}");

    let whole = archive(|tar| {
        (0..5).for_each(|i| file(tar, &format!("top/sys/{i}"), &"0".repeat(1 << 20)));
    });
    let error = Tree::unpack(packed(&whole).as_slice(), limits).unwrap_err();
    assert!(matches!(error, ArchiveError::Bytes { .. }), "{error}");

    // A name that is as long as the archive.
    let name = archive(|tar| {
        entry(
            tar,
            tar::EntryType::GNULongName,
            "././@LongLink",
            "",
            &vec![b'a'; 5 << 20],
        );
        file(tar, "top/sys/x", "");
    });
    let error = Tree::unpack(packed(&name).as_slice(), limits).unwrap_err();
    assert!(matches!(error, ArchiveError::Bytes { .. }), "{error}");
}

#[test]
fn what_is_no_archive_or_has_no_tree_is_told() {
    for bytes in [&b""[..], b"hello", &[b'x'; 2000], &[0x1f, 0x8b, 1, 2, 3]] {
        let error = unpack(bytes).unwrap_err().to_string();
        assert!(
            error.contains("no tar archive") || error.contains("cannot be read"),
            "{error}"
        );
    }
    let error = unpack(&archive(|tar| file(tar, "top/readme", "")));
    assert!(matches!(error, Err(ArchiveError::NoRoot)));
    let error = unpack(&archive(|tar| {
        file(tar, "a/sys/x", "");
        file(tar, "b/sys/x", "");
    }));
    assert_eq!(
        error.unwrap_err().to_string(),
        "the archive holds several trees: /a, /b"
    );
    // Cut off in the middle.
    let whole = through("xz", &good());
    if let Some(whole) = whole {
        let error = unpack(&whole[..whole.len() / 2]).unwrap_err();
        assert!(matches!(error, ArchiveError::Read(_)), "{error}");
    }
}

#[test]
fn what_was_recorded_and_packed_reads_as_the_server_did() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    std::fs::create_dir_all(at("sys/devices/pci/eno1")).unwrap();
    std::fs::create_dir_all(at("sys/class/net")).unwrap();
    std::fs::write(at("sys/devices/pci/eno1/address"), "52:54:00:00:00:01\n").unwrap();
    std::fs::write(at("sys/devices/pci/eno1/unread"), "nobody asked\n").unwrap();
    std::fs::write(at("sys/other"), "nobody asked\n").unwrap();
    std::os::unix::fs::symlink("../../devices/pci/eno1", at("sys/class/net/eno1")).unwrap();

    let look = |root: &Root| {
        (
            root.list("/sys/class/net").unwrap(),
            root.link("/sys/class/net/eno1").unwrap(),
            root.resolve("/sys/class/net/eno1").unwrap(),
            root.attribute("/sys/class/net/eno1/address"),
            root.list("/sys/class/net/eno1").unwrap(),
            root.exists("/sys/devices/pci"),
            root.exists("/sys/none"),
            root.attribute("/sys/class/net/eno1/none"),
        )
    };
    let root = Root::open(dir.path()).unwrap().recording();
    let first = look(&root);
    // A server goes on; what was recorded does not.
    std::fs::write(at("sys/devices/pci/eno1/address"), "52:54:00:00:00:02\n").unwrap();
    assert_eq!(look(&root), first);

    let tree = root.recorded();
    let mut bytes = Vec::new();
    tree.pack("server1", &mut bytes).unwrap();
    let read = Root::tree(unpack(&bytes).unwrap(), Path::new("server1.tar.gz"));
    assert_eq!(look(&read), first);
    assert!(!read.exists("/sys/other"), "what nobody read is not kept");
    assert_eq!(
        read.attribute("/sys/class/net/eno1/unread").as_deref(),
        Some("")
    );

    let mut again = Vec::new();
    tree.pack("server1", &mut again).unwrap();
    assert_eq!(again, bytes, "the same tree packs to the same bytes");
}
