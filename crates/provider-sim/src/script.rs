//! What one particular request is to meet, told by a test or by the header `x-sim-script`.
//!
//! As text: items separated by semicolons, such as `status=429; retry-after=2` or `first-token=300ms; cut=5`.

use std::str::FromStr;
use std::time::Duration;

use crate::fault::Fault;

/// One request's fate. It takes the place of the rules; what it does not say is as usual.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Script {
    /// What goes wrong.
    pub fault: Option<Fault>,
    /// Everything takes so many times longer.
    pub slowness: Option<f64>,
    /// Time to the first token.
    pub first_token: Option<Duration>,
    /// Speed after the first token.
    pub tokens_per_second: Option<f64>,
    /// The answer's text, instead of a written one. Not in the textual form.
    pub text: Option<String>,
    /// Answer with the request as it arrived.
    pub echo: bool,
}

impl Script {
    /// Nothing special.
    pub fn regular() -> Self {
        Self::default()
    }

    /// One fault.
    pub fn fault(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    /// An error status.
    pub fn status(status: u16) -> Self {
        Self::fault(Fault::Status { status, retry_after: None })
    }

    /// An answer with this text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }
}

/// A script that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("script item `{item}` is not understood; known are {KNOWN}")]
pub struct ScriptError {
    /// The item.
    pub item: String,
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        let mut retry_after = None;
        for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            let read = match name {
                "ok" => Some(()),
                "echo" => {
                    script.echo = true;
                    Some(())
                }
                "slow" => value.parse().ok().map(|factor| script.slowness = Some(factor)),
                "first-token" => duration(value).map(|time| script.first_token = Some(time)),
                "tokens-per-second" => value.parse().ok().map(|speed| script.tokens_per_second = Some(speed)),
                "retry-after" => duration(value).map(|time| retry_after = Some(time)),
                _ => fault(name, value).map(|fault| script.fault = Some(fault)),
            };
            if read.is_none() {
                return Err(ScriptError { item: item.to_owned() });
            }
        }
        if let Some(Fault::Status { retry_after: after, .. }) = &mut script.fault {
            *after = retry_after;
        }
        Ok(script)
    }
}

fn fault(name: &str, value: &str) -> Option<Fault> {
    Some(match name {
        "status" => Fault::Status { status: value.parse().ok().filter(|status| (400..600).contains(status))?, retry_after: None },
        "reset" => Fault::Reset,
        "hang" => Fault::Hang,
        "stall" => Fault::Stall { after: value.parse().ok()? },
        "cut" => Fault::Cut { after: value.parse().ok()? },
        "error-event" => Fault::ErrorEvent { after: value.parse().ok()? },
        "malformed" => Fault::Malformed,
        "empty" => Fault::Empty,
        _ => return None,
    })
}

/// `250ms`, `2s`, or a bare number of seconds.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().ok()? * unit;
    Duration::try_from_secs_f64(seconds).ok()
}

const KNOWN: &str = "ok, echo, status=<400..599>, retry-after=<time>, reset, hang, stall=<n>, cut=<n>, error-event=<n>, malformed, \
    empty, slow=<factor>, first-token=<time>, tokens-per-second=<number>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_in_any_order() {
        let script: Script = "retry-after=2; status=429".parse().unwrap();
        assert_eq!(script.fault, Some(Fault::Status { status: 429, retry_after: Some(Duration::from_secs(2)) }));
        let script: Script = "first-token=300ms;cut=5;slow=2".parse().unwrap();
        assert_eq!(script.first_token, Some(Duration::from_millis(300)));
        assert_eq!((script.fault, script.slowness), (Some(Fault::Cut { after: 5 }), Some(2.0)));
        assert_eq!("".parse::<Script>().unwrap(), Script::regular());
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["status=200", "cut", "explode", "first-token=-1s", "stall=x"] {
            let error = text.parse::<Script>().unwrap_err();
            assert_eq!(error.item, text);
        }
    }
}
