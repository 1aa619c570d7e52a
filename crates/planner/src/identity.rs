//! Names that must be the same in every plan for the same server and slice: UUIDs and MACs.
//!
//! Takes the server's host name and a slice's name; gives what a hash makes of them. Nothing is
//! drawn by lot, so that planning twice gives the same bytes.

use bmslice_model::{MacAddress, SliceName};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The namespace of all UUIDs of slices.
fn namespace() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"bmslice")
}

/// A domain's UUID: version 5 (RFC 9562), of server and slice.
pub(crate) fn uuid(hostname: &str, slice: &SliceName) -> String {
    // A host name holds no slash, so that no two pairs give one text.
    Uuid::new_v5(&namespace(), format!("{hostname}/{slice}").as_bytes()).to_string()
}

/// A locally administered unicast MAC (first byte 02, IEEE 802c) for a card of a slice that has
/// none of its own. `attempt` tells apart what would collide.
pub(crate) fn mac(hostname: &str, slice: &SliceName, nic: usize, attempt: u32) -> MacAddress {
    let hash = Sha256::digest(format!("bmslice mac {hostname}/{slice}/{nic}/{attempt}").as_bytes());
    MacAddress::new([0x02, hash[0], hash[1], hash[2], hash[3], hash[4]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_names_are_stable_and_differ_by_server_slice_and_card() {
        let (a, b): (SliceName, SliceName) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!(uuid("server1", &a), uuid("server1", &a));
        assert_eq!(uuid("server1", &a).as_bytes()[14], b'5', "version 5");
        assert_ne!(uuid("server1", &a), uuid("server1", &b));
        assert_ne!(uuid("server1", &a), uuid("server2", &a));
        let first = mac("server1", &a, 0, 0);
        assert_eq!(first.bytes()[0], 0x02);
        assert_eq!(first, mac("server1", &a, 0, 0));
        assert_ne!(first, mac("server1", &a, 1, 0));
        assert_ne!(first, mac("server1", &a, 0, 1));
    }
}
