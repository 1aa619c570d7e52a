//! The floor as an SVG file.
//!
//! Boxes in boxes: each knows its size from what is in it, its title included, so that no text is
//! wider than its box. All text is in one fixed-width font, whose letters are 0.602 em wide in the
//! widest of the usual ones (DejaVu Sans Mono, Liberation Mono, Courier New, Menlo).

use svg::node::Text as Words;
use svg::node::element::{Group, Rectangle, Text, Title};

use crate::floor::{Core, Device, Domain, Floor, Node, Package, RootComplex, Thread};
use crate::owner::Owner;
use crate::paint::{color, hex};

const FONT: &str = "'DejaVu Sans Mono', 'Liberation Mono', Menlo, Consolas, monospace";
/// Width of a letter, in sizes of the font; a little more than the widest usual font has.
const LETTER: f64 = 0.62;
const SMALL: f64 = 10.0;
const TEXT: f64 = 12.0;
const LARGE: f64 = 16.0;
const PAD: f64 = 6.0;
/// Cores side by side before a cache's box breaks its row.
const DOMAIN_WIDTH: f64 = 520.0;
const NODE_WIDTH: f64 = 720.0;
const PAGE_WIDTH: f64 = 1500.0;

fn wide(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * LETTER
}

/// A rectangle with lines of text and boxes inside.
struct Block {
    fill: String,
    stroke: &'static str,
    /// Border's width.
    border: f64,
    dashed: bool,
    rounded: bool,
    lines: Vec<(String, f64)>,
    centred: bool,
    /// Told when pointed at.
    hint: Option<String>,
    inside: Vec<(f64, f64, Block)>,
    width: f64,
    height: f64,
}

impl Block {
    /// A box with a title over boxes that flow into rows no wider than `limit`.
    fn around(title: &str, size: f64, children: Vec<Self>, limit: f64) -> Self {
        let mut block = Self {
            fill: "none".into(),
            stroke: "#444444",
            border: 1.0,
            dashed: false,
            rounded: true,
            lines: Vec::new(),
            centred: false,
            hint: None,
            inside: Vec::new(),
            width: 0.0,
            height: 0.0,
        };
        let mut top = PAD;
        let mut width: f64 = 0.0;
        if !title.is_empty() {
            block.lines.push((title.to_owned(), size));
            top += size * 1.35;
            width = wide(title, size);
        }
        let (mut x, mut y, mut row) = (PAD, top, 0.0_f64);
        for child in children {
            if x > PAD && x + child.width > limit {
                (x, y, row) = (PAD, y + row + PAD, 0.0);
            }
            let (w, h) = (child.width, child.height);
            block.inside.push((x, y, child));
            x += w + PAD;
            row = row.max(h);
            width = width.max(x - 2.0 * PAD);
        }
        block.width = width + 2.0 * PAD;
        block.height = if block.inside.is_empty() {
            top
        } else {
            y + row + PAD
        };
        block
    }

    fn leaf(lines: Vec<(String, f64)>, fill: String, least: f64) -> Self {
        let text = lines.iter().map(|(line, size)| wide(line, *size));
        let width = text.fold(least, f64::max) + PAD;
        let height = lines.iter().map(|(_, size)| size * 1.3).sum::<f64>() + PAD;
        Self {
            fill,
            lines,
            width,
            height,
            centred: true,
            rounded: false,
            ..Self::around("", TEXT, Vec::new(), 0.0)
        }
    }

    fn filled(mut self, fill: &str) -> Self {
        self.fill = fill.into();
        self
    }

    fn draw(&self, x: f64, y: f64, into: Group) -> Group {
        let mut shape = Rectangle::new()
            .set("x", tenth(x))
            .set("y", tenth(y))
            .set("width", tenth(self.width))
            .set("height", tenth(self.height))
            .set("fill", self.fill.as_str())
            .set("stroke", self.stroke)
            .set("stroke-width", self.border);
        if self.rounded {
            shape = shape.set("rx", 3);
        }
        if self.dashed {
            shape = shape.set("stroke-dasharray", "3 2");
        }
        let mut group = Group::new();
        if let Some(hint) = &self.hint {
            group = group.add(Title::new(hint.as_str()));
        }
        group = group.add(shape);
        let mut baseline = y + PAD / 2.0;
        for (line, size) in &self.lines {
            baseline += size * 1.3;
            let at = if self.centred {
                x + self.width / 2.0
            } else {
                x + PAD
            };
            let anchor = if self.centred { "middle" } else { "start" };
            group = group.add(
                Text::new("")
                    .set("x", tenth(at))
                    .set("y", tenth(baseline - size * 0.3))
                    .set("font-size", *size)
                    .set("text-anchor", anchor)
                    .add(Words::new(line.as_str())),
            );
        }
        for (dx, dy, block) in &self.inside {
            group = block.draw(x + dx, y + dy, group);
        }
        into.add(group)
    }
}

/// To a tenth: shorter, and the same on every machine.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

type Names<'a> = &'a [(String, Option<String>)];

fn thread(thread: &Thread, number: f64, label: f64, names: Names<'_>) -> Block {
    let lines = vec![
        (thread.cpu.to_string(), SMALL),
        (thread.owner.label(), TEXT),
    ];
    let fill = hex(color(&thread.owner, names));
    let mut block = Block::leaf(lines, fill, number.max(label));
    let whose = thread.owner.party().and_then(|party| names.get(party));
    let whose = whose.map_or(String::new(), |(name, _)| format!(" {name}"));
    block.hint = Some(format!(
        "CPU {}: {}{whose}",
        thread.cpu,
        thread.owner.label()
    ));
    match thread.owner {
        // Told apart in black and white too: by the border.
        Owner::Emulator { .. } => block.border = 2.0,
        Owner::Offline | Owner::Idle { .. } => block.dashed = true,
        _ => {}
    }
    block
}

