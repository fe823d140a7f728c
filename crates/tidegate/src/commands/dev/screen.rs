//! What `tidegate dev` shows: where it is, how to talk to it, and a line that lives.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use super::fleet::VENDORS;
use super::pulse::Pulse;

/// What the first screen says.
pub(super) struct Welcome<'a> {
    pub(super) http: &'a str,
    pub(super) https: &'a str,
    pub(super) ops: &'a str,
    pub(super) key: &'a str,
    pub(super) ca: &'a Path,
    pub(super) data: &'a Path,
    /// Slugs of real providers that are switched on, with the variable that did it.
    pub(super) real: &'a [(String, String)],
    pub(super) model: &'a str,
    pub(super) demo_traffic: bool,
}

/// Prints the first screen.
pub(super) fn welcome(welcome: &Welcome<'_>) -> io::Result<()> {
    let Welcome { http, https, ops, key, ca, data, real, model, demo_traffic } = welcome;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n  Tidegate is up.\n");
    let _ = writeln!(text, "  API         {http}/v1   (also /api/v1)");
    let _ = writeln!(text, "              {https}/v1");
    let _ = writeln!(text, "  Operations  {ops}   (/metrics /livez /readyz)");
    let _ = writeln!(text, "  Key         {key}");
    let _ = writeln!(text, "  CA          {}", ca.display());
    let _ = writeln!(text, "  Data        {}\n", data.display());
    let _ = writeln!(text, "  Simulated providers:");
    for vendor in &VENDORS {
        let _ = writeln!(text, "    {:<12} {:<19} {}", vendor.slug, vendor.dialect.as_str(), vendor.about);
    }
    if real.is_empty() {
        let _ =
            writeln!(text, "\n  Real providers: none. Set OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY or another and start again.");
    } else {
        let _ = writeln!(text, "\n  Real providers:");
        for (slug, variable) in *real {
            let _ = writeln!(text, "    {slug:<12} by {variable}");
        }
    }
    let _ = writeln!(text, "\n  Try it:\n");
    let _ = writeln!(text, "    curl {http}/v1/chat/completions -H 'Authorization: Bearer {key}' \\");
    let _ = writeln!(
        text,
        "      -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}], \"stream\": true}}'\n"
    );
    let _ = writeln!(text, "    curl {http}/v1/models/{model}/endpoints -H 'Authorization: Bearer {key}'\n");
    let _ = writeln!(text, "    tidegate explain <the id of an answer>\n");
    if *demo_traffic {
        let _ = writeln!(
            text,
            "  A little demo traffic runs, so that you can watch kelpforge go down and requests go elsewhere (--traffic 0 stops it)."
        );
    }
    let _ = writeln!(text, "  Ctrl-C lets running requests finish and stops.\n");
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The line that lives: rewritten in place on a terminal, printed now and then elsewhere.
pub(super) struct LiveLine {
    in_place: bool,
    last: String,
    ticks: u32,
}

impl LiveLine {
    pub(super) fn new(plain: bool) -> Self {
        Self { in_place: !plain && io::stdout().is_terminal(), last: String::new(), ticks: 0 }
    }

    /// Shows the state of the fleet.
    pub(super) fn show(&mut self, pulse: &Pulse) -> io::Result<()> {
        self.ticks += 1;
        let line = pulse.line();
        let mut out = io::stdout().lock();
        if self.in_place {
            // Back to the line's begin, and clear it.
            write!(out, "\r\x1b[2K  {line}")?;
        } else if pulse.news() != self.last || self.ticks.is_multiple_of(PLAIN_EVERY) {
            self.last = pulse.news();
            writeln!(out, "  {line}")?;
        }
        out.flush()
    }

    /// Leaves the line as it is and goes on below it.
    pub(super) fn leave(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.in_place {
            writeln!(out)?;
        }
        out.flush()
    }
}

/// Without a terminal an unchanged line is repeated after this many ticks.
const PLAIN_EVERY: u32 = 10;
