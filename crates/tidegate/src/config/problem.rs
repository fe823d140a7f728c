//! What is wrong with a configuration: where, what, and what to do about it.

use std::fmt::Write as _;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::tree::{Node, Span};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The configuration is refused.
    Error,
    /// It works, but probably not as meant.
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    pub(crate) span: Span,
    /// Key path such as `endpoints[3].prices.prompt`; empty for the file as a whole.
    pub(crate) path: String,
    /// What is wrong. Never holds a secret.
    pub(crate) message: String,
    /// What to do.
    pub(crate) help: Vec<String>,
    /// Another place that matters, with what it is.
    pub(crate) context: Option<Box<(Span, String)>>,
}

impl Problem {
    /// An error at a place without a key path.
    pub(crate) fn error(span: Span, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Error, span, path: String::new(), message: message.into(), help: Vec::new(), context: None }
    }

    /// An error about a value.
    pub(crate) fn at(node: &Node, message: impl Into<String>) -> Problem {
        Problem { path: node.path.clone(), ..Problem::error(node.span.clone(), message) }
    }

    /// The same, as a warning.
    pub(crate) fn warning(self) -> Problem {
        Problem { severity: Severity::Warning, ..self }
    }

    /// Adds advice.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help.push(help.into());
        self
    }

    /// Adds advice if there is any.
    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Problem {
        self.help.extend(help);
        self
    }

    /// Adds another place.
    pub(crate) fn context(mut self, span: &Span, label: impl Into<String>) -> Problem {
        self.context = Some(Box::new((span.clone(), label.into())));
        self
    }
}

/// A text that values came from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Path of a file, or a description of an environment variable.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Everything found in one reading, with the texts it refers to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) sources: Vec<Source>,
    pub(crate) problems: Vec<Problem>,
    /// Files that secrets were looked for in, found or not: they belong to what a reload has to watch.
    pub(crate) files: Vec<PathBuf>,
}

/// A finding for machines.
#[derive(Debug, Serialize)]
pub(crate) struct Finding<'a> {
    pub(crate) severity: Severity,
    pub(crate) file: &'a str,
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    pub(crate) path: &'a str,
    pub(crate) message: &'a str,
    pub(crate) help: &'a [String],
}

impl Report {
    /// Something makes the configuration unusable.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// Number of errors.
    pub(crate) fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// Number of warnings.
    pub(crate) fn warnings(&self) -> usize {
        self.problems.len() - self.errors()
    }

    /// Puts problems in the order of the file and drops repetitions.
    pub(crate) fn tidy(&mut self) {
        self.problems.sort_by(|a, b| {
            (a.span.source, a.span.range.start, a.severity, &a.message).cmp(&(b.span.source, b.span.range.start, b.severity, &b.message))
        });
        self.problems.dedup();
    }

    /// All findings with line and column.
    pub(crate) fn findings(&self) -> impl Iterator<Item = Finding<'_>> {
        self.problems.iter().map(|problem| {
            let (file, line, column) = self.place(&problem.span);
            Finding { severity: problem.severity, file, line, column, path: &problem.path, message: &problem.message, help: &problem.help }
        })
    }

    /// For people: each problem with the line it is on, a caret and advice.
    pub(crate) fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.problems {
            out.push_str(&renderer.render(&[self.group(problem)]));
            out.push_str("\n\n");
        }
        out
    }

    /// One line per problem, for logs.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.findings().map(|finding| {
            let mut line = format!("{}:{}:{}: ", finding.file, finding.line, finding.column);
            if !finding.path.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(line, "{}: ", finding.path);
            }
            line.push_str(finding.message);
            for help in finding.help {
                let _ = write!(line, "; {help}");
            }
            line
        })
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.message.as_str());
        let Some(source) = self.sources.get(problem.span.source) else { return Group::with_title(title) };

        let mut primary = AnnotationKind::Primary.span(self.shown(&problem.span));
        if !problem.path.is_empty() {
            primary = primary.label(problem.path.as_str());
        }
        let mut snippet = Snippet::source(source.text.as_str()).path(source.name.as_str()).annotation(primary);
        if let Some((span, label)) = problem.context.as_deref()
            && span.source == problem.span.source
        {
            snippet = snippet.annotation(AnnotationKind::Context.span(self.shown(span)).label(label.as_str()));
        }
        let mut group = title.element(snippet);
        for help in &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }

    /// What to underline: never more than the first line, so that a problem of a whole section is not a wall of carets.
    fn shown(&self, span: &Span) -> std::ops::Range<usize> {
        let text = &self.sources[span.source].text;
        let rest = &text[span.range.clone()];
        let line = rest.lines().next().unwrap_or_default().trim_end();
        span.range.start..span.range.start + line.len()
    }

    fn place(&self, span: &Span) -> (&str, usize, usize) {
        let Some(source) = self.sources.get(span.source) else { return ("", 0, 0) };
        let before = &source.text[..span.range.start];
        let line = before.matches('\n').count() + 1;
        let start_of_line = before.rfind('\n').map_or(0, |at| at + 1);
        (&source.name, line, before[start_of_line..].chars().count() + 1)
    }
}
