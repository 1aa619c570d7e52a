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

    /// Boxes that flow together without a border.
    fn unseen(children: Vec<Self>, limit: f64) -> Self {
        let mut block = Self::around("", TEXT, children, limit);
        block.stroke = "none";
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

/// What all boxes of one picture have in common.
struct Pen<'a> {
    /// The width that every thread's box has, so that cores stand in columns.
    thread: f64,
    /// Slices or guests, by the numbers of their owners.
    names: &'a [(String, Option<String>)],
}

impl Pen<'_> {
    /// A box of an owner's, told apart in black and white too: by its label and its border.
    fn owned(&self, mut lines: Vec<(String, f64)>, owner: &Owner, least: f64) -> Block {
        lines.push((owner.label(), TEXT));
        let mut block = Block::leaf(lines, hex(color(owner, self.names)), least);
        match owner {
            Owner::Emulator { .. } | Owner::SharedPool { .. } => block.border = 2.0,
            Owner::Offline | Owner::Idle { .. } => block.dashed = true,
            _ => {}
        }
        block
    }

    fn thread(&self, thread: &Thread) -> Block {
        let owner = &thread.owner;
        let mut block = self.owned(vec![(thread.cpu.to_string(), SMALL)], owner, self.thread);
        let whose = owner.party().and_then(|party| self.names.get(party));
        let whose = whose.map_or(String::new(), |(name, _)| format!(" {name}"));
        block.hint = Some(format!("CPU {}: {}{whose}", thread.cpu, owner.label()));
        block
    }

    fn core(&self, core: &Core) -> Block {
        let mut block = Block::around("", TEXT, Vec::new(), 0.0);
        let mut x = 2.0;
        let mut height: f64 = 0.0;
        for thread in core.threads.iter().map(|thread| self.thread(thread)) {
            let (w, h) = (thread.width, thread.height);
            block.inside.push((x, 2.0, thread));
            x += w;
            height = height.max(h);
        }
        block.width = x + 2.0;
        block.height = height + 4.0;
        block.filled("#ffffff")
    }

    fn domain(&self, domain: &Domain) -> Block {
        let cores: Vec<Block> = domain.cores.iter().map(|core| self.core(core)).collect();
        let widest = cores.iter().map(|core| core.width).fold(0.0, f64::max);
        // About twice as wide as high, so that large caches do not become one endless row.
        let rows = (cores.len() as f64 / 3.0).sqrt().ceil().max(1.0);
        let across = (cores.len() as f64 / rows).ceil();
        let limit = (across * (widest + PAD) + PAD).min(DOMAIN_WIDTH.max(widest + 2.0 * PAD));
        Block::around(&domain.title, SMALL, cores, limit + 1.0).filled("#fafafa")
    }

    fn device(&self, device: &Device) -> Block {
        let lines = device.lines.iter().map(|line| (line.clone(), SMALL));
        self.owned(lines.collect(), &device.owner, 0.0)
    }

    fn complex(&self, complex: &RootComplex) -> Block {
        let devices = complex.devices.iter().map(|device| self.device(device));
        let mut block =
            Block::around(&complex.title, SMALL, devices.collect(), DOMAIN_WIDTH).filled("#f2f6fa");
        block.rounded = false;
        block
    }

    fn node(&self, node: &Node) -> Block {
        let mut children: Vec<Block> = node.domains.iter().map(|d| self.domain(d)).collect();
        if !node.complexes.is_empty() {
            let complexes = node.complexes.iter().map(|c| self.complex(c)).collect();
            children.push(Block::unseen(complexes, NODE_WIDTH));
        }
        Block::around(&node.title, TEXT, children, NODE_WIDTH).filled("#ffffff")
    }

    fn package(&self, package: &Package) -> Block {
        let nodes = package.nodes.iter().map(|node| self.node(node)).collect();
        // Nodes below each other: a package is a column.
        Block::around(&package.title, LARGE, nodes, 0.0).filled("#eeeeee")
    }

    fn legend(&self, legend: &[(Owner, String)], width: f64) -> Block {
        let rows = legend.iter().map(|(owner, text)| {
            let swatch = self.owned(Vec::new(), owner, 30.0);
            let mut words = Block::leaf(vec![(text.clone(), TEXT)], "#ffffff".into(), 0.0);
            words.stroke = "none";
            Block::unseen(vec![swatch, words], f64::INFINITY)
        });
        Block::unseen(rows.collect(), width)
    }
}

impl Floor {
    /// An SVG file, complete.
    #[must_use]
    pub fn svg(&self) -> String {
        let widest = |text: fn(&Thread) -> f64| self.threads().map(text).fold(0.0, f64::max);
        let number = widest(|thread| wide(&thread.cpu.to_string(), SMALL));
        let label = widest(|thread| wide(&thread.owner.label(), TEXT));
        let pen = Pen {
            thread: number.max(label),
            names: &self.names,
        };
        let mut children: Vec<Block> = self.packages.iter().map(|p| pen.package(p)).collect();
        children.extend(self.elsewhere.iter().map(|c| pen.complex(c)));
        children.extend(
            self.memory
                .iter()
                .map(|text| Block::leaf(vec![(text.clone(), TEXT)], "#ffffff".into(), 0.0)),
        );
        let server = Block::unseen(children, PAGE_WIDTH);
        let legend = pen.legend(&self.legend, server.width);
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
