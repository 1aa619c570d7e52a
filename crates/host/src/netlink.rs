//! Netlink messages: asking the kernel, and taking its answers apart.
//!
//! Takes requests as bytes; gives the answers as they came, and iterators over messages and
//! attributes that stop at the first one that does not fit, whatever the bytes are. Reads only: no
//! request that sets something is made here, and none that loads a module (families are listed,
//! not looked up by name, for which the kernel would load one).
//!
//! Source: `Documentation/userspace-api/netlink/intro.rst`, linux/netlink.h, linux/genetlink.h.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// What of `nla_type` is flags: nested, and in network byte order.
const NLA_FLAGS: u16 = 0xc000;

/// The controller's family (`GENL_ID_CTRL`), its command that lists, and what it lists.
const CONTROL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// No message of the kernel's is larger than 32 KiB.
const BUFFER: usize = 64 << 10;
/// The kernel answers while it is asked; this ends a wait for what does not come.
const PATIENCE: Duration = Duration::from_secs(2);
/// No table of the kernel's that is read here has as many messages.
const MESSAGES: usize = 1 << 16;

/// A message of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`: the family, or what the kernel says of the request.
    pub kind: u16,
    /// `nlmsg_seq` of the request that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages that are whole.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(part(rest, 0)?)).ok()?;
        let message = Message {
            kind: u16::from_ne_bytes(part(rest, 4)?),
            sequence: u32::from_ne_bytes(part(rest, 8)?),
            payload: rest.get(HEADER..length)?,
        };
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes that are whole: `(type, value)`.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(part(rest, 0)?));
        let kind = u16::from_ne_bytes(part(rest, 2)?) & !NLA_FLAGS;
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// An attribute, with what pads it.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = u16::try_from(length)
        .unwrap_or(u16::MAX)
        .to_ne_bytes()
        .to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(length), 0);
    bytes
}

/// A request of a generic netlink family.
pub(crate) struct Request<'a> {
    /// The family's number in this boot.
    pub family: u16,
    /// The family's command.
    pub command: u8,
    /// Attributes.
    pub body: &'a [u8],
}

impl Request<'_> {
    fn put(&self, bytes: &mut Vec<u8>, flags: u16, sequence: u32) {
        let length = HEADER + GENERIC_HEADER + self.body.len();
        bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend(self.family.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend([self.command, 1, 0, 0]);
        bytes.extend(self.body);
        bytes.resize(aligned(bytes.len()), 0);
    }
}

/// A generic netlink socket that hears the kernel alone.
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(GENERIC),
        )?;
        // A connected socket takes nothing that another process sends.
        rustix::net::connect(&fd, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self {
            fd,
            buffer: vec![0; BUFFER],
            sequence: 0,
        })
    }

    /// Sends some requests at once, and gives the attributes of the answer to each; `None` where
    /// the kernel refused.
    pub(crate) fn ask(&mut self, requests: &[Request]) -> io::Result<Vec<Option<Vec<u8>>>> {
        let mut bytes = Vec::new();
        let first = self.sequence + 1;
        for request in requests {
            self.sequence += 1;
            request.put(&mut bytes, 0, self.sequence);
        }
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())?;
        let mut answers = vec![None; requests.len()];
        let mut left = requests.len();
        while left > 0 {
            for message in messages(receive(&self.fd, &mut self.buffer)?) {
                let at = message.sequence.wrapping_sub(first);
                let Some(answer) = usize::try_from(at).ok().and_then(|at| answers.get_mut(at))
                else {
                    continue;
                };
                left = left.saturating_sub(1);
                if message.kind > NLMSG_DONE {
                    *answer = message.payload.get(GENERIC_HEADER..).map(<[u8]>::to_vec);
                }
            }
        }
        Ok(answers)
    }

    /// The attributes of each thing in a table; those before the first one that the kernel could
    /// not tell.
    pub(crate) fn dump(&mut self, request: &Request) -> io::Result<Vec<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.sequence += 1;
        request.put(&mut bytes, NLM_F_DUMP, self.sequence);
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())?;
        let mut found = Vec::new();
        for _ in 0..MESSAGES {
            for message in messages(receive(&self.fd, &mut self.buffer)?) {
                if message.sequence != self.sequence {
                    continue;
                }
                if matches!(message.kind, NLMSG_ERROR | NLMSG_DONE) {
                    return Ok(found);
                }
                found.extend(message.payload.get(GENERIC_HEADER..).map(<[u8]>::to_vec));
            }
        }
        Err(Errno::OVERFLOW.into())
    }

    /// The numbers of families by their names.
    pub(crate) fn families(&mut self) -> io::Result<Vec<(String, u16)>> {
        let listed = self.dump(&Request {
            family: CONTROL,
            command: CTRL_CMD_GETFAMILY,
            body: &[],
        })?;
        let family = |bytes: &Vec<u8>| {
            let of = |wanted| attributes(bytes).find(|(kind, _)| *kind == wanted);
            let (_, id) = of(CTRL_ATTR_FAMILY_ID)?;
            let (_, name) = of(CTRL_ATTR_FAMILY_NAME)?;
            let name = name.split(|byte| *byte == 0).next()?;
            Some((
                String::from_utf8_lossy(name).into_owned(),
                u16::from_ne_bytes(id.try_into().ok()?),
            ))
        };
        Ok(listed.iter().filter_map(family).collect())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn receive<'a>(fd: &OwnedFd, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    loop {
        match rustix::net::recv(fd, buffer.as_mut_slice(), RecvFlags::TRUNC) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            // What did not fit is not told by halves.
            Ok((_, length)) if length > BUFFER => return Err(Errno::MSGSIZE.into()),
            Ok((_, length)) => return Ok(&buffer[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_end_where_one_does_not_fit() {
        let mut bytes = attribute(1, b"abc");
        bytes.extend(attribute(2 | 0x8000, b""));
        bytes.extend([200, 0, 3, 0, 1]);
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(1, &b"abc"[..]), (2, &b""[..])]);
        for short in [&[][..], &[4], &[3, 0, 1, 0], &[0, 0, 1, 0]] {
            assert_eq!(attributes(short).count(), 0, "{short:?}");
        }
    }

    #[test]
    fn messages_end_where_one_does_not_fit() {
        let mut bytes = Vec::new();
        let request = Request {
            family: 30,
            command: 4,
            body: &attribute(1, &[7]),
        };
        request.put(&mut bytes, NLM_F_DUMP, 5);
        request.put(&mut bytes, 0, 6);
        let found: Vec<_> = messages(&bytes).map(|m| (m.kind, m.sequence)).collect();
        assert_eq!(found, [(30, 5), (30, 6)]);
        assert_eq!(messages(&bytes[..bytes.len() - 1]).count(), 1);
        // A length of nothing would go on for ever.
        assert_eq!(messages(&[0; 64]).count(), 0);
    }

    #[test]
    fn the_kernel_lists_its_families() {
        let families = Socket::open().unwrap().families().unwrap();
        assert!(families.contains(&("nlctrl".into(), CONTROL)));
    }
}
