//! `tidegate key …`: keys are made here, and only their digests go into a configuration.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, bail};
use secrecy::SecretString;
use tidegate_runtime::api_key::{ApiKey, format_digest};

use crate::cli::{KeyNewArgs, PepperArgs};
use crate::config::Environment;
use crate::key;
use crate::output::Output;

pub(super) fn new(args: &KeyNewArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let pepper = pepper(&args.pepper)?;
    let key = key::generate(args.env.into()).context("get randomness from the operating system")?;
    output.note("This is the only time the key is shown:");
    output.line(key.expose());
    output.note("");
    output.note("For the configuration, which never holds the key itself:");
    output.note("");
    output.note("keys:");
    output.note(format_args!("  {}:", serde_json::Value::from(args.name.as_str())));
    output.note(format_args!("    digest: {}", format_digest(&key.digest(pepper.as_ref()))));
    if pepper.is_none() {
        output.note("");
        output.note("Made for a configuration without `keys_pepper`; with one, give `--pepper`.");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn digest(args: &PepperArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let pepper = pepper(args)?;
    let mut text = String::new();
    std::io::stdin().take(MAX_KEY_BYTES).read_to_string(&mut text).context("read a key from standard input")?;
    let key = ApiKey::parse(text.trim()).context("standard input is not a Tidegate key")?;
    output.line(format_digest(&key.digest(pepper.as_ref())));
    Ok(ExitCode::SUCCESS)
}

/// Longer input is not a key.
const MAX_KEY_BYTES: u64 = 4_096;

fn pepper(args: &PepperArgs) -> anyhow::Result<Option<SecretString>> {
    let Some(reference) = &args.pepper else { return Ok(None) };
    let text = match reference.split_once(':') {
        Some(("env", name)) => {
            Environment::of_process().get(name).map(str::to_owned).with_context(|| format!("environment variable {name} is not set"))?
        }
        Some(("file", path)) => std::fs::read_to_string(path).with_context(|| format!("read the pepper from {path}"))?,
        _ => bail!("`--pepper` takes a reference, `env:NAME` or `file:PATH`, so that the secret stays out of the shell's history"),
    };
    let text = text.trim();
    if text.is_empty() {
        bail!("the pepper at {reference} is empty");
    }
    Ok(Some(SecretString::from(text)))
}
