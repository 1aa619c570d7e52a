//! Rules of what is set up inside a guest: disk, user, host name, addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

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
    disk_size(slice.image.size, at.field("size"), found);
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

/// No image of a system is smaller: CirrOS, made to be small, has 39 MiB.
const LEAST_DISK: ByteSize = ByteSize::from_mib(32);
/// The largest disk of any hypervisor's own format (VHDX); ext4 and XFS on the host end below what
/// qcow2 could count.
const MOST_DISK: ByteSize = ByteSize::from_gib(64 << 10);

fn disk_size(size: ByteSize, at: Path, found: &mut Found) {
    let near = if size == ByteSize::ZERO {
        "write a whole number of GiB, as `100GiB`".to_owned()
    } else if size < LEAST_DISK {
        match size.mib() {
            0 => format!("{LEAST_DISK} to {MOST_DISK} are possible"),
            mib => format!("write `{mib}GiB`, if GiB were meant; {LEAST_DISK} is the least"),
        }
    } else if size > MOST_DISK {
        match size.mib() >> 20 {
            tib if tib <= 64 << 10 => {
                format!("write `{tib}GiB`, if GiB were meant; {MOST_DISK} is the most")
            }
            _ => format!("{LEAST_DISK} to {MOST_DISK} are possible"),
        }
    } else if !size.is_multiple_of(ByteSize::from_mib(1)) {
        let less = ByteSize::from_mib(size.mib());
        let more = ByteSize::from_mib(size.mib() + 1);
        format!("write `{less}` or `{more}`: a disk is a whole number of MiB")
    } else {
        return;
    };
    found.say(at, format!("a disk cannot have {size}"), near);
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
    let addresses: Vec<Result<OnNetwork, String>> =
        network.addresses.iter().map(|text| text.parse()).collect();
    for (i, address) in addresses.iter().enumerate() {
        let at = at.field("addresses").index(i);
        let text = shown(&network.addresses[i]);
        match address {
            Err(hint) => found.say(
                at,
                format!("`{text}` is not an address with a prefix length"),
                hint,
            ),
            Ok(address) => {
                if let Some(why) = address.no_host() {
                    found.say(
                        at,
                        format!("no guest can have `{text}`: {why}"),
                        "write an address of the network's hosts, as `192.0.2.10/24`",
                    );
                }
            }
        }
    }
    if let Some(text) = &network.gateway4 {
        match text.parse::<Ipv4Addr>() {
            Err(_) => found.say(
                at.field("gateway4"),
                format!("`{}` is not an IPv4 address", shown(text)),
                "write it without a prefix length, as `192.0.2.1`",
            ),
            Ok(gateway) => gateway_rules(gateway, &addresses, &at, found),
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
fn gateway_rules(
    gateway: Ipv4Addr,
    addresses: &[Result<OnNetwork, String>],
    at: &Path,
    found: &mut Found,
) {
    let mut networks = Vec::new();
    for address in addresses {
        // With an address that is wrong itself nothing can be told.
        let Ok(OnNetwork { address, length }) = address else {
            return;
        };
        if let IpAddr::V4(address) = address {
            networks.push((*address, *length));
        }
    }
    // Nor without one of ours.
    if networks.is_empty() {
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

/// A card's address, with the length of its network's prefix: at most 32, or 128.
struct OnNetwork {
    address: IpAddr,
    length: u8,
}

impl FromStr for OnNetwork {
    /// What would be right.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| "write it as `192.0.2.10/24`".to_owned())?;
        let (most, usual) = if address.is_ipv4() {
            (32, 24)
        } else {
            (128, 64)
        };
        let Some(length) = length else {
            return Err(format!(
                "write `{text}/{usual}`, with the length of your network"
            ));
        };
        match length.parse() {
            Ok(length) if length <= most => Ok(Self { address, length }),
            _ => Err(format!("the length is 0 to {most}")),
        }
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

impl OnNetwork {
    /// Why no card can have this address: RFC 1122 section 3.2.1.3; a network of 31 bits has
    /// neither name nor broadcast (RFC 3021).
    fn no_host(&self) -> Option<&'static str> {
        let Self { address, length } = *self;
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Some("it is no address of a card");
        }
        let IpAddr::V4(address) = address else {
            return None;
        };
        let host = !mask(length);
        if length < 31 && u32::from(address) & host == 0 {
            Some("it is the network's own address")
        } else if length < 31 && u32::from(address) & host == host {
            Some("it is the network's broadcast address")
        } else {
            None
        }
    }
}
