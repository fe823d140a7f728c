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

    /// Keeps everything, for tests of what people read.
    #[cfg(test)]
    pub(crate) fn captured(out: impl Write + 'static) -> Output {
        Output { out: Box::new(out), err: Box::new(io::sink()), colour_out: false, colour_err: false }
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

/// Columns as wide as their widest cell, two spaces apart.
pub(crate) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A moment of Unix time, as in RFC 3339, UTC.
pub(crate) fn moment(unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Civil date of a day number (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
    let days = days as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn paint(colour: bool, with: AnsiColor, text: &str) -> String {
    if !colour {
        return text.to_owned();
    }
    let style = Style::new().fg_color(Some(with.into())).bold();
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_796_083_200, "2026-12-01T00:00:00Z"),
        ] {
            assert_eq!(moment(seconds), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "long".to_owned()], vec!["bcd".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["N", "V"], rows.into_iter()), "N    V\na    long\nbcd  x\n");
    }
}
