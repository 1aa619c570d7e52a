//! What cloud-init finds in a slice's NoCloud seed.
//!
//! Takes a slice and, from `apply` alone, its password hash; gives `meta-data`, `user-data` and
//! `network-config` (version 2) as JSON after the header that cloud-init wants. Field names:
//! cloud-init's module reference.

use std::collections::BTreeMap;

use bmslice_plan::SlicePlan;
use bmslice_spec::GuestUser;
use serde::Serialize;

use crate::{RenderError, json};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct MetaData<'a> {
    /// A new one makes cloud-init set the guest up anew; a disk that is kept keeps it.
    instance_id: &'a str,
    local_hostname: &'a str,
}

/// `meta-data`: who the guest is. The instance is the domain's UUID.
#[must_use]
pub fn meta_data(slice: &SlicePlan) -> String {
    json::pretty(&MetaData {
        instance_id: &slice.uuid,
        local_hostname: &slice.guest.hostname,
    })
}

#[derive(Serialize)]
struct UserData<'a> {
    hostname: &'a str,
    preserve_hostname: bool,
    /// Empty, not absent: then no default user is made.
    users: Vec<User<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_pwauth: Option<bool>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    runcmd: &'a [String],
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    shell: &'static str,
    lock_passwd: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    passwd: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ssh_authorized_keys: &'a [String],
}

/// `user-data`: the user, its keys and password, the first commands.
///
/// `password_hash` is the crypt(5) hash out of `passwordHashFile`; `apply` alone has it, and writes
/// what it gets to a file of mode 0600. Without one a comment says where the hash will come from.
#[must_use]
pub fn user_data(slice: &SlicePlan, password_hash: Option<&str>) -> String {
    let guest = &slice.guest;
    let wants_password = |user: &GuestUser| user.password_hash_file.is_some();
    let data = UserData {
        hostname: &guest.hostname,
        preserve_hostname: false,
        users: guest
            .user
            .iter()
            .map(|user| User {
                name: &user.name,
                shell: "/bin/bash",
                lock_passwd: !wants_password(user),
                passwd: password_hash.filter(|_| wants_password(user)),
                sudo: user.sudo.then_some("ALL=(ALL) NOPASSWD:ALL"),
                ssh_authorized_keys: &user.ssh_keys,
            })
            .collect(),
        // Who asks for a password wants to log in with it; images forbid that over ssh.
        ssh_pwauth: guest
            .user
            .as_ref()
            .is_some_and(wants_password)
            .then_some(true),
        runcmd: &guest.first_commands,
    };
    let file = guest
        .user
        .as_ref()
        .and_then(|user| user.password_hash_file.as_ref());
    let comment = match (file, password_hash) {
        // Quoted as Rust does, so that no file name can end the comment.
        (Some(file), None) => {
            format!("# not shown here: `passwd`, which apply reads from {file:?}\n")
        }
        _ => String::new(),
    };
    format!("#cloud-config\n{comment}{}", json::pretty(&data))
}

#[derive(Serialize)]
struct NetworkConfig<'a> {
    version: u8,
    ethernets: BTreeMap<String, Ethernet<'a>>,
}

#[derive(Serialize)]
struct Ethernet<'a> {
    #[serde(rename = "match")]
    recognised: Match,
    #[serde(rename = "set-name")]
    name: String,
    dhcp4: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    addresses: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway4: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nameservers: Option<Nameservers<'a>>,
}

#[derive(Serialize)]
struct Match {
    macaddress: String,
}

#[derive(Serialize)]
struct Nameservers<'a> {
    addresses: &'a [String],
}

/// `network-config` of the cards that have a `network`; `None` when none has, and cloud-init does
/// as it does by itself (DHCP on the first card).
///
/// A card is recognised by its MAC and named `nic0`, `nic1`, … by its place in the spec: without a
/// name, cloud-init's renderer for `/etc/network/interfaces` would configure a card called like the
/// entry, which is not there.
///
/// # Errors
/// [`RenderError::UnknownMac`] for a card that never showed its MAC.
pub fn network_config(slice: &SlicePlan) -> Result<Option<String>, RenderError> {
    let mut ethernets = BTreeMap::new();
    for (index, nic) in slice.nics.iter().enumerate() {
        let common = nic.common();
        let Some(network) = &common.network else {
            continue;
        };
        let mac = common.mac.ok_or_else(|| RenderError::UnknownMac {
            slice: slice.name.clone(),
            index,
        })?;
        let name = format!("nic{index}");
        let servers = &network.nameservers;
        let ethernet = Ethernet {
            recognised: Match {
                macaddress: mac.to_string(),
            },
            name: name.clone(),
            dhcp4: network.dhcp4,
            addresses: &network.addresses,
            gateway4: network.gateway4.as_deref(),
            nameservers: (!servers.is_empty()).then_some(Nameservers { addresses: servers }),
        };
        ethernets.insert(name, ethernet);
    }
    let config = NetworkConfig {
        version: 2,
        ethernets,
    };
    Ok((!config.ethernets.is_empty()).then(|| json::pretty(&config)))
}
