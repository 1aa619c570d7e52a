//! The settings of virtual functions as the physical one holds them: `ip -j link show dev PF`.

use bmslice_model::{MacAddress, VlanId};
use serde::Deserialize;

/// What a physical function enforces for one of its virtual functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VfState {
    /// Its index.
    pub index: u32,
    /// Its administrative MAC; zero when none was set.
    pub mac: Option<MacAddress>,
    /// The VLAN that is added and taken away.
    pub vlan: Option<VlanId>,
    /// Whether the guest may change its MAC and go promiscuous; `None` when the driver does not
    /// tell.
    pub trust: Option<bool>,
}

#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    vfinfo_list: Vec<Vf>,
}

#[derive(Deserialize)]
struct Vf {
    vf: u32,
    // `mac` before iproute2 5.1.
    #[serde(alias = "mac")]
    address: Option<MacAddress>,
    #[serde(default)]
    vlan_list: Vec<Vlan>,
    #[serde(default)]
    vlan: u64,
    trust: Option<bool>,
}

#[derive(Deserialize)]
struct Vlan {
    #[serde(default)]
    vlan: u64,
}

/// The virtual functions that `ip` tells of, by index.
///
/// # Errors
/// What is wrong with the JSON.
pub(crate) fn parse(json: &str) -> Result<Vec<VfState>, serde_json::Error> {
    let links: Vec<Link> = serde_json::from_str(json)?;
    let mut states: Vec<VfState> = links
        .into_iter()
        .flat_map(|link| link.vfinfo_list)
        .map(|vf| VfState {
            index: vf.vf,
            mac: vf.address,
            vlan: vf
                .vlan_list
                .iter()
                .map(|vlan| vlan.vlan)
                .chain([vf.vlan])
                .find_map(|number| VlanId::new(number).ok()),
            trust: vf.trust,
        })
        .collect();
    states.sort_by_key(|state| state.index);
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mac_vlan_and_trust() {
        let states = parse(
            r#"[{"ifindex":5,"ifname":"enp129s0","vfinfo_list":[
              {"vf":1,"link_type":"ether","address":"52:54:00:00:00:01","broadcast":"ff:ff:ff:ff:ff:ff","vlan_list":[{"vlan":102}],"spoofchk":true,"link_state":"auto","trust":false},
              {"vf":0,"link_type":"ether","address":"00:00:00:00:00:00","broadcast":"ff:ff:ff:ff:ff:ff","spoofchk":true,"link_state":"auto","trust":true}]}]"#,
        )
        .unwrap();
        assert_eq!(states[0].index, 0);
        assert!(states[0].mac.unwrap().is_zero() && states[0].vlan.is_none());
        assert_eq!(states[0].trust, Some(true));
        assert_eq!(states[1].vlan, Some(VlanId::new(102).unwrap()));
        assert_eq!(states[1].mac.unwrap().to_string(), "52:54:00:00:00:01");
        assert!(parse("[{}]").unwrap().is_empty());
        assert!(parse("Device \"x\" does not exist.").is_err());
    }
}
