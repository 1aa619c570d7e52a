//! The tree → wire types, by serde, without giving up at the first mistake.
//!
//! A serde deserializer stops at its first error. Here every field of a wire type is a
//! [`Field`]: whatever goes wrong inside it is noted in the [`Sink`], the field becomes
//! [`Field::Bad`], and reading goes on. Unknown fields are noted with the nearest known one and
//! left out.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
    value::StrDeserializer,
};
use serde::forward_to_deserialize_any;

use crate::diagnostic::{Mistake, Span, shown};
use crate::nearest::nearest;
use crate::slip;
use crate::yaml::{Key, Kind, Node};

/// The name by which [`Field`] asks for its span and for its errors to be caught.
const FIELD: &str = "\u{1}field";

/// An enum of this name is chosen by the form of its value: variant `text` or `fields`.
pub(crate) const EITHER: &str = "\u{1}either";

/// Where mistakes are noted.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    mistakes: RefCell<Vec<Mistake>>,
    /// Fields that an unknown one was probably meant to be, by the start of their mapping.
    meant: RefCell<Vec<(usize, String)>>,
}

impl Sink {
    pub(crate) fn note(&self, mistake: Mistake) {
        self.mistakes.borrow_mut().push(mistake);
    }

    /// Whether the mapping that starts there has an unknown field that was meant to be this one:
    /// it is then not missing, but misspelt.
    pub(crate) fn was_meant(&self, mapping: usize, field: &str) -> bool {
        let meant = self.meant.borrow();
        meant
            .iter()
            .any(|(at, name)| *at == mapping && name == field)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    pub(crate) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes.into_inner()
    }
}

/// A field of a wire type.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Field<T> {
    /// Not written, or without a value.
    #[default]
    Absent,
    /// Written, and wrong; that is noted already.
    Bad(Span),
    /// Written, and of the right form.
    Given(T, Span),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Caught<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Caught<T> {
            type Value = Field<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of a spec")
            }

            fn visit_none<E: Error>(self) -> Result<Field<T>, E> {
                Ok(Field::Absent)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field<T>, A::Error> {
                let mut bound = || seq.next_element::<u64>().map(|n| n.unwrap_or_default());
                // Both come from a usize.
                let start = usize::try_from(bound()?).unwrap_or(usize::MAX);
                let end = usize::try_from(bound()?).unwrap_or(usize::MAX);
                Ok(match seq.next_element::<T>()? {
                    Some(value) => Field::Given(value, start..end),
                    None => Field::Bad(start..end),
                })
            }
        }
        deserializer.deserialize_newtype_struct(FIELD, Caught(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// Decodes a document into a wire type all of whose fields are [`Field`]s.
pub(crate) fn decode<'de, T: Deserialize<'de> + Default>(node: &'de Node, sink: &'de Sink) -> T {
    match T::deserialize(Value { node, sink }) {
        Ok(value) => value,
        Err(fault) => {
            sink.note(fault.0);
            T::default()
        }
    }
}

/// A serde error that knows its place.
#[derive(Debug)]
struct Fault(Mistake);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Mistake::new(0..0, message.to_string()))
    }
}

#[derive(Clone, Copy)]
struct Value<'de> {
    node: &'de Node,
    sink: &'de Sink,
}

impl<'de> Value<'de> {
    fn fault(self, message: impl Into<String>) -> Mistake {
        Mistake::new(self.node.span.clone(), message)
    }

    fn expected<T>(self, what: &str, hint: Option<String>) -> Result<T, Fault> {
        let mistake = self.fault(format!("{what} belongs here, not {}", self.node.describe()));
        Err(Fault(match hint {
            Some(hint) => mistake.hint(hint),
            None => mistake,
        }))
    }

    fn child(self, node: &'de Node) -> Self {
        Self {
            node,
            sink: self.sink,
        }
    }

    /// Notes the fields that do not exist, and gives those that do.
    fn known(self, owner: &str, fields: &[&str]) -> Vec<&'de (Key, Node)> {
        let Kind::Map(entries) = &self.node.kind else {
            return Vec::new();
        };
        let (known, unknown): (Vec<_>, Vec<_>) = entries
            .iter()
            .partition(|(key, _)| fields.contains(&key.text.as_str()));
        for (key, value) in unknown {
            let span = if key.span.is_empty() {
                value.span.clone()
            } else {
                key.span.clone()
            };
            let right = match slip::narrow(&key.text) {
                Some((name, _)) => nearest(name, fields),
                None => renamed(owner, &key.text).or_else(|| nearest(&key.text, fields)),
            };
            if let Some(right) = right {
                let mapping = self.node.span.start;
                self.sink.meant.borrow_mut().push((mapping, right.into()));
            }
            self.sink
                .note(unknown_field(owner, &key.text, span, fields, right));
        }
        known
    }
}

