//! What people read: the only place that writes to standard output and standard error.
//!
//! A reader that goes away (`| head`) is not an error of ours, so failed writes end the output and nothing else.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use annotate_snippets::renderer::{AnsiColor, Style};

/// Standard output and standard error of one command.
pub(crate) struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    colour_out: bool,
    colour_err: bool,
}

/// Whether colours may be used at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// On terminals, unless `NO_COLOR` is set.
    Auto,
    /// Nowhere.
    Never,
}

impl Output {
    /// The process's own streams. `no_color_set` says that the environment asks for none.
    pub(crate) fn of_process(colour: Colour, no_color_set: bool) -> Output {
        let wanted = colour == Colour::Auto && !no_color_set;
        Output {
            colour_out: wanted && io::stdout().is_terminal(),
            colour_err: wanted && io::stderr().is_terminal(),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        }
    }

    /// Writes a line of the result.
    pub(crate) fn line(&mut self, text: impl Display) {
        let _ = writeln!(self.out, "{text}");
    }

    /// Writes the result as it is.
    pub(crate) fn text(&mut self, text: impl Display) {
        let _ = write!(self.out, "{text}");
    }

    /// Writes a line beside the result: progress, advice, problems.
    pub(crate) fn note(&mut self, text: impl Display) {
        let _ = writeln!(self.err, "{text}");
    }

    /// Writes beside the result as it is.
    pub(crate) fn note_text(&mut self, text: impl Display) {
        let _ = write!(self.err, "{text}");
    }

    /// Notes may be coloured.
    pub(crate) fn colour_err(&self) -> bool {
        self.colour_err
    }

    /// `text` in green, where colours are seen.
    pub(crate) fn good(&self, text: &str) -> String {
        paint(self.colour_out, AnsiColor::Green, text)
    }

    /// `text` in red, for notes.
    pub(crate) fn bad(&self, text: &str) -> String {
        paint(self.colour_err, AnsiColor::Red, text)
    }
}

fn paint(colour: bool, with: AnsiColor, text: &str) -> String {
    if !colour {
        return text.to_owned();
    }
    let style = Style::new().fg_color(Some(with.into())).bold();
    format!("{style}{text}{style:#}")
}
