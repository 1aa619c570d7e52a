//! Wire NICs → sealed ones.

use bmslice_model::{MacAddress, VlanId};

use crate::decode::Field;
use crate::diagnostic::{Mistake, Span, shown};
use crate::rules::Path;
use crate::seal::Sealer;
use crate::sealed::{FabricSpec, GuestNetwork, NicChoice, NicKind, NicNuma, NicSpec};
use crate::vf::{VfLink, VfRules};
use crate::wire;

/// Stands in for a choice that is wrong and noted: it breaks no rule.
const ANY: NicChoice = NicChoice::Need {
    speed: None,
    numa: NicNuma::Any,
};

/// Whether a NIC is to be taken from the host; of what cannot be, the rules tell.
fn taken_from_host(field: &Field<wire::Device>) -> bool {
    match field {
        Field::Given(wire::Device::Fields(fields), _) => {
            matches!(fields.take_from_host, Field::Given(true, _))
        }
        Field::Given(wire::Device::Text(_), _) | Field::Absent | Field::Bad(_) => false,
    }
}

impl Sealer<'_> {
    pub(crate) fn nics(&self, field: Field<Vec<Field<wire::Nic>>>, at: &Path) -> Vec<NicSpec> {
        let Field::Given(nics, _) = field else {
            return Vec::new();
        };
        let sealed = nics.into_iter().enumerate().map(|(i, nic)| match nic {
            Field::Given(nic, span) => self.nic(nic, &span, &at.index(i)),
            Field::Bad(_) => NicSpec {
                kind: NicKind::Passthrough { device: ANY },
                fabric: None,
                network: None,
                take_from_host: false,
            },
            Field::Absent => self.nic(wire::Nic::default(), &self.span(&at.index(i)), &at.index(i)),
        });
        sealed.collect()
    }

    fn nic(&self, nic: wire::Nic, span: &Span, at: &Path) -> NicSpec {
        let given = [
            !matches!(nic.passthrough, Field::Absent),
            !matches!(nic.vf, Field::Absent),
            !matches!(nic.virtio, Field::Absent),
        ];
        if given.iter().filter(|g| **g).count() != 1 {
            let message = "a NIC is one of `passthrough`, `vf` and `virtio`";
            self.sink.note(Mistake::new(span.clone(), message).hint(
                "write `passthrough: eno1`, `vf: { of: eno2, vlan: 101 }` or `virtio: { network: default }`",
            ));
        }
        let take_from_host = taken_from_host(&nic.passthrough)
            || matches!(&nic.vf, Field::Given(vf, _) if taken_from_host(&vf.of));
        let kind = match (nic.passthrough, nic.vf, nic.virtio) {
            (Field::Given(device, span), _, _) => NicKind::Passthrough {
                device: self.device(device, &span),
            },
            (_, Field::Given(vf, _), _) => self.vf(vf, &at.field("vf")),
            (_, _, Field::Given(virtio, _)) => {
                let at = at.field("virtio");
                let what = "a libvirt network, as `network: default`";
                let network = self.required(virtio.network, &at, "network", what);
                NicKind::Virtio {
                    network: network.unwrap_or_else(|| "default".into()),
                    mac: self.mac(virtio.mac),
                }
            }
            _ => NicKind::Passthrough { device: ANY },
        };
        let fabric = match nic.fabric {
            Field::Given(fabric, _) => Some(FabricSpec {
                port: Self::text(fabric.port),
                vlan: self.vlan(fabric.vlan),
                vlan_name: Self::text(fabric.vlan_name),
            }),
            Field::Absent | Field::Bad(_) => None,
        };
        let network = match nic.network {
            Field::Given(network, _) => Some(GuestNetwork {
                dhcp4: Self::flag(&network.dhcp4, false),
                addresses: Self::texts(network.addresses),
                gateway4: Self::text(network.gateway4),
                nameservers: Self::texts(network.nameservers),
            }),
            Field::Absent | Field::Bad(_) => None,
        };
        NicSpec {
            kind,
            fabric,
            network,
            take_from_host,
        }
    }

    fn vf(&self, vf: wire::Vf, at: &Path) -> NicKind {
        let span = self.span(&at.field("of"));
        let of = self.required(vf.of, at, "of", "the NIC that is split, as `of: eno2`");
        NicKind::Vf {
            of: of.map_or(ANY, |of| self.device(of, &span)),
            vlan: self.vlan(vf.vlan),
            mac: self.mac(vf.mac),
            rules: VfRules {
                trust: Self::flag(&vf.trust, false),
                spoof_check: Self::flag(&vf.spoof_check, true),
                max_rate: self.rate(vf.max_rate),
                link: match vf.link {
                    Field::Given(wire::VfLink::Up, _) => VfLink::Up,
                    Field::Given(wire::VfLink::Down, _) => VfLink::Down,
                    Field::Given(wire::VfLink::Auto, _) | Field::Absent | Field::Bad(_) => {
                        VfLink::Auto
                    }
                },
            },
        }
    }

    fn device(&self, device: wire::Device, span: &Span) -> NicChoice {
        let fields = match device {
            // A name never has a colon; an address always has.
            wire::Device::Text(text) => {
                let choice = if text.parse::<MacAddress>().is_ok() {
                    self.parsed(&text, span).map(NicChoice::Mac)
                } else if text.contains(':') {
                    self.parsed(&text, span).map(NicChoice::Pci)
                } else {
                    Some(NicChoice::Name(text))
                };
                return choice.unwrap_or(ANY);
            }
            wire::Device::Fields(fields) => fields,
        };
        let given = |absent: bool, name: &'static str| (!absent).then_some(name);
        let by: Vec<&str> = [
            given(matches!(fields.pci, Field::Absent), "pci"),
            given(matches!(fields.name, Field::Absent), "name"),
            given(matches!(fields.mac, Field::Absent), "mac"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let needs: Vec<&str> = [
            given(matches!(fields.speed, Field::Absent), "speed"),
            given(matches!(fields.numa, Field::Absent), "numa"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mistake = |message: String| Mistake::new(span.clone(), message);
        match (by.as_slice(), needs.as_slice()) {
            ([first, second, ..], _) => {
                self.sink.note(
                    mistake(format!(
                        "a NIC is chosen by `{first}` or by `{second}`, not by both"
                    ))
                    .hint("leave one out"),
                );
            }
            ([by], [need, ..]) => {
                self.sink.note(
                    mistake(format!(
                        "a NIC is chosen by `{by}` or by `{need}`, not by both"
                    ))
                    .hint(format!(
                        "a NIC with a given `{by}` is taken as it is: leave `{need}` out"
                    )),
                );
            }
            _ => {}
        }
        let speed = self.speed(fields.speed);
        let numa = match fields.numa {
            Field::Given(wire::Near::Prefer, _) => NicNuma::Prefer,
            Field::Given(wire::Near::Any, _) => NicNuma::Any,
            _ => NicNuma::Same,
        };
        let choice = match by.first() {
            Some(&"pci") => self.optional(fields.pci).map(NicChoice::Pci),
            Some(&"name") => Self::text(fields.name).map(NicChoice::Name),
            Some(_) => self.optional(fields.mac).map(NicChoice::Mac),
            None => Some(NicChoice::Need { speed, numa }),
        };
        choice.unwrap_or(ANY)
    }

    fn mac(&self, field: Field<String>) -> Option<MacAddress> {
        match field {
            Field::Given(text, _) if text == "auto" => None,
            field => self.optional(field),
        }
    }

    fn vlan(&self, field: Field<i64>) -> Option<VlanId> {
        let Field::Given(number, span) = field else {
            return None;
        };
        let Ok(unsigned) = u64::try_from(number) else {
            let message = format!("VLAN {number} does not exist");
            let hint = "1 to 4094 can be used (IEEE 802.1Q)";
            self.sink.note(Mistake::new(span, message).hint(hint));
            return None;
        };
        VlanId::new(unsigned)
            .map_err(|error| self.noted(&error, &span))
            .ok()
    }

    /// A limit: none at all is written by leaving it out.
    fn rate(&self, field: Field<String>) -> Option<u32> {
        let span = match &field {
            Field::Given(_, span) => span.clone(),
            Field::Absent | Field::Bad(_) => return None,
        };
        let rate = self.speed(field)?;
        if rate == 0 {
            let mistake = Mistake::new(span, "a VF that may send nothing is of no use");
            self.sink
                .note(mistake.hint("leave `maxRate` out, and it sends as fast as the link"));
            return None;
        }
        Some(rate)
    }

    /// Mbit/s of `10G` or `1000M`.
    fn speed(&self, field: Field<String>) -> Option<u32> {
        let Field::Given(text, span) = field else {
            return None;
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: Option<u32> = number.parse().ok();
        let speed = match (number, unit) {
            (Some(number), "G") => number.checked_mul(1000),
            (Some(number), "M") => Some(number),
            _ => None,
        };
        if speed.is_none() {
            let near = match (number, unit.chars().next()) {
                (Some(n), Some('g' | 'G')) => format!("write `{n}G`"),
                (Some(n), Some('m' | 'M')) => format!("write `{n}M`"),
                (Some(n), None) if n >= 1000 && n.is_multiple_of(1000) => {
                    format!("write `{}G`, if Mbit/s were meant", n / 1000)
                }
                (Some(n), None) => format!("write `{n}G` or `{n}M`"),
                _ => "write `10G` or `1000M`".into(),
            };
            let message = format!("`{}` is not a speed in Gbit/s or Mbit/s", shown(&text));
            self.sink.note(Mistake::new(span, message).hint(near));
        }
        speed
    }
}
