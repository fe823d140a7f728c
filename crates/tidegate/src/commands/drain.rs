//! `tidegate drain`: takes a provider or an endpoint out of service by hand.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::json;

use crate::admin_client::{AdminClient, ControlPlane, Reason, encode};
use crate::output::Output;

/// `tidegate drain`.
#[derive(Debug, Args)]
#[command(after_help = "\
No new requests go there; running ones end. It reaches every edge at once and outlives restarts, until it is lifted or its time is over.

Examples:
  tidegate drain provider groq --reason 'their status page'
  tidegate drain provider groq --region eu --minutes 30
  tidegate drain endpoint acme/one@groq
  tidegate drain provider groq --lift")]
pub(crate) struct DrainArgs {
    /// What.
    #[arg(value_enum)]
    kind: DrainKind,
    /// Slug of the provider or name of the endpoint.
    name: String,
    /// Only in this region.
    #[arg(long)]
    region: Option<String>,
    /// For so long.
    #[arg(long, conflicts_with = "lift")]
    minutes: Option<u64>,
    /// Let it serve again.
    #[arg(long)]
    lift: bool,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    plane: ControlPlane,
}

/// What can be drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DrainKind {
    /// A vendor with all its endpoints.
    Provider,
    /// One endpoint.
    Endpoint,
}

impl DrainKind {
    fn as_str(self) -> &'static str {
        match self {
            DrainKind::Provider => "provider",
            DrainKind::Endpoint => "endpoint",
        }
    }
}

pub(super) fn run(args: &DrainArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let client = AdminClient::new(&args.plane)?;
    let (kind, region) = (args.kind.as_str(), args.region.clone().unwrap_or_default());
    let reason = args.reason.or(format!("tidegate drain {kind} {}{}", args.name, if args.lift { " --lift" } else { "" }));
    let at = args.region.as_ref().map(|region| format!("@{region}")).unwrap_or_default();
    let answer = if args.lift {
        let name = format!("{kind}/{}{at}", args.name);
        client.send_json(Method::DELETE, &format!("/overrides?name={}&reason={}", encode(&name), encode(&reason)), &json!({}))?
    } else {
        let seconds = args.minutes.map(|minutes| minutes.saturating_mul(60));
        let body = json!({
            "kind": kind, "target": args.name, "action": "drain", "region": region, "expires_in_seconds": seconds, "reason": reason,
        });
        client.send_json(Method::PUT, "/overrides", &body)?
    };
    if args.plane.json {
        output.line(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let place = args.region.as_ref().map_or_else(|| "everywhere".to_owned(), |region| format!("in {region}"));
    let what = if args.lift { "serves again" } else { "gets no new requests" };
    output.line(format_args!("{kind} {} {what} {place} (revision {})", args.name, answer["revision"]));
    Ok(ExitCode::SUCCESS)
}
