//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::commands::certs::CertsCommand;
use crate::commands::control::ControlArgs;
use crate::commands::declare::{ApplyArgs, DiffArgs, EdgesArgs, HistoryArgs, RollbackArgs};
use crate::commands::dev::DevArgs;
use crate::commands::drain::DrainArgs;
use crate::commands::kek::KekCommand;
use crate::commands::keys::KeysCommand;
use crate::config::file::LogFormatName;
use crate::key::KeyEnvName;

/// One API and one key in front of many models and many providers.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  tidegate dev                            try it: an edge on localhost, no configuration needed
  tidegate check tidegate.yaml            find every problem of a configuration before it runs
  tidegate edge --config tidegate.yaml    serve
  tidegate explain gen-01JD…              why a request went where it went

Every command explains itself: `tidegate help check`.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Form of log lines; wins over the configuration.
    #[arg(long, global = true, value_enum, env = "TIDEGATE_LOG_FORMAT", help_heading = "Logging")]
    pub(crate) log_format: Option<LogFormatName>,
    /// Level, or levels by target such as `info,tidegate_edge=debug`; wins over the configuration.
    #[arg(long, global = true, env = "TIDEGATE_LOG_LEVEL", help_heading = "Logging")]
    pub(crate) log_level: Option<String>,
    /// Never use colours. Without it they are used on terminals unless NO_COLOR is set.
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Try it: an edge on localhost over simulated providers; nothing to configure.
    Dev(DevArgs),
    /// Serve requests as a configuration says.
    Edge(EdgeArgs),
    /// Run a control node, or tell its cluster what to do.
    Control(ControlArgs),
    /// Make what a file declares so, everywhere.
    Apply(ApplyArgs),
    /// Show how a file differs from what is declared.
    Diff(DiffArgs),
    /// Show what was declared when, by whom and why.
    History(HistoryArgs),
    /// Declare again what was declared at a revision.
    Rollback(RollbackArgs),
    /// Callers' keys of the control plane.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Take a provider or an endpoint out of service, or back.
    Drain(DrainArgs),
    /// List live edges, and how far each has followed.
    Edges(EdgesArgs),
    /// Find every problem of a configuration, without starting anything.
    Check(CheckArgs),
    /// Print the JSON Schema of configuration files.
    #[command(after_help = "\
Editors use it through the first line of a file:
  # yaml-language-server: $schema=tidegate.schema.json

Example:
  tidegate schema > tidegate.schema.json
  tidegate schema control > control.schema.json")]
    Schema {
        /// Which files.
        #[arg(value_enum, default_value = "config")]
        of: SchemaOf,
    },
    /// Models and prices from public lists.
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Say why a request went where it went.
    Explain(ExplainArgs),
    /// Callers' keys of a file; for those of the control plane see `keys`.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Certificates of the mesh's members, from an authority of your own.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Keys that seal providers' credentials.
    #[command(subcommand)]
    Kek(KekCommand),
    /// Print completions for a shell.
    #[command(after_help = "\
Examples:
  tidegate completions bash > /etc/bash_completion.d/tidegate
  tidegate completions zsh > \"${fpath[1]}/_tidegate\"")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
}

/// Kind of configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// Of an edge, and of declarations for `tidegate apply`.
    Config,
    /// Of a control node.
    Control,
}

/// `tidegate edge`.
#[derive(Debug, Args)]
#[command(after_help = "\
The file is looked at every second, also behind the symlinks of a Kubernetes volume, and on SIGHUP. A good new version replaces
providers, models, endpoints, keys, presets, defaults and routing without dropping a stream; a bad one is refused as a whole, logged,
and counted in `tidegate_config_reloads_total`.

Examples:
  tidegate edge --config tidegate.yaml
  TIDEGATE__OPERATIONS__ADDRESS=0.0.0.0:9090 tidegate edge --config tidegate.yaml
  tidegate edge --config edge.yaml --control https://control-1.example:7420,https://control-2.example:7420")]
