//! Rules of what is set up inside a guest: disk, user, host name, addresses.

use std::net::{IpAddr, Ipv4Addr};

use bmslice_model::ByteSize;

use crate::diagnostic::shown;
use crate::rules::{Found, Path};
use crate::sealed::{GuestUser, ImageFrom, NicSpec, Setup, SliceSpec};

pub(crate) fn rules(slice: &SliceSpec, at: &Path, found: &mut Found) {
    image(slice, &at.field("image"), found);
    let guest = &slice.guest;
    if let Some(user) = &guest.user {
        user_rules(user, &at.field("user"), found);
        if slice.image.setup == Setup::None {
            found.say(
                at.field("user"),
                "nothing would make this user: `setup` is `none`",
                "write `setup: cloud-init` (or `virt-customize`) under `image`, or leave `user` out",
            );
        }
    }
    if !guest.first_commands.is_empty() && slice.image.setup == Setup::None {
        found.say(
            at.field("firstCommands"),
            "nothing would run these commands: `setup` is `none`",
            "write `setup: cloud-init` (or `virt-customize`) under `image`, or leave them out",
        );
    }
    for (i, command) in guest.first_commands.iter().enumerate() {
        let at = at.field("firstCommands").index(i);
        if command.trim().is_empty() || command.contains('\0') {
            found.say(at, "an empty command", "leave it out");
        }
    }
    if !is_hostname(&guest.hostname) {
        found.say(
            at.field("hostname"),
            format!("`{}` is not a host name", shown(&guest.hostname)),
            "letters, digits and `-`, in parts of at most 63 that are joined by `.` (RFC 1123)",
        );
    }
}

fn image(slice: &SliceSpec, at: &Path, found: &mut Found) {
    let base = slice.image.base.as_str();
    let base_at = at.field("base");
    if base.contains("://") {
        found.say(
            base_at,
            format!("`{}` is a URL", shown(base)),
            "download the image into the host's image folder, check its sum, and name the file",
        );
    } else if base.is_empty() || base.chars().any(char::is_control) {
        found.say(base_at, "this is not the name of an image", "");
    } else if !base.starts_with('/') && base.contains('/') || base == ".." || base == "." {
        found.say(
            base_at,
            format!(
                "`{}` is neither a file name nor an absolute path",
                shown(base)
            ),
            "name a file in the host's image folder, or write the whole path",
        );
    } else if base.ends_with('/') {
        found.say(
            base_at,
            format!("`{}` is a folder", shown(base)),
            "name the image in it",
        );
    }
    let size = slice.image.size;
    if !size.is_multiple_of(ByteSize::from_mib(1)) || size == ByteSize::ZERO {
        found.say(
            at.field("size"),
            format!("a disk cannot have {size}"),
            "write a whole number of MiB or GiB",
        );
    }
    if let ImageFrom::Resize { expand } = &slice.image.from {
        let part = expand.strip_prefix("/dev/").unwrap_or_default();
        let word = |c: char| c.is_ascii_alphanumeric() || "-_/".contains(c);
        if part.is_empty() || !part.chars().all(word) {
            found.say(
                at.field("from").field("resize").field("expand"),
                format!("`{}` is not a partition of the image", shown(expand)),
                "write it as `virt-filesystems -a IMAGE` shows it: `/dev/sda1`",
            );
        }
    }
}

fn user_rules(user: &GuestUser, at: &Path, found: &mut Found) {
    let name = user.name.as_str();
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    let other = |c: char| first(c) || c.is_ascii_digit() || c == '-';
    if name.len() > 32 || !name.starts_with(first) || !name.chars().all(other) {
        found.say(
            at.field("name"),
            format!("`{}` is not a login name", shown(name)),
            "a small letter or `_`, then small letters, digits, `-` and `_`, at most 32",
        );
    }
    for (i, key) in user.ssh_keys.iter().enumerate() {
        let at = at.field("sshKeys").index(i);
        if key.contains("PRIVATE KEY") {
            found.say(
                at,
                "this is a private key, which must never leave its owner",
                "take the public half, the `.pub` file beside it; make a new pair if this file was shared",
            );
        } else if !is_public_key(key) {
            found.say(
                at,
                "this is not a public key",
                "write a line of `authorized_keys`: `ssh-ed25519 AAAA… comment`",
            );
        }
    }
    if let Some(file) = &user.password_hash_file {
        let at = at.field("passwordHashFile");
        if file.starts_with('$') {
            found.say(
                at,
                "this is a password hash, where the name of a file belongs",
                "put it into a file on the server that only root can read, and name that file",
            );
        } else if !file.starts_with('/') || file.chars().any(char::is_control) {
            found.say(
                at,
                format!("`{}` is not an absolute path", shown(file)),
                "write the file's whole path on the server",
            );
        }
    }
}

