//! Reads XML back, independently of the writer: elements, attributes, text.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

#[derive(Debug, Default, Clone)]
pub struct Node {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub text: String,
    pub children: Vec<Node>,
}

impl Node {
    pub fn parse(xml: &str) -> Node {
        let mut reader = Reader::from_str(xml);
        let mut open = vec![Node::default()];
        let close = |open: &mut Vec<Node>| {
            let mut done = open.pop().unwrap();
            done.text = done.text.trim().to_owned();
            open.last_mut().unwrap().children.push(done);
        };
        loop {
            match reader.read_event().unwrap() {
                Event::Start(start) => open.push(Node::of(&start)),
                Event::Empty(start) => {
                    open.push(Node::of(&start));
                    close(&mut open);
                }
                Event::End(_) => close(&mut open),
                Event::Text(text) => {
                    open.last_mut().unwrap().text += &text.decode().unwrap();
                }
                Event::GeneralRef(name) => {
                    let name = name.decode().unwrap();
                    open.last_mut().unwrap().text += match &*name {
                        "lt" => "<",
                        "gt" => ">",
                        "amp" => "&",
                        "apos" => "'",
                        "quot" => "\"",
                        other => panic!("unknown entity {other}"),
                    };
                }
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(open.len(), 1, "every element is closed");
        open.remove(0).children.remove(0)
    }

    fn of(start: &BytesStart<'_>) -> Node {
        let attributes = start.attributes().map(|attribute| {
            let attribute = attribute.unwrap();
            let name = String::from_utf8(attribute.key.0.to_vec()).unwrap();
            let raw = String::from_utf8(attribute.value.to_vec()).unwrap();
            let value = quick_xml::escape::unescape(&raw).unwrap().into_owned();
            (name, value)
        });
        Node {
            name: String::from_utf8(start.name().0.to_vec()).unwrap(),
            attributes: attributes.collect(),
            ..Node::default()
        }
    }

    /// Every element at a path below this one: `devices/hostdev/source`.
    pub fn all(&self, path: &str) -> Vec<&Node> {
        path.split('/').fold(vec![self], |nodes, name| {
            nodes
                .into_iter()
                .flat_map(|node| &node.children)
                .filter(|child| child.name == name)
                .collect()
        })
    }

    /// The only element at a path.
    pub fn one(&self, path: &str) -> &Node {
        let found = self.all(path);
        assert_eq!(found.len(), 1, "exactly one `{path}`");
        found[0]
    }

    pub fn get(&self, attribute: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(name, _)| name == attribute)
            .map(|(_, value)| value.as_str())
    }

    /// A number in C's notation: `0x10`, `16`.
    pub fn number(&self, attribute: &str) -> u32 {
        let text = self.get(attribute).unwrap_or_else(|| {
            panic!("`{}` has no `{attribute}`", self.name);
        });
        match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
            None => text.parse().unwrap(),
        }
    }
}
