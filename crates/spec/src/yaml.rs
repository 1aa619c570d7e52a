//! YAML text → a tree of nodes that know where they were written.
//!
//! Takes text, gives one document's [`Node`]. Keeps true: depth, number of nodes and the expansion
//! of aliases are bounded; a key occurs once in a mapping; tags have no meaning and are refused.
//! Scalars stay text, because only the field that is read knows what it wants.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle};

use crate::diagnostic::{Mistake, Span, shown};
use crate::slip::slips;

/// The format itself nests eight deep.
const DEPTH: usize = 32;
/// What aliases may add to what is written. That itself is as long as the file, however large the
/// fleet.
const EXPANDED: usize = 100_000;

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Null,
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Node {
    /// What it is, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".into(),
            Kind::Scalar { text, plain: true } => format!("`{}`", shown(text)),
            Kind::Scalar { text, plain: false } => format!("the text `{}`", shown(text)),
            Kind::List(_) => "a list".into(),
            Kind::Map(_) => "a mapping".into(),
        }
    }

    /// A field's value.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(k, _)| k.text == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// An element of a list.
    pub(crate) fn item(&self, index: usize) -> Option<&Node> {
        match &self.kind {
            Kind::List(items) => items.get(index),
            _ => None,
        }
    }

    fn count(&self) -> usize {
        match &self.kind {
            Kind::Null | Kind::Scalar { .. } => 1,
            Kind::List(items) => 1 + items.iter().map(Node::count).sum::<usize>(),
            Kind::Map(entries) => 1 + entries.iter().map(|(_, v)| 1 + v.count()).sum::<usize>(),
        }
    }
}

/// A collection that is being read.
struct Open {
    span: Span,
    anchor: usize,
    map: bool,
    items: Vec<Node>,
    entries: Vec<(Key, Node)>,
    key: Option<Key>,
}

/// Reads one document.
///
/// Mistakes that leave a readable tree (a key given twice, a tag) are returned beside it.
pub(crate) fn read(source: &str) -> (Option<Node>, Vec<Mistake>) {
    let mut reader = Reader {
        source,
        open: Vec::new(),
        anchors: HashMap::new(),
        expanded: 0,
        root: None,
        mistakes: Vec::new(),
    };
    let mut options = Options::default();
    options.set_emit_comments(false);
    for event in Parser::new_from_str_with_options(source, options) {
        let result = match event {
            Ok((event, span)) => {
                let span = span.byte_range().unwrap_or(0..0);
                reader.take(event, span)
            }
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(source.len());
                reader.mistakes.extend(slips(source, at, &error.info()));
                return (None, reader.mistakes);
            }
        };
        if let Err(mistake) = result {
            reader.mistakes.push(mistake);
            return (None, reader.mistakes);
        }
    }
    if reader.root.is_none() && reader.mistakes.is_empty() {
        reader.mistakes.push(empty());
    }
    (reader.root, reader.mistakes)
}

pub(crate) fn empty() -> Mistake {
    Mistake::new(0..0, "the file is empty")
        .hint("a spec starts with `apiVersion: bmslice/v1` and `kind: Slicing`; `bmslice schema` prints its fields")
}

