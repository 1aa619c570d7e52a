//! What the drivers of NICs tell: ethtool's generic netlink family, devlink's, and the two ethtool
//! calls that have no message.
//!
//! Takes names of interfaces; gives the kernel's answers as they came (`bmslice-inventory` takes
//! them apart). Keeps true: nothing is set, nothing is loaded, and what an interface or a kernel
//! does not answer is left out. Needs no privilege.
//!
//! Source: `Documentation/networking/ethtool-netlink.rst`, `devlink/devlink-info.rst`.

mod ioctl;

use std::io;

use crate::netlink::{Request, Socket, attribute};

/// What is asked of each interface (`ETHTOOL_MSG_*_GET`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum EthtoolRequest {
    /// The connector.
    LinkInfo = 2,
    /// Speeds and how they are agreed on.
    LinkModes = 4,
    /// Offloads.
    Features = 11,
    /// Descriptor rings.
    Rings = 15,
    /// Queues.
    Channels = 17,
    /// Time stamps.
    Timestamps = 25,
    /// Forward error correction.
    Fec = 29,
}

impl EthtoolRequest {
    /// Every request.
    pub const ALL: [Self; 7] = [
        Self::LinkInfo,
        Self::LinkModes,
        Self::Features,
        Self::Rings,
        Self::Channels,
        Self::Timestamps,
        Self::Fec,
    ];
}

/// What the kernel answered about one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicAnswers {
    /// Its name.
    pub name: String,
    /// The attributes of each answer.
    pub ethtool: Vec<(EthtoolRequest, Vec<u8>)>,
    /// `struct ethtool_drvinfo`.
    pub driver: Option<Vec<u8>>,
    /// The permanent address, as long as the interface's kind has it.
    pub permanent: Option<Vec<u8>>,
}

/// What the kernel answered about some interfaces, and about every device with devlink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetAnswers {
    /// By interface, in the order asked.
    pub nics: Vec<NicAnswers>,
    /// The attributes of each device's `DEVLINK_CMD_INFO_GET`.
    pub devlink: Vec<Vec<u8>>,
}

/// `ETHTOOL_A_*_HEADER`, the same in every request, and the name in it.
const HEADER: u16 = 1;
const HEADER_DEV_NAME: u16 = 2;
const NLA_NESTED: u16 = 0x8000;
const DEVLINK_CMD_INFO_GET: u8 = 51;

/// Asks the kernel.
pub(crate) fn ask(names: &[String]) -> io::Result<NetAnswers> {
    if names.is_empty() {
        return Ok(NetAnswers::default());
    }
    let mut socket = Socket::open()?;
    let families = socket.families()?;
    let family = |name: &str| families.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
    let mut nics = Vec::new();
    for name in names {
        // Kernels before 5.6 have no such family.
        let ethtool = match family("ethtool") {
            Some(family) => interface(&mut socket, family, name)?,
            None => Vec::new(),
        };
        nics.push(NicAnswers {
            name: name.clone(),
            ethtool,
            driver: ioctl::driver_info(&socket, name),
            permanent: ioctl::permanent_address(&socket, name),
        });
    }
    let devlink = match family("devlink") {
        Some(family) => socket.dump(&Request {
            family,
            command: DEVLINK_CMD_INFO_GET,
            body: &[],
        })?,
        None => Vec::new(),
    };
    Ok(NetAnswers { nics, devlink })
}

fn interface(
    socket: &mut Socket,
    family: u16,
    name: &str,
) -> io::Result<Vec<(EthtoolRequest, Vec<u8>)>> {
    let text = [name.as_bytes(), b"\0"].concat();
    let body = attribute(HEADER | NLA_NESTED, &attribute(HEADER_DEV_NAME, &text));
    let requests = EthtoolRequest::ALL.map(|command| Request {
        family,
        command: command as u8,
        body: &body,
    });
    let answers = socket.ask(&requests)?;
    let told = EthtoolRequest::ALL.into_iter().zip(answers);
    Ok(told
        .filter_map(|(command, answer)| Some((command, answer?)))
        .collect())
}
