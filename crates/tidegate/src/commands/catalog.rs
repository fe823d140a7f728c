//! `tidegate catalog …`: public lists into configuration for review.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

use crate::catalog::SHIPPED;
use crate::catalog::import::write::{Origin, document};
use crate::catalog::import::{Selection, litellm, models_dev, openrouter};
use crate::cli::{ImportArgs, ImportSource};
use crate::output::Output;

pub(super) fn import(args: &ImportArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(&args.file).with_context(|| format!("read {}", args.file.display()))?;
    let selection = Selection { providers: args.providers.clone(), models: args.models.clone() };
    let (imported, source, licence) = match args.from {
        ImportSource::ModelsDev => (models_dev::read(&text, &selection), "models.dev", "MIT"),
        ImportSource::Litellm => (litellm::read(&text, &selection), "LiteLLM's model price list", "MIT"),
        ImportSource::Openrouter => {
            (openrouter::read(&text, &selection), "the OpenRouter API", "none stated; for your own use, not for redistribution")
        }
    };
    let imported = imported.with_context(|| format!("import {}", args.file.display()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = tidegate_ledger::UnixMillis(now.as_secs().saturating_mul(1_000)).to_string();
    let file = args.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let yaml = document(&imported, &Origin { source, licence, file: &file, date: &date[..10] });
    match &args.output {
        Some(path) => std::fs::write(path, yaml).with_context(|| format!("write {}", path.display()))?,
        None => output.text(yaml),
    }
    output.note(format_args!("{} endpoints, {} entries left out", imported.offers.len(), imported.skipped.len()));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(output: &mut Output) -> ExitCode {
    output.text(SHIPPED);
    ExitCode::SUCCESS
}
