//! XML as a tree, as much of it as reading a domain needs.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// An element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    name: String,
    namespace: Option<String>,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<Node>,
}

/// The root of a document.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Node, String> {
    let mut reader = Reader::from_str(text);
    // The first is a document that holds the root.
    let mut open = vec![Node::default()];
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => open.push(element(&start)?),
            Event::Empty(start) => {
                let node = element(&start)?;
                last(&mut open)?.children.push(node);
            }
            Event::End(_) => {
                let node = open.pop().ok_or("an element ends that never began")?;
                last(&mut open)?.children.push(node);
            }
            Event::Text(text) => {
                last(&mut open)?.text += &text.decode().map_err(|error| error.to_string())?;
            }
            Event::CData(text) => {
                last(&mut open)?.text += &text.decode().map_err(|error| error.to_string())?;
            }
            Event::GeneralRef(name) => {
                let name = name.decode().map_err(|error| error.to_string())?;
                let escaped = format!("&{name};");
                last(&mut open)?.text +=
                    &quick_xml::escape::unescape(&escaped).map_err(|error| error.to_string())?;
            }
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    let mut document = match (open.pop(), open.is_empty()) {
        (Some(document), true) => document,
        _ => return Err("it ends in the middle of an element".into()),
    };
    document.children.pop().ok_or_else(|| "it is empty".into())
}

fn last(open: &mut [Node]) -> Result<&mut Node, String> {
    open.last_mut()
        .ok_or_else(|| "an element ends that never began".to_owned())
}

fn element(start: &BytesStart<'_>) -> Result<Node, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut node = Node {
        name: text(start.local_name().as_ref()),
        ..Node::default()
    };
    let prefix = start.name().prefix().map(|prefix| text(prefix.as_ref()));
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let key = text(attribute.key.as_ref());
        let raw = text(&attribute.value);
        let value = quick_xml::escape::unescape(&raw)
            .map_err(|error| error.to_string())?
            .into_owned();
        if prefix
            .as_ref()
            .is_some_and(|prefix| key == format!("xmlns:{prefix}"))
        {
            node.namespace = Some(value.clone());
        }
        node.attributes.push((key, value));
    }
    Ok(node)
}

impl Node {
    /// Its local name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace that it declares for its own prefix.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Its text without white space at its ends.
    pub fn text(&self) -> &str {
        self.text.trim()
    }

    /// Its children of this name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Node> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// Every child.
    pub fn children(&self) -> impl Iterator<Item = &Node> {
        self.children.iter()
    }

    /// The first element down a path of names: `devices/disk`.
    pub fn find(&self, path: &str) -> Option<&Node> {
        path.split('/').try_fold(self, |node, name| {
            node.children.iter().find(|c| c.name == name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_attributes_and_namespaces_are_read() {
        let root = parse(
            "<?xml version='1.0'?><a x='1 &amp; 2'><!-- no --><b>t &lt; u</b><p:c xmlns:p='urn:x'/><b/></a>",
        )
        .unwrap();
        assert_eq!(root.attribute("x"), Some("1 & 2"));
        assert_eq!(root.find("b").unwrap().text(), "t < u");
        assert_eq!(root.find("c").unwrap().namespace(), Some("urn:x"));
        assert_eq!(root.all("b").count(), 2);
        assert!(root.find("b/c").is_none());
    }

    #[test]
    fn a_torn_document_is_an_error() {
        for text in ["", "<a><b></b>", "<a", "<a></b>"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
