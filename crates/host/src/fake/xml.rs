//! The little of XML that a fake libvirt needs: elements, attributes, text.

use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::{BytesStart, Event};

/// An element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub children: Vec<Element>,
    pub text: String,
}

impl Element {
    /// An element without children.
    pub fn new<const N: usize>(name: &str, attributes: [(&str, String); N]) -> Self {
        Self {
            name: name.into(),
            attributes: attributes
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            ..Self::default()
        }
    }

    /// An element with a text.
    pub fn with_text(name: &str, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
            ..Self::default()
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// What is not well formed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Element> = Vec::new();
        loop {
            let event = reader.read_event().map_err(|error| error.to_string())?;
            let closed = match event {
                Event::Start(start) => {
                    open.push(element(&start)?);
                    None
                }
                Event::Empty(start) => Some(element(&start)?),
                Event::End(_) => open.pop(),
                Event::Text(part) => {
                    if let Some(last) = open.last_mut() {
                        last.text
                            .push_str(&part.decode().map_err(|error| error.to_string())?);
                    }
                    None
                }
                Event::CData(part) => {
                    if let Some(last) = open.last_mut() {
                        last.text
                            .push_str(&part.decode().map_err(|error| error.to_string())?);
                    }
                    None
                }
                Event::GeneralRef(reference) => {
                    let name = reference.decode().map_err(|error| error.to_string())?;
                    let text = quick_xml::escape::unescape(&format!("&{name};"))
                        .map_err(|error| error.to_string())?
                        .into_owned();
                    if let Some(last) = open.last_mut() {
                        last.text.push_str(&text);
                    }
                    None
                }
                Event::Eof => return Err("Extra content at the end of the document".into()),
                _ => None,
            };
            let Some(mut closed) = closed else { continue };
            closed.text = closed.text.trim().to_owned();
            match open.last_mut() {
                Some(parent) => parent.children.push(closed),
                None => return Ok(closed),
            }
        }
    }

    /// An attribute's value.
    pub fn attr(&self, name: &str) -> Option<&str> {
        let (_, value) = self.attributes.iter().find(|(key, _)| key == name)?;
        Some(value)
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.attributes.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value,
            None => self.attributes.push((name.into(), value)),
        }
    }

    /// The first child of that name; `a/b` is a child of a child.
    pub fn child(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |at, name| {
            at.children.iter().find(|child| child.name == name)
        })
    }

    /// The first child of that name, to be changed.
    pub fn child_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.children.iter_mut().find(|child| child.name == name)
    }

    /// All children of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// As libvirt prints: two spaces a level, single quotes.
    pub fn print(&self) -> String {
        let mut text = String::new();
        self.print_at(&mut text, 0);
        text
    }

    fn print_at(&self, out: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        out.push_str(&format!("{indent}<{}", self.name));
        for (key, value) in &self.attributes {
            out.push_str(&format!(" {key}='{}'", escape(value.as_str())));
        }
        if self.children.is_empty() && self.text.is_empty() {
            out.push_str("/>\n");
        } else if self.children.is_empty() {
            out.push_str(&format!(
                ">{}</{}>\n",
                escape(self.text.as_str()),
                self.name
            ));
        } else {
            out.push_str(">\n");
            for child in &self.children {
                child.print_at(out, depth + 1);
            }
            out.push_str(&format!("{indent}</{}>\n", self.name));
        }
    }
}

fn element(start: &BytesStart<'_>) -> Result<Element, String> {
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut element = Element {
        name: name(start.name().as_ref()),
        ..Element::default()
    };
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = String::from_utf8_lossy(&attribute.value).into_owned();
        let value = quick_xml::escape::unescape(&value)
            .map_err(|error| error.to_string())?
            .into_owned();
        element
            .attributes
            .push((name(attribute.key.as_ref()), value));
    }
    Ok(element)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_the_same() {
        let text = "<a x='1 &amp; \"2\"'>\n  <b>t &lt; u</b>\n  <c/>\n</a>\n";
        let a = Element::parse(text).unwrap();
        assert_eq!(a.attr("x"), Some("1 & \"2\""));
        assert_eq!(a.child("b").unwrap().text, "t < u");
        assert_eq!(Element::parse(&a.print()).unwrap(), a);
        assert!(Element::parse("<a><b></a>").is_err());
        assert!(Element::parse("<a>").is_err());
    }
}
