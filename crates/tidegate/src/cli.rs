//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::commands::certs::CertsCommand;
use crate::commands::control::ControlArgs;
use crate::commands::declare::{ApplyArgs, DiffArgs, EdgesArgs, HistoryArgs, RollbackArgs};
use crate::commands::dev::DevArgs;
use crate::commands::drain::DrainArgs;
use crate::commands::health::HealthArgs;
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
    /// Show how every provider works, seen from every region.
    Health(HealthArgs),
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
    /// What was used and charged.
    Usage(UsageArgs),
    /// Callers' limits.
    #[command(subcommand)]
    Quota(QuotaCommand),
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

/// `tidegate usage`.
#[derive(Debug, Args)]
#[command(after_help = "\
Asks the operations ports of edges for the sums of their ledgers; with several `--url` they are added up. Days and hours are those of
UTC. Sums are exact.

Examples:
  tidegate usage                                        by model, the last 30 days
  tidegate usage --by key,model --since 2026-11-01 --csv > november.csv
  tidegate usage --by app --period hour --since 2026-11-28
  tidegate usage --url http://edge-1:9090 --url http://edge-2:9090 --by organisation --period all --json")]
pub(crate) struct UsageArgs {
    /// What to show use by, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "model")]
    pub(crate) by: Vec<UsageFacet>,
    /// Length of a row's period.
    #[arg(long, value_enum, default_value = "day")]
    pub(crate) period: UsagePeriod,
    /// First day, such as 2026-11-01. Without it: 30 days ago; with `--period hour` yesterday.
    #[arg(long, value_name = "DAY")]
    pub(crate) since: Option<String>,
    /// Last day. Without it: today.
    #[arg(long, value_name = "DAY")]
    pub(crate) until: Option<String>,
    /// Only this key.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Only this organisation.
    #[arg(long)]
    pub(crate) organisation: Option<String>,
    /// Only this workspace.
    #[arg(long)]
    pub(crate) workspace: Option<String>,
    /// Print one JSON array.
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,
    /// Print comma-separated values with a head line.
    #[arg(long)]
    pub(crate) csv: bool,
    /// Only what the asked edges themselves have served, also where their region has a ledger.
    #[arg(long)]
    pub(crate) edge: bool,
    /// Operations port of an edge; may be given several times: one for each region with a ledger in Redis, or every edge where there is none.
    #[arg(long, default_value = "http://127.0.0.1:9090", value_hint = ValueHint::Url)]
    pub(crate) url: Vec<String>,
}

/// Something that use can be shown by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UsageFacet {
    /// Model that served.
    Model,
    /// Provider that served.
    Provider,
    /// Endpoint that served.
    Endpoint,
    /// Name of the key.
    Key,
    /// Organisation of the key.
    Organisation,
    /// Workspace of the key.
    Workspace,
    /// Application, by its attribution headers.
    App,
    /// Region of the edge.
    Region,
}

/// Length of a row's period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UsagePeriod {
    /// One hour of UTC.
    Hour,
    /// One day of UTC.
    Day,
    /// Everything in one row.
    All,
}

/// `tidegate quota …`.
#[derive(Debug, Subcommand)]
pub(crate) enum QuotaCommand {
    /// Say how each limit of a key counts, and how wrong it can become.
    Explain(QuotaExplainArgs),
}

/// `tidegate quota explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Computed from the configuration alone; nothing is asked. `--edges` and `--regions` say where the key is served.

Examples:
  tidegate quota explain team-search --config tidegate.yaml
  tidegate quota explain team-search --config tidegate.yaml --edges 8 --most-edges 20 --regions 3 --json")]
pub(crate) struct QuotaExplainArgs {
    /// Name of the key in the configuration, or its id where the control plane keeps it.
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// The configuration that has the key. Without it only what `--operations` shows.
    #[arg(long, short, value_name = "FILE", env = "TIDEGATE_CONFIG", value_hint = ValueHint::FilePath, required_unless_present = "operations")]
    pub(crate) config: Option<PathBuf>,
    /// Edges of a region that know of each other.
    #[arg(long, default_value_t = 1)]
    pub(crate) edges: u32,
    /// Edges of a region that may run at most, as an autoscaler may start them. Without it: `--edges`.
    #[arg(long)]
    pub(crate) most_edges: Option<u32>,
    /// Regions that serve the key. Without it: those of `defaults.quota_regions`, at least 1.
    #[arg(long)]
    pub(crate) regions: Option<u32>,
    /// Operations port of an edge, such as `http://127.0.0.1:9090`: shows its region's shares of the key's limits as they are now.
    #[arg(long, value_name = "URL")]
    pub(crate) operations: Option<String>,
    /// Print one JSON array.
    #[arg(long)]
    pub(crate) json: bool,
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