/// A line of authorized_keys(5): options, key type, base64, comment.
fn is_public_key(line: &str) -> bool {
    let base64 = |word: &str| {
        let body = word.trim_end_matches('=');
        word.starts_with("AAAA")
            && word.len() >= 68
            && body
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
    };
    let kind = |word: &str| {
        ["ssh-", "ecdsa-sha2-", "sk-"]
            .iter()
            .any(|k| word.starts_with(k))
    };
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    !line.contains(['\n', '\r', '\0'])
        && words
            .windows(2)
            .any(|pair| matches!(pair, [k, b] if kind(k) && base64(b)))
}

fn is_hostname(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|part| {
            (1..=63).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        })
}

pub(crate) fn network_rules(slice: &SliceSpec, nic: &NicSpec, at: &Path, found: &mut Found) {
    let Some(network) = &nic.network else { return };
    let at = at.field("network");
    if slice.image.setup != Setup::CloudInit {
        found.say(
            at.clone(),
            "nothing would set this up: only cloud-init does",
            "write `setup: cloud-init` under `image`, or use `firstCommands`",
        );
    }
    for (i, address) in network.addresses.iter().enumerate() {
        if let Err(hint) = interface_address(address) {
            found.say(
                at.field("addresses").index(i),
                format!(
                    "`{}` is not an address with a prefix length",
                    shown(address)
                ),
                hint,
            );
        } else if let Some((host, length)) = self::network(address)
            && let Some(why) = no_host(host, length)
        {
            found.say(
                at.field("addresses").index(i),
                format!("no guest can have `{address}`: {why}"),
                "write an address of the network's hosts, as `192.0.2.10/24`",
            );
        }
    }
    if let Some(text) = &network.gateway4 {
        match text.parse::<Ipv4Addr>() {
            Err(_) => found.say(
                at.field("gateway4"),
                format!("`{}` is not an IPv4 address", shown(text)),
                "write it without a prefix length, as `192.0.2.1`",
            ),
            Ok(gateway) => gateway_rules(gateway, &network.addresses, &at, found),
        }
    }
    for (i, server) in network.nameservers.iter().enumerate() {
        if server.parse::<IpAddr>().is_err() {
            found.say(
                at.field("nameservers").index(i),
                format!("`{}` is not an IP address", shown(server)),
                "write the address of a DNS server, as `192.0.2.53`",
            );
        }
    }
}

/// A gateway is a neighbour: netplan makes a route to it only through a network of the card.
fn gateway_rules(gateway: Ipv4Addr, addresses: &[String], at: &Path, found: &mut Found) {
    let networks: Vec<(Ipv4Addr, u8)> = addresses.iter().filter_map(|text| network(text)).collect();
    // Without an address of ours, or with one that is wrong itself, nothing can be told.
    if networks.len() != addresses.iter().filter(|text| !text.contains(':')).count()
        || networks.is_empty()
    {
        return;
    }
    let at = at.field("gateway4");
    if networks.iter().any(|(address, _)| *address == gateway) {
        found.say(
            at,
            format!("the gateway {gateway} is the guest itself"),
            "write the address of the router",
        );
    } else if !networks.iter().any(|&(address, length)| {
        let mask = mask(length);
        u32::from(address) & mask == u32::from(gateway) & mask
    }) {
        found.say(
            at,
            format!("the gateway {gateway} is in no network of this card"),
            "write a router of the same network, or look at the address's length",
        );
    }
}

/// An IPv4 address with its length.
fn network(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, length) = text.split_once('/')?;
    let length = length.parse().ok().filter(|length| *length <= 32)?;
    Some((address.parse().ok()?, length))
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

/// Why no card can have this address: RFC 1122 section 3.2.1.3; a network of 31 bits has neither
/// name nor broadcast (RFC 3021).
fn no_host(address: Ipv4Addr, length: u8) -> Option<&'static str> {
    let host = !mask(length);
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        Some("it is no address of a card")
    } else if length < 31 && u32::from(address) & host == 0 {
        Some("it is the network's own address")
    } else if length < 31 && u32::from(address) & host == host {
        Some("it is the network's broadcast address")
    } else {
        None
    }
}

fn interface_address(text: &str) -> Result<(), String> {
    let Some((address, length)) = text.split_once('/') else {
        return Err(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => format!("write `{text}/24`, with the length of your network"),
            Ok(IpAddr::V6(_)) => format!("write `{text}/64`, with the length of your network"),
            Err(_) => "write it as `192.0.2.10/24`".into(),
        });
    };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return Err("write it as `192.0.2.10/24`".into()),
    };
    match length.parse::<u8>() {
        Ok(length) if length <= most => Ok(()),
        _ => Err(format!("the length is 0 to {most}")),
    }
}
