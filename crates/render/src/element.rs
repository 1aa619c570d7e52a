//! An XML element as a value, so that no artifact is made by pasting strings.
//!
//! Takes names from the code and values from the plan, gives a document. Keeps true: every value is
//! escaped, and one that XML cannot carry is an error instead of a file that libvirt refuses later.

use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

/// An element with its attributes in order, and either children or text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Children(Vec<Element>),
    Text(String),
}

/// A value that XML 1.0 cannot carry unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unwritable {
    /// Where: `source file`.
    pub place: String,
    /// The whole value.
    pub value: String,
}

impl Element {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            attributes: Vec::new(),
            content: Content::Children(Vec::new()),
        }
    }

    /// An element that holds text alone.
    pub(crate) fn text(name: &'static str, text: impl ToString) -> Self {
        Self {
            content: Content::Text(text.to_string()),
            ..Self::new(name)
        }
    }

    pub(crate) fn attribute(mut self, name: &'static str, value: impl ToString) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// Adds a child. An element with text gets none: its text would be lost, so it stays as it is.
    pub(crate) fn child(self, child: Self) -> Self {
        self.children([child])
    }

    pub(crate) fn children(mut self, more: impl IntoIterator<Item = Self>) -> Self {
        match &mut self.content {
            Content::Children(children) => children.extend(more),
            Content::Text(_) => debug_assert!(false, "`{}` holds text", self.name),
        }
        self
    }

    /// The document: two spaces of indentation, a line break at the end, no XML declaration (libvirt
    /// writes none either).
    ///
    /// # Errors
    /// [`Unwritable`] for a value with a control character: XML forbids most, and readers turn a
    /// tab or line break in an attribute into a space.
    pub(crate) fn document(&self) -> Result<String, Unwritable> {
        self.check()?;
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        // A `Vec` takes every byte, so the only error that `Writer` has cannot happen.
        let _ = self.write(&mut writer);
        let mut text = String::from_utf8(writer.into_inner()).unwrap_or_default();
        text.push('\n');
        Ok(text)
    }

    fn check(&self) -> Result<(), Unwritable> {
        let bad = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
        let refuse = |place: String, value: &str| {
            Err(Unwritable {
                place,
                value: value.into(),
            })
        };
        for (name, value) in &self.attributes {
            if value.contains(bad) {
                return refuse(format!("{} {name}", self.name), value);
            }
        }
        match &self.content {
            Content::Text(text) if text.contains(bad) => refuse(self.name.into(), text),
            Content::Text(_) => Ok(()),
            Content::Children(children) => children.iter().try_for_each(Self::check),
        }
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>) -> std::io::Result<()> {
        let mut start = BytesStart::new(self.name);
        for (name, value) in &self.attributes {
            start.push_attribute((*name, value.as_str()));
        }
        match &self.content {
            Content::Children(children) if children.is_empty() => {
                return writer.write_event(Event::Empty(start));
            }
            Content::Children(children) => {
                writer.write_event(Event::Start(start))?;
                for child in children {
                    child.write(writer)?;
                }
            }
            Content::Text(text) => {
                writer.write_event(Event::Start(start))?;
                writer.write_event(Event::Text(BytesText::new(text)))?;
            }
        }
        writer.write_event(Event::End(BytesEnd::new(self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        let xml = Element::new("a")
            .attribute("b", "<'\"&>")
            .child(Element::text("c", "x < y & z"))
            .child(Element::new("d"))
            .document()
            .unwrap();
        assert_eq!(
            xml,
            "<a b=\"&lt;&apos;&quot;&amp;&gt;\">\n  <c>x &lt; y &amp; z</c>\n  <d/>\n</a>\n"
        );
    }

    #[test]
    fn a_value_that_xml_cannot_carry_is_refused() {
        for bad in ["\0", "a\u{1}", "a\nb", "a\tb", "\u{ffff}", "\u{85}"] {
            let attribute = Element::new("a").attribute("b", bad).document();
            assert_eq!(attribute.unwrap_err().place, "a b", "{bad:?}");
            let text = Element::new("x").child(Element::text("c", bad)).document();
            assert_eq!(text.unwrap_err().place, "c", "{bad:?}");
        }
    }
}
