//! `tidegate explain`: why a request went where it went.

mod replay;

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

use super::operations;
use crate::cli::ExplainArgs;
use crate::output::Output;

pub(super) fn run(args: &ExplainArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.replay {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        return replay::run(&text, output).with_context(|| format!("replay {}", path.display()));
    }
    let text = match (&args.file, &args.id) {
        (Some(path), _) => std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?,
        (None, Some(id)) => operations::wait(ask(&args.url, id))?,
        (None, None) => bail!("give the id of a generation, or `--file`"),
    };
    let explanation: Value = serde_json::from_str(&text).context("the answer is not JSON")?;
    if args.json {
        output.line(serde_json::to_string_pretty(&explanation)?);
        return Ok(ExitCode::SUCCESS);
    }
    let Some(decision) = explanation["text"].as_str() else {
        bail!("this is not an explanation of a generation: it has no `text`");
    };
    output.text(summary(&explanation["generation"]));
    output.line(decision.trim_end());
    match explanation["reproducible"].as_bool() {
        Some(true) => output.line("decided anew from the same snapshot, health and seed: the same choices"),
        Some(false) => output.line("decided anew from the same snapshot, health and seed: DIFFERENT choices; please report this"),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Who served, how it ended, what it cost.
fn summary(generation: &Value) -> String {
    let text = |key: &str| generation[key].as_str().unwrap_or("-").to_owned();
    let millis = |key: &str| generation[key].as_u64().map_or("-".to_owned(), |value| format!("{value} ms"));
    format!(
        "{}\n  model {}, served by {}\n  finish {}, first token {}, generation {}\n  tokens {} in, {} out, cost {} USD\n\n",
        text("id"),
        text("model"),
        text("provider_name"),
        text("finish_reason"),
        millis("latency"),
        millis("generation_time"),
        generation["tokens_prompt"],
        generation["tokens_completion"],
        generation["total_cost"],
    )
}

/// Asks the edge for an explanation.
async fn ask(url: &str, id: &str) -> anyhow::Result<String> {
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        bail!("`{id}` is not the id of a generation, such as gen-01JD8Z5V9Q");
    }
    match operations::get(url, &format!("/explain/{id}")).await? {
        (http::StatusCode::OK, text) => Ok(text),
        (http::StatusCode::NOT_FOUND, _) => bail!(
            "the edge at {url} does not know generation {id}: another edge served it, or it was forgotten (`generations` in the \
             configuration)"
        ),
        (other, _) => bail!("the edge at {url} answered {other}"),
    }
}

#[cfg(test)]
mod tests;