fn unknown_field(
    owner: &str,
    name: &str,
    span: Span,
    fields: &[&str],
    right: Option<&str>,
) -> Mistake {
    // A flow mapping takes `{ vcpus:4 }` for a field without a value.
    let name = match slip::narrow(name) {
        Some((name, value)) if fields.contains(&name) => {
            return slip::no_space(span, name, value);
        }
        // What stands behind it may be a secret.
        Some((name, _)) => name,
        None => name,
    };
    let mistake = Mistake::new(span, format!("`{}` is not a field of {owner}", shown(name)));
    if let Some(now) = renamed(owner, name) {
        return mistake.hint(format!(
            "write `{now}`: tools that read YAML 1.1 take `on` for `true`"
        ));
    }
    let lower = name.to_ascii_lowercase();
    if ["passw", "pwd", "secret"].iter().any(|w| lower.contains(w)) && fields.contains(&"sshKeys") {
        return mistake.label("never in a spec").hint(
            "put a crypt(5) hash (`openssl passwd -6`) into a file on the server that only root can read, and name that file with `passwordHashFile`",
        );
    }
    match right {
        Some(right) => mistake.hint(format!("did you mean `{right}`?")),
        None => mistake.hint(format!("its fields are {}", list(fields))),
    }
}

/// The field that was meant by `on`, when a tool of YAML 1.1 made `true` of it.
fn renamed(owner: &str, name: &str) -> Option<&'static str> {
    (owner == "`iothreads`" && name == "true").then_some("place")
}

/// The field that a bare value of these mappings most likely is.
fn short_form(owner: &str) -> Option<&'static str> {
    [
        ("`memory`", "size"),
        ("`user`", "name"),
        ("`image`", "base"),
        ("`emulator`", "cores"),
        ("`reserve`", "cores"),
        ("`headroom`", "cores"),
        ("`iothreads`", "count"),
        ("`resize`", "expand"),
        ("a virtio NIC", "network"),
        ("a VF", "of"),
    ]
    .iter()
    .find_map(|(name, field)| (*name == owner).then_some(*field))
}

/// The values that there are.
fn choices(words: &[&str]) -> String {
    match words {
        [one] => format!("there is only `{one}`"),
        _ => format!("there are {}", list(words)),
    }
}

