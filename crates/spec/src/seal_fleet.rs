//! The wire's fleet → the sealed one.

use std::collections::BTreeMap;

use crate::decode::Field;
use crate::fleet::{FleetSpec, LabelledServer, Place, Selector};
use crate::rules::Path;
use crate::seal::Sealer;
use crate::wire_fleet as wire;

impl Sealer<'_> {
    /// The fleet, and whole cores of headroom.
    pub(crate) fn fleet(&self, field: Field<wire::Fleet>) -> (FleetSpec, u32) {
        let Field::Given(fleet, _) = field else {
            return (FleetSpec::default(), 0);
        };
        let headroom = match fleet.headroom {
            Field::Given(headroom, _) => {
                self.count(headroom.cores, 0, "the number of cores of headroom")
            }
            Field::Absent | Field::Bad(_) => 0,
        };
        let at = Path::default().field("fleet").field("servers");
        let written = match fleet.servers {
            Field::Given(servers, _) => servers,
            Field::Absent | Field::Bad(_) => Vec::new(),
        };
        let servers = written.into_iter().enumerate().map(|(i, server)| {
            let at = at.index(i);
            let server = match server {
                Field::Given(server, _) => server,
                Field::Absent => wire::LabelledServer::default(),
                // Noted already; it keeps its place.
                Field::Bad(_) => {
                    return LabelledServer {
                        name: format!("unread-{i}"),
                        labels: BTreeMap::new(),
                    };
                }
            };
            let name = self.required(server.name, &at, "name", "its host name, as `name: edge1`");
            LabelledServer {
                name: name.unwrap_or_else(|| format!("unnamed-{i}")),
                labels: self.labels(server.labels, &at.field("labels")),
            }
        });
        let fleet = FleetSpec {
            place: match fleet.place {
                Field::Given(wire::Place::Spread, _) => Place::Spread,
                _ => Place::Pack,
            },
            servers: servers.collect(),
        };
        (fleet, headroom)
    }

    pub(crate) fn selector(
        &self,
        field: Field<wire::Labels>,
        fleet: &FleetSpec,
        at: &Path,
    ) -> Option<Selector> {
        match field {
            given @ Field::Given(..) => Some(Selector::new(self.labels(given, at), fleet)),
            Field::Absent | Field::Bad(_) => None,
        }
    }

    /// Those that could be read.
    fn labels(&self, field: Field<wire::Labels>, at: &Path) -> BTreeMap<String, String> {
        let Field::Given(labels, _) = field else {
            return BTreeMap::new();
        };
        let mut sealed = BTreeMap::new();
        for (key, value) in labels {
            let value = match value {
                Field::Given(value, _) => value,
                Field::Absent => {
                    let mistake = crate::diagnostic::Mistake::new(
                        self.span(&at.key(&key)),
                        format!(
                            "the label `{}` has no value",
                            crate::diagnostic::shown(&key)
                        ),
                    );
                    self.sink.note(mistake.hint("write one, as `zone: a`"));
                    continue;
                }
                Field::Bad(_) => continue,
            };
            sealed.insert(key, value);
        }
        sealed
    }
}
