//! Wire types → sealed ones, noting every text that does not mean what it should.
//!
//! A field that is wrong or missing is noted and stands in for itself with a value that breaks no
//! rule, so that the rules can be asked about everything else.

use std::str::FromStr;

use bmslice_model::{ByteSize, ByteSizeError, NumaNodeId, SliceName, TenantName};

use crate::decode::{Field, Sink};
use crate::diagnostic::{Mistake, Span, shown};
use crate::fleet::FleetSpec;
use crate::replicas::Written;
use crate::rules::{Path, Step};
use crate::sealed::{
    GuestMachine, GuestSpec, GuestUser, HostSpec, ImageFrom, ImageSpec, Numa, Setup, Sharing,
    SliceSpec, Smt, UP_WITHIN_SECONDS, VcpuOrder,
};
use crate::wire;
use crate::yaml::{Kind, Node};

pub(crate) const API_VERSION: &str = "bmslice/v1";
pub(crate) const KIND: &str = "Slicing";

/// Without what moves a cursor.
fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(plain).collect()
}

/// Converts, noting mistakes in the sink.
pub(crate) struct Sealer<'a> {
    pub(crate) sink: &'a Sink,
    pub(crate) root: &'a Node,
}

/// The node at a path, or the nearest one above it; for a mapping's element its key would do as
/// well, but the value is what is wrong.
pub(crate) fn locate<'a>(root: &'a Node, path: &Path) -> (&'a Node, usize) {
    walk(root, path.steps())
}

/// Where a path's node stands, with the key that the user chose for it.
pub(crate) fn place(root: &Node, path: &Path) -> Span {
    let span = locate(root, path).0.span.clone();
    let Some((Step::Key(name), above)) = path.steps().split_last() else {
        return span;
    };
    let Kind::Map(entries) = &walk(root, above).0.kind else {
        return span;
    };
    let key = entries.iter().find(|(key, _)| key.text == *name);
    match key {
        Some((key, _)) if key.span.start < span.start => key.span.start..span.end,
        _ => span,
    }
}

fn walk<'a>(root: &'a Node, steps: &[Step]) -> (&'a Node, usize) {
    let mut node = root;
    for (depth, step) in steps.iter().enumerate() {
        let next = match step {
            Step::Field(name) => node.get(name),
            Step::Index(index) => node.item(*index),
            Step::Key(key) => node.get(key),
        };
        match next {
            Some(next) => node = next,
            None => return (node, depth),
        }
    }
    (node, steps.len())
}

/// Whether this document is a spec at all: a wrong `apiVersion` or `kind` makes every other field
/// look wrong, and that is not the mistake.
pub(crate) fn is_spec(root: &Node, sink: &Sink) -> bool {
    if !matches!(root.kind, Kind::Map(_)) {
        let message = format!("a spec is a mapping, and this is {}", root.describe());
        sink.note(
            Mistake::new(root.span.clone(), message)
                .hint("it starts with `apiVersion: bmslice/v1` and `kind: Slicing`"),
        );
        return false;
    }
    let mut right = true;
    for (name, want) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let Some(node) = root.get(name) else { continue };
        if let Kind::Scalar { text, .. } = &node.kind
            && text != want
        {
            let message = format!(
                "`{name}` is `{}`, which is no spec of this bmslice",
                shown(text)
            );
            sink.note(
                Mistake::new(node.span.clone(), message).hint(format!("write `{name}: {want}`")),
            );
            right = false;
        }
    }
    right
}