struct Reader<'a> {
    source: &'a str,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    expanded: usize,
    root: Option<Node>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Mistake> {
        if event.tag().is_some() {
            self.mistakes.push(
                Mistake::new(span.clone(), "tags (`!…`) have no meaning in a spec")
                    .hint("write the plain value"),
            );
        }
        match event {
            Event::DocumentStart(..) if self.root.is_some() => Err(Mistake::new(
                span,
                "a spec is one document, and here a second one begins",
            )
            .hint("one file for each server: put the other document into a file of its own")),
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(&*text, "" | "~" | "null");
                let kind = if null {
                    Kind::Null
                } else {
                    Kind::Scalar {
                        text: text.into_owned(),
                        plain,
                    }
                };
                self.close(Node { span, kind }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(span, anchor, false),
            Event::MappingStart(_, anchor, _) => self.begin(span, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                let end = span.end.max(open.span.end);
                let kind = if open.map {
                    Kind::Map(open.entries)
                } else {
                    Kind::List(open.items)
                };
                let span = open.span.start..end;
                self.close(Node { span, kind }, open.anchor)
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(Mistake::new(span, "this alias is part of what it names"));
                };
                self.grow(node.count(), &span)?;
                self.close(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn grow(&mut self, by: usize, span: &Span) -> Result<(), Mistake> {
        self.expanded += by;
        if self.expanded > EXPANDED {
            return Err(Mistake::new(
                span.clone(),
                format!("the aliases of this file stand for more than {EXPANDED} values"),
            ));
        }
        Ok(())
    }

    fn begin(&mut self, span: Span, anchor: usize, map: bool) -> Result<(), Mistake> {
        if self.open.len() >= DEPTH {
            let message = format!("values are nested more than {DEPTH} deep");
            return Err(Mistake::new(span, message));
        }
        self.open.push(Open {
            span,
            anchor,
            map,
            items: Vec::new(),
            entries: Vec::new(),
            key: None,
        });
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Mistake> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        if !open.map {
            open.items.push(node);
            return Ok(());
        }
        match open.key.take() {
            None => {
                let span = node.span.clone();
                open.key = Some(match node.kind {
                    Kind::Scalar { text, .. } => Key { text, span },
                    Kind::Null => Key {
                        text: self.source.get(span.clone()).unwrap_or_default().into(),
                        span,
                    },
                    Kind::List(_) | Kind::Map(_) => {
                        return Err(Mistake::new(span, "a field's name is a plain word"));
                    }
                });
            }
            Some(key) if key.text == "<<" => merge(open, &key, node, &mut self.mistakes),
            Some(key) => match open.entries.iter().position(|(k, _)| k.text == key.text) {
                // A merged value gives way to a written one.
                Some(at) if open.entries[at].0.span.is_empty() => open.entries[at] = (key, node),
                Some(at) => {
                    let first = open.entries[at].0.span.clone();
                    let name = shown(&key.text);
                    let message = format!("`{name}` is given twice in one mapping");
                    self.mistakes.push(
                        Mistake::new(key.span, message)
                            .label("given again here")
                            .related(first, "first given here"),
                    );
                }
                None => open.entries.push((key, node)),
            },
        }
        Ok(())
    }
}

/// `<<: *alias` or `<<: [*a, *b]`: fields that are not given here come from there. Their keys get
/// an empty span, so that a field written here wins over them.
fn merge(open: &mut Open, key: &Key, node: Node, mistakes: &mut Vec<Mistake>) {
    let sources = match node.kind {
        Kind::List(items) => items,
        _ => vec![node],
    };
    for source in sources {
        let Kind::Map(entries) = source.kind else {
            mistakes.push(
                Mistake::new(key.span.clone(), "`<<` merges mappings only")
                    .hint("write `<<: *name`, where `&name` stands before a mapping"),
            );
            continue;
        };
        for (key, value) in entries {
            if !open.entries.iter().any(|(k, _)| k.text == key.text) {
                let span = key.span.start..key.span.start;
                let text = key.text;
                open.entries.push((Key { text, span }, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(node: Option<&Node>) -> &str {
        match node.map(|n| &n.kind) {
            Some(Kind::Scalar { text, .. }) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn spans_are_those_of_the_text() {
        let source = "a: { b: 0000:01:00.0, c: [x, 'y'] }\nd:\n  - ä\n";
        let (root, mistakes) = read(source);
        assert!(mistakes.is_empty());
        let root = root.unwrap();
        let b = root.get("a").unwrap().get("b");
        assert_eq!(text(b), "0000:01:00.0");
        assert_eq!(&source[b.unwrap().span.clone()], "0000:01:00.0");
        let d = root.get("d").unwrap().item(0).unwrap();
        assert_eq!(&source[d.span.clone()], "ä");
    }

    #[test]
    fn merged_fields_give_way_to_written_ones() {
        let source = "- &a { x: 1, y: 2 }\n- { <<: *a, y: 3 }\n- { y: 4, <<: *a }\n";
        let (root, mistakes) = read(source);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let root = root.unwrap();
        for (item, y) in [(1, "3"), (2, "4")] {
            let item = root.item(item).unwrap();
            assert_eq!((text(item.get("x")), text(item.get("y"))), ("1", y));
        }
    }

    #[test]
    fn a_file_without_aliases_may_be_as_large_as_it_is() {
        let many = "- { a: 1, b: [2, 3], c: { d: 4 } }\n".repeat(20_000);
        let (root, mistakes) = read(&many);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert_eq!(root.unwrap().count(), 1 + 20_000 * 11);
    }

    #[test]
    fn aliases_cannot_blow_up() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let row = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{row}]\n"));
        }
        let (root, mistakes) = read(&bomb);
        assert!(root.is_none());
        assert!(mistakes[0].message.contains("aliases"), "{mistakes:?}");
        let (root, mistakes) = read("a: &a [*a]\n");
        assert!(root.is_none() && !mistakes.is_empty());
        let (root, mistakes) = read(&"[".repeat(100_000));
        assert!(root.is_none() && !mistakes.is_empty());
    }
}