/// `a`, `b` and `c`.
fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "none".into(),
    }
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        self.expected("something else", None)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name != FIELD {
            return visitor.visit_newtype_struct(self);
        }
        match self.node.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_seq(Catching {
                value: self,
                step: 0,
            }),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Map(_) | Kind::Null => visitor.visit_map(Entries {
                entries: self.known(name, fields).into_iter(),
                value: None,
                of: self,
            }),
            _ => {
                let hint = match (short_form(name), &self.node.kind) {
                    (Some(field), Kind::Scalar { text, .. }) => {
                        format!("write `{{ {field}: {} }}`", shown(text))
                    }
                    _ => format!("write fields of {name}: {}", list(fields)),
                };
                self.expected("a mapping (`field: value`)", Some(hint))
            }
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::List(items) => visitor.visit_seq(Items {
                items: items.iter(),
                of: self,
            }),
            Kind::Map(_) => self.expected(
                "a list",
                Some("put `- ` before each element, also when there is one".into()),
            ),
            _ => {
                let hint = format!("write `[{}]`", self.node.describe().trim_matches('`'));
                self.expected("a list", Some(hint))
            }
        }
    }

    /// Keys of the user's own; the reader of YAML has refused those that are there twice.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Map(entries) => visitor.visit_map(Entries {
                entries: entries.iter().collect::<Vec<_>>().into_iter(),
                value: None,
                of: self,
            }),
            _ => self.expected(
                "a mapping (`key: value`)",
                Some("write `{ zone: a }`, or a line for each".into()),
            ),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Kind::Scalar { text, .. } = &self.node.kind else {
            return self.expected("`true` or `false`", None);
        };
        match text.as_str() {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => {
                let hint = match other.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "1" | "true" | "y" => Some("write `true`".into()),
                    "no" | "off" | "0" | "false" | "n" => Some("write `false`".into()),
                    _ => None,
                };
                self.expected("`true` or `false`", hint)
            }
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        const WHAT: &str = "a whole number";
        let Kind::Scalar { text, plain } = &self.node.kind else {
            return self.expected(WHAT, None);
        };
        let digits = text.strip_prefix('-').unwrap_or(text);
        let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        match text.parse::<i64>() {
            Ok(number) if *plain => visitor.visit_i64(number),
            Ok(number) => self.expected(WHAT, Some(format!("write `{number}` without quotes"))),
            Err(_) if number => Err(Fault(
                self.fault(format!("`{}` is too large a number", shown(text))),
            )),
            Err(_) => {
                let hint = match text.parse::<f64>() {
                    // Exact: whole and far below 2^53.
                    Ok(n) if n.fract() == 0.0 && n.abs() < 1e15 => Some(format!("write `{n:.0}`")),
                    _ => None,
                };
                self.expected(WHAT, hint)
            }
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Scalar { text, .. } => visitor.visit_str(text),
            _ => self.expected("a text", None),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_string(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let chosen = |variant, content| Chosen {
            variant,
            content,
            of: self,
        };
        if name == EITHER {
            let variant = match self.node.kind {
                Kind::Scalar { .. } => "text",
                _ => "fields",
            };
            return visitor.visit_enum(chosen(variant, Some(self.node)));
        }
        let unknown = |text: &str, span: Span| {
            let mistake = Mistake::new(span, format!("`{}` is not {name}", shown(text)));
            Err(Fault(match nearest(text, variants) {
                Some(right) => mistake.hint(format!("did you mean `{right}`?")),
                None => mistake.hint(choices(variants)),
            }))
        };
        match &self.node.kind {
            Kind::Scalar { text, .. } if variants.contains(&text.as_str()) => {
                visitor.visit_enum(chosen(text, None))
            }
            Kind::Scalar { text, .. } => unknown(text, self.node.span.clone()),
            Kind::Map(entries) => match entries.as_slice() {
                [(key, content)] if variants.contains(&key.text.as_str()) => {
                    visitor.visit_enum(chosen(&key.text, Some(content)))
                }
                [(key, _)] => unknown(&key.text, key.span.clone()),
                _ => Err(Fault(
                    self.fault(format!("{name} is one of {}", list(variants))),
                )),
            },
            _ => self.expected(name, Some(choices(variants))),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf option unit unit_struct
        tuple tuple_struct identifier ignored_any
    }
}

/// What [`Field`] sees: start, end, and the value unless it was wrong.
struct Catching<'de> {
    value: Value<'de>,
    step: u8,
}

impl<'de> SeqAccess<'de> for Catching<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        use serde::de::IntoDeserializer;
        let span = &self.value.node.span;
        self.step += 1;
        match self.step {
            1 => seed
                .deserialize((span.start as u64).into_deserializer())
                .map(Some),
            2 => seed
                .deserialize((span.end as u64).into_deserializer())
                .map(Some),
            _ => match seed.deserialize(self.value) {
                Ok(value) => Ok(Some(value)),
                Err(Fault(mut mistake)) => {
                    if mistake.span == (0..0) {
                        mistake.span = span.clone();
                    }
                    self.value.sink.note(mistake);
                    Ok(None)
                }
            },
        }
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
    of: Value<'de>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        self.items
            .next()
            .map(|node| seed.deserialize(self.of.child(node)))
            .transpose()
    }
}

struct Entries<'de> {
    entries: std::vec::IntoIter<&'de (Key, Node)>,
    value: Option<&'de Node>,
    of: Value<'de>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        seed.deserialize(StrDeserializer::new(&key.text)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let node = self.value.take().unwrap_or(self.of.node);
        seed.deserialize(self.of.child(node))
    }
}

/// An enum's variant and what is in it.
struct Chosen<'de> {
    variant: &'de str,
    content: Option<&'de Node>,
    of: Value<'de>,
}

impl<'de> EnumAccess<'de> for Chosen<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let variant = seed.deserialize(StrDeserializer::<Fault>::new(self.variant))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Chosen<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(Fault(
                self.of
                    .fault(format!("`{}` stands alone", self.variant))
                    .hint(format!("write `{}`", self.variant)),
            )),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        match self.content.filter(|node| node.kind != Kind::Null) {
            Some(node) => seed.deserialize(self.of.child(node)),
            None => Err(Fault(
                self.of
                    .fault(format!("`{}` needs a value", self.variant))
                    .hint(format!("write `{{ {}: … }}`", self.variant)),
            )),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.of.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.of.deserialize_any(visitor)
    }
}