impl Sealer<'_> {
    /// The host, and the slices with their places in the list: a slice that is no mapping is left
    /// out.
    pub(crate) fn file(&self, file: wire::File) -> (HostSpec, FleetSpec, Vec<(usize, SliceSpec)>) {
        let root = Path::default();
        self.required(
            file.api_version,
            &root,
            "apiVersion",
            "`apiVersion: bmslice/v1`",
        );
        self.required(file.kind, &root, "kind", "`kind: Slicing`");
        let mut host = self.host(file.host);
        let (fleet, headroom_cores) = self.fleet(file.fleet);
        host.headroom_cores = headroom_cores;
        let written = self.required(file.slices, &root, "slices", "a list of slices");
        let mut explicit_tenants = Vec::new();
        let mut own_tenants = Vec::new();
        let mut slices = Vec::new();
        for (i, field) in written.into_iter().flatten().enumerate() {
            let at = root.field("slices").index(i);
            let slice = match field {
                Field::Given(slice, _) => slice,
                Field::Bad(_) => continue,
                Field::Absent => {
                    let mistake = Mistake::new(self.span(&at), "an empty slice");
                    self.sink
                        .note(mistake.hint("write its `name`, `vcpus`, `memory` and `image`"));
                    continue;
                }
            };
            let tenant = match &slice.tenant {
                Field::Given(_, span) => Some(span.clone()),
                _ => None,
            };
            let written = Written::of(&slice);
            let selector = slice.selector.clone();
            let Some(mut slice) = self.slice(slice, &at, i) else {
                continue;
            };
            slice.selector = self.selector(selector, &fleet, &at.field("selector"));
            match tenant {
                Some(_) => explicit_tenants.push((slice.tenant.clone(), slice.name.clone())),
                None => own_tenants.push((slice.name.clone(), at.field("name"))),
            }
            let expanded = self.replicas(slice, &written, &at, slices.len());
            slices.extend(expanded.into_iter().map(|slice| (i, slice)));
        }
        self.names_of_replicas(&slices);
        for (name, at) in own_tenants {
            let other = explicit_tenants
                .iter()
                .find(|(t, _)| t.as_str() == name.as_str());
            if let Some((_, other)) = other {
                let message = format!(
                    "slice `{name}` has no tenant, while `{name}` is the tenant of slice `{other}`"
                );
                self.sink.note(
                    Mistake::new(self.span(&at), message)
                        .hint(format!("give `{name}` a `tenant`, the same or another")),
                );
            }
        }
        (host, fleet, slices)
    }

    /// The span of a path's node; of what is above when it is not there.
    pub(crate) fn span(&self, path: &Path) -> Span {
        place(self.root, path)
    }

    /// A field that must be there; notes when it is not.
    pub(crate) fn required<T>(
        &self,
        field: Field<T>,
        owner: &Path,
        name: &'static str,
        what: &str,
    ) -> Option<T> {
        match field {
            Field::Given(value, _) => Some(value),
            Field::Bad(_) => None,
            Field::Absent => {
                if self.sink.was_meant(self.span(owner).start, name) {
                    return None;
                }
                let (node, depth) = locate(self.root, &owner.field(name));
                let there = depth > owner.steps().len();
                let owner_name = match owner.steps().last() {
                    None => "the spec".into(),
                    Some(Step::Field(name)) => format!("`{name}`"),
                    Some(Step::Key(key)) => format!("`{}`", shown(key)),
                    Some(Step::Index(_)) => match owner.steps() {
                        [Step::Field("slices"), _] => "the slice".into(),
                        [Step::Field("fleet"), ..] => "the server".into(),
                        _ => "this element".to_owned(),
                    },
                };
                let message = if there {
                    format!("`{name}` has no value")
                } else {
                    format!("{owner_name} has no `{name}`")
                };
                let mistake = Mistake::new(node.span.clone(), message);
                self.sink.note(mistake.hint(format!("write {what}")));
                None
            }
        }
    }

    /// A number of the file; the rules judge whether it is possible, so only the sign and 32 bits
    /// are judged here.
    pub(crate) fn count(&self, field: Field<i64>, default: u32, what: &str) -> u32 {
        match field {
            Field::Given(number, span) => u32::try_from(number).unwrap_or_else(|_| {
                let message = format!("{what} cannot be {number}");
                self.sink.note(Mistake::new(span, message));
                default
            }),
            Field::Absent | Field::Bad(_) => default,
        }
    }

    pub(crate) fn flag(field: &Field<bool>, default: bool) -> bool {
        match field {
            Field::Given(flag, _) => *flag,
            Field::Absent | Field::Bad(_) => default,
        }
    }

    /// A text of a model type. What its error says after `: write` is the hint.
    pub(crate) fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &self,
        text: &str,
        span: &Span,
    ) -> Option<T> {
        text.parse()
            .map_err(|error: T::Err| self.noted(&error, span))
            .ok()
    }

    /// Notes a model type's error.
    pub(crate) fn noted(&self, error: &dyn std::fmt::Display, span: &Span) {
        let text = error.to_string();
        let (message, hint) = match text.split_once(": ") {
            Some((message, hint)) => (message, Some(hint)),
            None => (text.as_str(), None),
        };
        let mistake = Mistake::new(span.clone(), plain(message));
        self.sink.note(match hint {
            Some(hint) => mistake.hint(plain(hint)),
            None => mistake,
        });
    }

    pub(crate) fn optional<T: FromStr<Err: std::fmt::Display>>(
        &self,
        field: Field<String>,
    ) -> Option<T> {
        match field {
            Field::Given(text, span) => self.parsed(&text, &span),
            Field::Absent | Field::Bad(_) => None,
        }
    }

    pub(crate) fn text(field: Field<String>) -> Option<String> {
        match field {
            Field::Given(text, _) => Some(text),
            Field::Absent | Field::Bad(_) => None,
        }
    }

    pub(crate) fn texts(field: Field<Vec<Field<String>>>) -> Vec<String> {
        match field {
            Field::Given(texts, _) => texts
                .into_iter()
                // An element without a value keeps its place, for the rules to refuse it.
                .map(|text| Self::text(text).unwrap_or_default())
                .collect(),
            Field::Absent | Field::Bad(_) => Vec::new(),
        }
    }

    /// A slice; `None` only when its number is no name, which cannot be.
    fn slice(&self, slice: wire::Slice, at: &Path, index: usize) -> Option<SliceSpec> {
        let name: Option<SliceName> = match slice.name {
            Field::Given(text, span) => self.parsed(&text, &span),
            other => {
                self.required(
                    other,
                    at,
                    "name",
                    "the name of its libvirt domain, as `name: red`",
                );
                None
            }
        };
        let name = name.or_else(|| format!("unnamed-{index}").parse().ok())?;
        let own_tenant = || TenantName::try_from(String::from(name.clone())).ok();
        let tenant = self.optional(slice.tenant).or_else(own_tenant)?;
        let vcpus = self.required(slice.vcpus, at, "vcpus", "how many vCPUs, as `vcpus: 8`");
        let vcpus = vcpus.and_then(|number| {
            let span = self.span(&at.field("vcpus"));
            let checked = u32::try_from(number).ok();
            if checked.is_none() {
                let message = format!("a guest cannot have {number} vCPUs");
                let hint = "1 to 4096 are possible with KVM";
                self.sink.note(Mistake::new(span, message).hint(hint));
            }
            checked
        });
        let (memory, hugepages) = self.memory(slice.memory, &at.field("memory"), at);
        let mut numa = self.numa(slice.numa);
        if vcpus.is_none() || memory.is_none() {
            numa = Numa::Single;
        }
        let (emulator_cores, shared_pool, iothreads) =
            self.threads(slice.emulator, slice.iothreads);
        let image = self.image(slice.image, at);
        let guest = GuestSpec {
            hostname: Self::text(slice.hostname).unwrap_or_else(|| name.hostname()),
            user: match slice.user {
                Field::Given(user, _) => self.user(user, &at.field("user")),
                Field::Absent | Field::Bad(_) => None,
            },
            first_commands: Self::texts(slice.first_commands),
        };
        Some(SliceSpec {
            tenant,
            vcpus: vcpus.unwrap_or(1),
            smt: match slice.smt {
                Field::Given(wire::Smt::Isolate, _) => Smt::Isolate,
                Field::Given(wire::Smt::Any, _) => Smt::Any,
                _ => Smt::Pack,
            },
            vcpu_order: match slice.vcpu_order {
                Field::Given(wire::VcpuOrder::SiblingsLast, _) => VcpuOrder::SiblingsLast,
                _ => VcpuOrder::SiblingsAdjacent,
            },
            sharing: match slice.sharing {
                Field::Given(wire::Sharing::Tenant, _) => Sharing::Tenant,
                _ => Sharing::None,
            },
            emulator_cores,
            shared_pool,
            iothreads,
            hugepages: memory.and(hugepages),
            memory: memory.unwrap_or(ByteSize::from_gib(1)),
            numa,
            nics: self.nics(slice.nics, &at.field("nics")),
            image,
            guest,
            machine: match slice.machine {
                Field::Given(wire::Machine::Pc, _) => GuestMachine::Pc,
                _ => GuestMachine::Q35,
            },
            autostart: Self::flag(&slice.autostart, true),
            up_within_seconds: self.count(
                slice.up_within_seconds,
                UP_WITHIN_SECONDS,
                "the seconds until a guest is up",
            ),
            server: Self::text(slice.server),
            apart: Self::text(slice.apart),
            name,
            replica: None,
            // The fleet's to tell.
            selector: None,
        })
    }

    fn memory(
        &self,
        field: Field<wire::Memory>,
        at: &Path,
        slice: &Path,
    ) -> (Option<ByteSize>, Option<ByteSize>) {
        let what = "its size, as `memory: { size: 8GiB, hugepages: 1GiB }`";
        let Some(memory) = self.required(field, slice, "memory", what) else {
            return (None, None);
        };
        let size = self.size(memory.size, at, "how much, as `size: 8GiB`");
        let hugepages = match memory.hugepages {
            Field::Given(wire::HugePages::Small, _) => Some(ByteSize::from_mib(2)),
            Field::Given(wire::HugePages::Large, _) => Some(ByteSize::from_gib(1)),
            _ => None,
        };
        (size, hugepages)
    }

    /// The required field `size` of a mapping.
    fn size(&self, field: Field<String>, owner: &Path, what: &str) -> Option<ByteSize> {
        let text = self.required(field, owner, "size", what)?;
        let span = self.span(&owner.field("size"));
        match text.parse::<ByteSize>() {
            Ok(size) => Some(size),
            Err(error) => {
                let mistake = Mistake::new(span, shown(&error.to_string()));
                self.sink.note(match error {
                    ByteSizeError::Malformed(_) => mistake
                        .message(format!("`{}` is not a size", shown(&text)))
                        .hint("write a whole number and a unit, as `8GiB`"),
                    ByteSizeError::NoUnit(number) => mistake
                        .message(format!("`{number}` has no unit"))
                        .hint(format!(
                            "write `{number}GiB`, `{number}MiB` or `{number}KiB`"
                        )),
                    ByteSizeError::Unit { unit, hint, .. } => mistake
                        .message(format!(
                            "`{}` is not a unit of size: only binary units are",
                            shown(&unit)
                        ))
                        .hint(hint),
                    ByteSizeError::Fraction { hint, .. } => mistake
                        .message(format!("`{}` is not a whole number", shown(&text)))
                        .hint(hint),
                    ByteSizeError::TooLarge(_) => mistake.message(format!(
                        "`{}` is larger than any machine's memory or disk",
                        shown(&text)
                    )),
                });
                None
            }
        }
    }

    fn numa(&self, field: Field<wire::Numa>) -> Numa {
        let Field::Given(numa, span) = field else {
            return Numa::Single;
        };
        match numa {
            wire::Numa::Single => Numa::Single,
            wire::Numa::Node(node) => {
                let node = self.count(Field::Given(node, span), 0, "the number of a NUMA node");
                Numa::Node(NumaNodeId(node))
            }
            wire::Numa::Spread(cells) => {
                let what = "the number of NUMA nodes";
                match self.count(Field::Given(cells, span), u32::MAX, what) {
                    // Noted already.
                    u32::MAX => Numa::Single,
                    cells => Numa::Spread(cells),
                }
            }
        }
    }

    fn threads(
        &self,
        emulator: Field<wire::Emulator>,
        iothreads: Field<wire::IoThreads>,
    ) -> (u32, bool, u32) {
        let (cores, shared) = match emulator {
            Field::Given(emulator, _) => (
                self.count(emulator.cores, 1, "the number of emulator cores"),
                matches!(emulator.pool, Field::Given(wire::Pool::Tenant, _)),
            ),
            Field::Absent | Field::Bad(_) => (1, false),
        };
        let count = match iothreads {
            Field::Given(threads, _) => self.count(threads.count, 1, "the number of IOThreads"),
            Field::Absent | Field::Bad(_) => 1,
        };
        (cores, shared, count)
    }

    fn user(&self, user: wire::User, at: &Path) -> Option<GuestUser> {
        let name = self.required(user.name, at, "name", "the login name");
        // Rules about the rest are asked even when the name is missing.
        Some(GuestUser {
            name: name.unwrap_or_else(|| "unnamed".into()),
            ssh_keys: Self::texts(user.ssh_keys),
            password_hash_file: Self::text(user.password_hash_file),
            sudo: Self::flag(&user.sudo, false),
        })
    }

    fn image(&self, field: Field<wire::Image>, slice: &Path) -> ImageSpec {
        let at = slice.field("image");
        let what = "its disk, as `image: { base: debian-12.qcow2, size: 100GiB }`";
        let mut image = ImageSpec {
            base: "unnamed".into(),
            size: ByteSize::from_gib(1),
            from: ImageFrom::Overlay,
            setup: Setup::CloudInit,
        };
        let Some(wire) = self.required(field, slice, "image", what) else {
            return image;
        };
        let base = "the base image's file name, as `base: debian-12.qcow2`";
        if let Some(base) = self.required(wire.base, &at, "base", base) {
            image.base = base;
        }
        if let Some(size) = self.size(wire.size, &at, "the disk's size, as `size: 100GiB`") {
            image.size = size;
        }
        image.from = match wire.from {
            Field::Given(wire::From::Copy, _) => ImageFrom::Copy,
            Field::Given(wire::From::Resize(resize), _) => {
                let at = at.field("from").field("resize");
                let what = "the partition that gets the space, as `expand: /dev/sda1`";
                match self.required(resize.expand, &at, "expand", what) {
                    Some(expand) => ImageFrom::Resize { expand },
                    None => ImageFrom::Copy,
                }
            }
            _ => ImageFrom::Overlay,
        };
        image.setup = match wire.setup {
            Field::Given(wire::Setup::VirtCustomize, _) => Setup::VirtCustomize,
            Field::Given(wire::Setup::None, _) => Setup::None,
            _ => Setup::CloudInit,
        };
        image
    }
}
