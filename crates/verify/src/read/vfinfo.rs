//! The settings of virtual functions as the physical one holds them: `ip -j link show dev PF`.

use bmslice_model::{MacAddress, VlanId};
use bmslice_spec::VfLink;
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
    /// Whether frames with another sender's MAC are dropped; `None` when the driver does not tell.
    pub spoof_check: Option<bool>,
    /// The most that it sends, in Mbit/s; `None` is as fast as the link.
    pub max_rate: Option<u32>,
    /// The link that the guest sees; `None` when the driver does not tell.
    pub link: Option<VfLink>,
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
    spoofchk: Option<bool>,
    #[serde(default)]
    rate: Rate,
    link_state: Option<String>,
}

/// Mbit/s; 0 is no limit.
#[derive(Default, Deserialize)]
struct Rate {
    #[serde(default)]
    max_tx: u32,
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
            spoof_check: vf.spoofchk,
            max_rate: (vf.rate.max_tx > 0).then_some(vf.rate.max_tx),
            link: vf.link_state.as_deref().and_then(VfLink::from_word),
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
              {"vf":1,"link_type":"ether","address":"52:54:00:00:00:01","broadcast":"ff:ff:ff:ff:ff:ff","vlan_list":[{"vlan":102}],"rate":{"max_tx":500,"min_tx":0},"spoofchk":false,"link_state":"enable","trust":false},
              {"vf":0,"link_type":"ether","address":"00:00:00:00:00:00","broadcast":"ff:ff:ff:ff:ff:ff","spoofchk":true,"link_state":"auto","trust":true}]}]"#,
        )
        .unwrap();
        assert_eq!(states[0].index, 0);
        assert!(states[0].mac.unwrap().is_zero() && states[0].vlan.is_none());
        assert_eq!(states[0].trust, Some(true));
        let rules = |state: &VfState| (state.spoof_check, state.max_rate, state.link);
        assert_eq!(rules(&states[0]), (Some(true), None, Some(VfLink::Auto)));
        assert_eq!(
            rules(&states[1]),
            (Some(false), Some(500), Some(VfLink::Up))
        );
        assert_eq!(states[1].vlan, Some(VlanId::new(102).unwrap()));
        assert_eq!(states[1].mac.unwrap().to_string(), "52:54:00:00:00:01");
        assert!(parse("[{}]").unwrap().is_empty());
        assert!(parse("Device \"x\" does not exist.").is_err());
    }
}
