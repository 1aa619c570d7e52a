//! `SIOCETHTOOL`: the driver's name and versions, and the permanent address, for which ethtool's
//! netlink family has no message.
//!
//! Takes a socket and the name of an interface; gives bytes as the kernel wrote them. Keeps true:
//! the one block with `unsafe` lends the kernel a buffer that is as long as it is told or longer,
//! and that outlives the call.
#![allow(
    unsafe_code,
    reason = "SIOCETHTOOL is in no safe binding; what it takes is a pointer in a struct"
)]

use std::os::fd::{AsFd, AsRawFd};

/// `ETHTOOL_GDRVINFO`, and the length of what it gives (`struct ethtool_drvinfo`).
const DRIVER_INFO: u32 = 0x3;
const DRIVER_INFO_LENGTH: usize = 196;
/// `ETHTOOL_GPERMADDR`: command and size, then room for `MAX_ADDR_LEN` bytes.
const PERMANENT_ADDRESS: u32 = 0x20;
const ADDRESS_LENGTH: u32 = 32;

/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: u32 = 0x8946;

/// Longer than anything that the two commands write.
#[repr(C, align(8))]
struct Buffer([u8; 256]);

/// `struct ethtool_drvinfo` of an interface.
pub(super) fn driver_info(socket: impl AsFd, name: &str) -> Option<Vec<u8>> {
    let mut buffer = Buffer([0; 256]);
    buffer.0[..4].copy_from_slice(&DRIVER_INFO.to_ne_bytes());
    call(socket, name, &mut buffer)?;
    Some(buffer.0[..DRIVER_INFO_LENGTH].to_vec())
}

/// The permanent address of an interface.
pub(super) fn permanent_address(socket: impl AsFd, name: &str) -> Option<Vec<u8>> {
    let mut buffer = Buffer([0; 256]);
    buffer.0[..4].copy_from_slice(&PERMANENT_ADDRESS.to_ne_bytes());
    // How much the kernel may write, as it takes it; it writes no more.
    buffer.0[4..8].copy_from_slice(&ADDRESS_LENGTH.to_ne_bytes());
    call(socket, name, &mut buffer)?;
    let length = u32::from_ne_bytes(buffer.0[4..8].try_into().ok()?);
    let length = usize::try_from(length.min(ADDRESS_LENGTH)).ok()?;
    Some(buffer.0[8..8 + length].to_vec())
}

fn call(socket: impl AsFd, name: &str, buffer: &mut Buffer) -> Option<()> {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    // A name that fills the field would have no end.
    if name.is_empty() || name.len() >= ifr_name.len() {
        return None;
    }
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let mut request = libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: buffer.0.as_mut_ptr().cast(),
        },
    };
    // SAFETY: the socket is open for as long as it is lent; `request` is a whole `struct ifreq`,
    // and its pointer that of 256 bytes that nobody else has while the kernel writes at most 196
    // (`ETHTOOL_GDRVINFO`) or 8 + 32 of them (`ETHTOOL_GPERMADDR`).
    let answer = unsafe {
        libc::ioctl(
            socket.as_fd().as_raw_fd(),
            SIOCETHTOOL.into(),
            &raw mut request,
        )
    };
    (answer == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Socket;

    #[test]
    fn what_is_no_interface_has_no_answer() {
        let socket = Socket::open().unwrap();
        for name in ["", "bmslice-none", "a-name-that-is-too-long-for-any"] {
            assert_eq!(driver_info(&socket, name), None, "{name}");
            assert_eq!(permanent_address(&socket, name), None, "{name}");
        }
    }

    #[test]
    fn the_loopback_interface_has_no_permanent_address() {
        let socket = Socket::open().unwrap();
        let address = permanent_address(&socket, "lo").unwrap();
        assert_eq!(address, [0; 6]);
    }
}
