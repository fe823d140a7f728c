//! A configuration file as a tree that remembers where everything stood.
//!
//! The YAML parser gives events with positions; this keeps both, so that a problem found late (an unknown reference, a snapshot that
//! does not build) still points at the line that caused it. Numbers stay text until a field asks for them, so that a price is never
//! a binary float. Aliases are expanded and `<<` merges are applied here; the rest of the code sees a plain tree.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle};

use super::problem::Problem;

/// Index of a text that values came from: 0 is the file, later ones are environment variables.
pub(crate) type SourceId = usize;

/// A part of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) source: SourceId,
    /// Bytes of the source's text.
    pub(crate) range: Range<usize>,
}

/// One value and where it stood.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    /// Key path for people, such as `endpoints[3].prices.prompt`.
    pub(crate) path: String,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A text; `plain` when it was written without quotes and may mean a number, a boolean or null.
    Scalar { text: String, plain: bool },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys in the order of the file, each once.
    Mapping(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) node: Node,
}

impl Node {
    /// Reads `text`. Problems that do not spoil the rest (a key given twice) are added to `problems`; a text that is not YAML at all
    /// is one problem and no node.
    pub(crate) fn read(text: &str, source: SourceId, problems: &mut Vec<Problem>) -> Option<Node> {
        let mut reader = Reader { source, text, anchors: BTreeMap::new(), nodes: 0, depth: 0, problems };
        match reader.document() {
            Ok(mut node) => {
                node.name_paths("");
                Some(node)
            }
            Err(problem) => {
                problems.push(problem);
                None
            }
        }
    }

    /// The value of a key, when this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The entries of a mapping; none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a sequence; none of anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Written as nothing, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if is_null_text(text))
    }

    /// What stands here, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { plain: false, .. } => "a text",
            Value::Scalar { text, .. } => match text.as_str() {
                "true" | "false" => "a boolean",
                text if text.parse::<f64>().is_ok() => "a number",
                _ => "a text",
            },
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// Writes the key path of this node and all below it.
    pub(crate) fn name_paths(&mut self, path: &str) {
        path.clone_into(&mut self.path);
        match &mut self.value {
            Value::Scalar { .. } => {}
            Value::Sequence(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.name_paths(&format!("{path}[{index}]"));
                }
            }
            Value::Mapping(entries) => {
                for entry in entries {
                    entry.node.name_paths(&join(path, &entry.key));
                }
            }
        }
    }
}