fn core(core: &Core, number: f64, label: f64, names: Names<'_>) -> Block {
    let threads: Vec<Block> = core
        .threads
        .iter()
        .map(|t| thread(t, number, label, names))
        .collect();
    let mut block = Block::around("", TEXT, Vec::new(), 0.0);
    let mut x = 2.0;
    let mut height: f64 = 0.0;
    for thread in threads {
        let (w, h) = (thread.width, thread.height);
        block.inside.push((x, 2.0, thread));
        x += w;
        height = height.max(h);
    }
    block.width = x + 2.0;
    block.height = height + 4.0;
    block.filled("#ffffff")
}

fn domain(domain: &Domain, number: f64, label: f64, names: Names<'_>) -> Block {
    let cores: Vec<Block> = domain
        .cores
        .iter()
        .map(|c| core(c, number, label, names))
        .collect();
    let widest = cores.iter().map(|core| core.width).fold(0.0, f64::max);
    // About twice as wide as high, so that large caches do not become one endless row.
    let rows = (cores.len() as f64 / 3.0).sqrt().ceil().max(1.0);
    let across = (cores.len() as f64 / rows).ceil();
    let limit = (across * (widest + PAD) + PAD).min(DOMAIN_WIDTH.max(widest + 2.0 * PAD));
    Block::around(&domain.title, SMALL, cores, limit + 1.0).filled("#fafafa")
}

fn device(device: &Device, names: Names<'_>) -> Block {
    let mut lines: Vec<(String, f64)> = device
        .lines
        .iter()
        .map(|line| (line.clone(), SMALL))
        .collect();
    lines.push((device.owner.label(), TEXT));
    Block::leaf(lines, hex(color(&device.owner, names)), 0.0)
}

fn complex(complex: &RootComplex, names: Names<'_>) -> Block {
    let devices = complex.devices.iter().map(|d| device(d, names)).collect();
    let mut block = Block::around(&complex.title, SMALL, devices, DOMAIN_WIDTH).filled("#f2f6fa");
    block.rounded = false;
    block
}

fn node(node: &Node, number: f64, label: f64, names: Names<'_>) -> Block {
    let mut children: Vec<Block> = node
        .domains
        .iter()
        .map(|d| domain(d, number, label, names))
        .collect();
    if !node.complexes.is_empty() {
        let complexes = node.complexes.iter().map(|c| complex(c, names)).collect();
        let mut row = Block::around("", TEXT, complexes, NODE_WIDTH);
        row.stroke = "none";
        children.push(row);
    }
    Block::around(&node.title, TEXT, children, NODE_WIDTH).filled("#ffffff")
}

fn package(package: &Package, number: f64, label: f64, names: Names<'_>) -> Block {
    let nodes = package
        .nodes
        .iter()
        .map(|n| node(n, number, label, names))
        .collect();
    // Nodes below each other: a package is a column.
    Block::around(&package.title, LARGE, nodes, 0.0).filled("#eeeeee")
}

fn legend(floor: &Floor, names: Names<'_>, width: f64) -> Block {
    let rows = floor.legend.iter().map(|(owner, text)| {
        let mut swatch = Block::leaf(vec![(owner.label(), TEXT)], hex(color(owner, names)), 30.0);
        if matches!(owner, Owner::Emulator { .. }) {
            swatch.border = 2.0;
        }
        swatch.dashed = matches!(owner, Owner::Offline | Owner::Idle { .. });
        let mut words = Block::leaf(vec![(text.clone(), TEXT)], "#ffffff".into(), 0.0);
        words.stroke = "none";
        let mut row = Block::around("", TEXT, vec![swatch, words], f64::INFINITY);
        row.stroke = "none";
        row
    });
    let mut block = Block::around("", TEXT, rows.collect(), width);
    block.stroke = "none";
    block
}

impl Floor {
    /// An SVG file, complete.
    #[must_use]
    pub fn svg(&self) -> String {
        let names = self.names.as_slice();
        let threads = || self.threads();
        let number = threads()
            .map(|t| wide(&t.cpu.to_string(), SMALL))
            .fold(0.0, f64::max);
        let label = threads()
            .map(|t| wide(&t.owner.label(), TEXT))
            .fold(0.0, f64::max);
        let mut children: Vec<Block> = self
            .packages
            .iter()
            .map(|p| package(p, number, label, names))
            .collect();
        children.extend(self.elsewhere.iter().map(|c| complex(c, names)));
        children.extend(
            self.memory
                .iter()
                .map(|text| Block::leaf(vec![(text.clone(), TEXT)], "#ffffff".into(), 0.0)),
        );
        let mut server = Block::around("", TEXT, children, PAGE_WIDTH);
        server.stroke = "none";
        let legend = legend(self, names, server.width);
        // The legend below, no wider than the server where its lines allow.
        let mut page =
            Block::around(&self.title, LARGE, vec![server, legend], 0.0).filled("#ffffff");
        page.stroke = "none";
        let (width, height) = (page.width.ceil(), page.height.ceil());
        let body = page.draw(0.0, 0.0, Group::new().set("font-family", FONT));
        let document = svg::Document::new()
            .set("viewBox", (0, 0, width, height))
            .set("width", width)
            .set("height", height)
            .add(Title::new(self.title.as_str()))
            .add(body);
        format!("{document}\n")
    }
}