pub(crate) struct EdgeArgs {
    /// The configuration.
    #[arg(long, short, value_name = "FILE", env = "TIDEGATE_CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config: PathBuf,
    /// Follow these control nodes instead of `control.endpoints` of the file. Providers, models, endpoints and keys then come from there.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) control: Vec<String>,
}

/// `tidegate check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 good, 2 not good. Secrets and certificates that are missing on this machine are warnings, because a configuration is
usually checked elsewhere than where it runs; `--strict` makes them errors, as `tidegate edge` does.

Examples:
  tidegate check tidegate.yaml
  tidegate check tidegate.yaml --json | jq '.problems[].path'")]
pub(crate) struct CheckArgs {
    /// The configuration.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Treat missing secrets and files as errors, as an edge does.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// `tidegate catalog …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// Turn a public list of models and prices into models and endpoints for review.
    Import(ImportArgs),
    /// Print the catalogue that ships with this version.
    Show,
}

/// `tidegate catalog import`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is fetched: the list is a file that you downloaded. Prices are converted digit by digit, never rounded; what cannot be
priced exactly or routed is listed as a comment with the reason.

Examples:
  tidegate catalog import --from models.dev api.json --providers openai,groq -o catalog.yaml
  tidegate catalog import --from litellm model_prices_and_context_window.json --models '*/claude-*'
  tidegate catalog import --from openrouter models.json")]
pub(crate) struct ImportArgs {
    /// Shape of the list.
    #[arg(long, value_enum)]
    pub(crate) from: ImportSource,
    /// The list.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Only these providers (slugs of the list or of Tidegate), separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub(crate) providers: Vec<String>,
    /// Only models whose slug matches, with `*` for anything.
    #[arg(long, value_name = "GLOB")]
    pub(crate) models: Option<String>,
    /// Where to write. Without it: standard output.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

/// A public list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportSource {
    /// `api.json` of models.dev.
    #[value(name = "models.dev")]
    ModelsDev,
    /// `model_prices_and_context_window.json` of LiteLLM.
    Litellm,
    /// `/models` or `/models/{id}/endpoints` of the OpenRouter API.
    Openrouter,
}

/// `tidegate explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Asks the operations port of the edge that served the generation.

Examples:
  tidegate explain gen-01JD…
  tidegate explain gen-01JD… --json > decision.json
  tidegate explain --file decision.json
  tidegate explain --replay decision.json")]
pub(crate) struct ExplainArgs {
    /// Id of a generation, from `x-generation-id` or the answer's `id`.
    #[arg(value_name = "GENERATION", required_unless_present_any = ["file", "replay"])]
    pub(crate) id: Option<String>,
    /// Operations port of the edge.
    #[arg(long, default_value = "http://127.0.0.1:9090", value_hint = ValueHint::Url)]
    pub(crate) url: String,
    /// A saved explanation instead of an edge.
    #[arg(long, value_name = "FILE", conflicts_with = "id", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Decide anew, offline, from a saved explanation with its own settings, health and seed, and say whether the choices are the same.
    /// Exit code 1 when they are not.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "file", "json"], value_hint = ValueHint::FilePath)]
    pub(crate) replay: Option<PathBuf>,
    /// Print the JSON as it is.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `tidegate key …`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key: shown once, with the lines for the configuration.
    New(KeyNewArgs),
    /// Print the digest of a key read from standard input.
    Digest(PepperArgs),
}

/// `tidegate key new`.
#[derive(Debug, Args)]
#[command(after_help = "\
The key goes to standard output, everything else to standard error, so that it can be piped into a secret store.

Examples:
  tidegate key new --name team-search
  tidegate key new --name ci --env test --pepper env:TIDEGATE_PEPPER")]
pub(crate) struct KeyNewArgs {
    /// What the key is meant for; shows in its first letters.
    #[arg(long, value_enum, default_value = "live")]
    pub(crate) env: KeyEnvName,
    /// Name of the key in the configuration.
    #[arg(long, default_value = "new-key")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) pepper: PepperArgs,
}

/// The secret of the digest function.
#[derive(Debug, Args)]
pub(crate) struct PepperArgs {
    /// `keys_pepper` of the configuration, `env:NAME` or `file:PATH`. Without it: none.
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) pepper: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