/// `path.key`, quoting keys that would read as something else.
pub(crate) fn join(path: &str, key: &str) -> String {
    let key = if key.contains(['.', '[', ' ']) { format!("\"{key}\"") } else { key.to_owned() };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The plain texts that mean null in the YAML core schema.
pub(crate) fn is_null_text(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Most values of one file after aliases are expanded. A mesh of 10 000 endpoints has about 200 000.
const MAX_NODES: usize = 2_000_000;

/// Deepest nesting, aliases expanded: what reads a tree recurses. A request's JSON Schema in a preset takes about 20.
const MAX_DEPTH: usize = 64;

struct Reader<'a> {
    source: SourceId,
    text: &'a str,
    /// Anchored nodes by the parser's number.
    anchors: BTreeMap<usize, Node>,
    /// Values made so far, copies by aliases included.
    nodes: usize,
    /// Collections that are open.
    depth: usize,
    problems: &'a mut Vec<Problem>,
}

type Events<'a> = Parser<'a, granit_parser::StrInput<'a>>;

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Node, Problem> {
        let options = granit_parser::options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH, emit_comments: false };
        let mut events: Events<'a> = Parser::new_from_str_with_options(self.text, options);
        let mut root = None;
        while let Some(next) = events.next() {
            let (event, span) = next.map_err(|error| self.not_yaml(&error))?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd | Event::Comment(..) => {}
                _ if root.is_some() => {
                    return Err(Problem::error(self.span(&span), "a second YAML document")
                        .help("a configuration is one document: remove the `---` line or merge the documents"));
                }
                event => root = Some(self.node(event, &span, &mut events)?),
            }
        }
        let empty = || Node { span: Span { source: self.source, range: 0..0 }, path: String::new(), value: Value::Mapping(Vec::new()) };
        let root = root.unwrap_or_else(empty);
        // A file of comments only.
        Ok(if root.is_null() && self.source == 0 { empty() } else { root })
    }

    fn node(&mut self, event: Event<'a>, span: &granit_parser::Span, events: &mut Events<'a>) -> Result<Node, Problem> {
        self.count(1, span)?;
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let node = self.build(Value::Scalar { text: text.into_owned(), plain }, self.span(span));
                Ok(self.remember(anchor, node))
            }
            Event::SequenceStart(_, anchor, _) => {
                self.deepen(1, span)?;
                self.depth += 1;
                let mut items = Vec::new();
                let end = loop {
                    match self.next(events)? {
                        (Event::SequenceEnd, end) => break end,
                        (event, span) => items.push(self.node(event, &span, events)?),
                    }
                };
                self.depth -= 1;
                let whole = self.collection_span(span, &end, items.last().map(|item| &item.span));
                let node = self.build(Value::Sequence(items), whole);
                Ok(self.remember(anchor, node))
            }
            Event::MappingStart(_, anchor, _) => {
                self.deepen(1, span)?;
                self.depth += 1;
                let (entries, end) = self.mapping(events)?;
                self.depth -= 1;
                let whole = self.collection_span(span, &end, entries.last().map(|entry| &entry.node.span));
                let node = self.build(Value::Mapping(entries), whole);
                Ok(self.remember(anchor, node))
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(Problem::error(self.span(span), "an alias inside the value it names"));
                };
                self.count(size(&node), span)?;
                self.deepen(height(&node), span)?;
                Ok(node)
            }
            _ => Err(Problem::error(self.span(span), "unexpected YAML construct")),
        }
    }

    fn mapping(&mut self, events: &mut Events<'a>) -> Result<(Vec<Entry>, granit_parser::Span), Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = HashSet::new();
        let mut merged = Vec::new();
        let end = loop {
            let (event, span) = self.next(events)?;
            if matches!(event, Event::MappingEnd) {
                break span;
            }
            let key_node = self.node(event, &span, events)?;
            let (event, span) = self.next(events)?;
            let node = self.node(event, &span, events)?;
            let Some(key) = key_node.text() else {
                self.problems.push(Problem::error(key_node.span, "a key must be a text"));
                continue;
            };
            if key == "<<" {
                merged.push(node);
                continue;
            }
            if !seen.insert(key.to_owned()) {
                let first = entries.iter().find(|entry| entry.key == key).map(|entry| entry.key_span.clone());
                let mut problem = Problem::error(key_node.span.clone(), format!("key `{key}` is given twice"))
                    .help("keep one of them; YAML readers disagree on which one would count");
                problem.context = first.map(|first| Box::new((first, "first given here".to_owned())));
                self.problems.push(problem);
                continue;
            }
            entries.push(Entry { key: key.to_owned(), key_span: key_node.span.clone(), node });
        };
        for node in merged {
            self.merge(node, &mut entries);
        }
        Ok((entries, end))
    }

    /// Adds what `<<` brings: own keys win, earlier sources win over later ones.
    fn merge(&mut self, node: Node, entries: &mut Vec<Entry>) {
        match node.value {
            Value::Mapping(others) => {
                for other in others {
                    if !entries.iter().any(|entry| entry.key == other.key) {
                        entries.push(other);
                    }
                }
            }
            Value::Sequence(items) => items.into_iter().for_each(|item| self.merge(item, entries)),
            Value::Scalar { .. } => {
                self.problems.push(Problem::error(node.span, "`<<` needs a mapping").help("point it at an anchor: `<<: *name`"))
            }
        }
    }

    fn next(&self, events: &mut Events<'a>) -> Result<(Event<'a>, granit_parser::Span), Problem> {
        loop {
            match events.next() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(error)) => return Err(self.not_yaml(&error)),
                None => {
                    let end = self.text.len();
                    return Err(Problem::error(Span { source: self.source, range: end..end }, "the file ends too early"));
                }
            }
        }
    }

    fn remember(&mut self, anchor: usize, node: Node) -> Node {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        node
    }

    fn count(&mut self, nodes: usize, span: &granit_parser::Span) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(Problem::error(self.span(span), format!("more than {MAX_NODES} values"))
                .help("aliases inside aliases multiply: write the values out, or split the configuration"));
        }
        Ok(())
    }

    fn deepen(&self, by: usize, span: &granit_parser::Span) -> Result<(), Problem> {
        if self.depth + by <= MAX_DEPTH {
            return Ok(());
        }
        Err(Problem::error(self.span(span), format!("values inside values more than {MAX_DEPTH} levels deep"))
            .help("nothing here needs that"))
    }

    fn build(&self, value: Value, span: Span) -> Node {
        Node { span, path: String::new(), value }
    }

    fn span(&self, span: &granit_parser::Span) -> Span {
        let range = span.byte_range().unwrap_or(0..0);
        let end = range.end.min(self.text.len());
        let start = range.start.min(end);
        Span { source: self.source, range: start..end }
    }

    /// From the first to the last value: the parser's end of a block is the start of whatever follows it.
    fn collection_span(&self, start: &granit_parser::Span, end: &granit_parser::Span, last: Option<&Span>) -> Span {
        let start = self.span(start);
        let flow = self.text[start.range.start..].starts_with(['[', '{']);
        let end = match last {
            Some(last) if !flow && last.source == self.source => last.range.end,
            _ => self.span(end).range.end,
        };
        Span { source: self.source, range: start.range.start..end.max(start.range.start) }
    }

    fn not_yaml(&self, error: &granit_parser::ScanError) -> Problem {
        let at = error.marker().byte_offset().unwrap_or(self.text.len()).min(self.text.len());
        Problem::error(Span { source: self.source, range: at..at }, format!("not valid YAML: {}", error.info()))
            .help("check indentation, quotes and colons around this place; nothing after it was read")
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 1,
        Value::Sequence(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Mapping(entries) => 1 + entries.iter().map(|entry| size(&entry.node)).sum::<usize>(),
    }
}

/// Collections on the way to the deepest value.
fn height(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 0,
        Value::Sequence(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Value::Mapping(entries) => 1 + entries.iter().map(|entry| height(&entry.node)).max().unwrap_or(0),
    }
}
