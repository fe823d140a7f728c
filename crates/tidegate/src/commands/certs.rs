//! `tidegate certs …`: an authority and certificates for a mesh that has no cert-manager or SPIRE.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use tidegate_runtime::Clock;
use tidegate_runtime::dev_ca::{Issued, LeafOptions, MeshCa, MeshCaError};
use tidegate_runtime::mesh::{MeshName, Role};
use tidegate_runtime::tls::{CertificateDescription, describe};

use crate::output::Output;

/// `tidegate certs …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// One command for a laptop: an authority, three control nodes, an edge in each region and an operator.
    Dev(DevCertsArgs),
    /// Make an authority.
    Ca(CaArgs),
    /// Issue, or renew, the certificate of one member.
    Issue(IssueArgs),
    /// Say what is in a certificate file.
    Show(ShowArgs),
}

/// `tidegate certs dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every member gets a folder with tls.crt, tls.key and ca.crt. Running it again keeps the authority and renews the certificates; running
processes take them over by themselves.

Examples:
  tidegate certs dev --out certs
  tidegate certs dev --out certs --regions eu,us,ap --control 5 --edges 2")]
pub(crate) struct DevCertsArgs {
    /// Folder of the authority and the members' folders.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Trust domain of a new authority: the name of the mesh.
    #[arg(long, value_name = "DOMAIN", default_value = DEFAULT_TRUST)]
    trust: String,
    /// Regions, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "A,B", default_value = "eu,us")]
    regions: Vec<String>,
    /// Control nodes in all, spread over the regions.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=MANY))]
    control: u16,
    /// Edges in each region.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=MANY))]
    edges: u16,
    #[command(flatten)]
    leaf: LeafArgs,
}

/// `tidegate certs ca`.
#[derive(Debug, Args)]
#[command(after_help = "\
The key is written for its owner alone. Keep the folder off the machines that run Tidegate: they need only what `issue` writes.

Example:
  tidegate certs ca --out certs --trust mesh.example.org")]
pub(crate) struct CaArgs {
    /// Folder for ca.crt and ca.key.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Trust domain: the name of the mesh.
    #[arg(long, value_name = "DOMAIN", default_value = DEFAULT_TRUST)]
    trust: String,
    /// Throw away the authority that is there; nothing it issued is believed afterwards.
    #[arg(long)]
    replace: bool,
}

/// `tidegate certs issue`.
#[derive(Debug, Args)]
#[command(after_help = "\
Writes tls.crt, tls.key and ca.crt into DIR/NAME. Issuing the same name again renews it; a running process takes the new files over
within half a minute.

Examples:
  tidegate certs issue --out certs --role control --region eu --name control-1
  tidegate certs issue --out certs --role edge --region us --name edge-us-1 --dns edge.example.org --ip 10.0.0.7
  tidegate certs issue --out certs --role admin --region eu --name alice --days 7")]
pub(crate) struct IssueArgs {
    /// Folder of the authority.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// What the member is there for.
    #[arg(long, value_enum)]
    role: RoleName,
    /// The region it runs in.
    #[arg(long)]
    region: String,
    /// Its name, unique among its role and region; also the name of its folder.
    #[arg(long)]
    name: String,
    /// Host names, for callers that compare them (curl, browsers); members of the mesh do not.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// Addresses, likewise.
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    #[command(flatten)]
    leaf: LeafArgs,
}

/// What all leaves have.
#[derive(Debug, Args)]
struct LeafArgs {
    /// Days that the certificates are valid.
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=825))]
    days: u16,
}

/// `tidegate certs show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 all certificates are valid now, 1 one is not.

Example:
  tidegate certs show certs/control-1/tls.crt")]
pub(crate) struct ShowArgs {
    /// A PEM file.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

/// [`Role`] as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// A control node.
    Control,
    /// An edge.
    Edge,
    /// An operator, or an operator's tool.
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Control => Role::Control,
            RoleName::Edge => Role::Edge,
            RoleName::Admin => Role::Admin,
        }
    }
}

pub(super) fn run(command: &CertsCommand, output: &mut Output) -> anyhow::Result<ExitCode> {
    let now = Clock::start().unix_seconds();
    match command {
        CertsCommand::Dev(args) => dev(args, now, output),
        CertsCommand::Ca(args) => ca(args, now, output),
        CertsCommand::Issue(args) => issue(args, now, output),
        CertsCommand::Show(args) => show(args, now, output),
    }
}

fn dev(args: &DevCertsArgs, now: u64, output: &mut Output) -> anyhow::Result<ExitCode> {
    // All names first, so that a wrong one leaves nothing half done.
    let members = dev_members(args)?;
    let authority = match MeshCa::open(&args.out) {
        Ok(authority) if authority.trust() == args.trust => authority,
        Ok(other) => bail!(
            "the authority in {} is of {}, not of {}; give `--trust {}` or choose another folder",
            args.out.display(),
            other.trust(),
            args.trust,
            other.trust()
        ),
        Err(MeshCaError::Missing { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            MeshCa::create(&args.out, &args.trust, false, now)?
        }
        Err(error) => return Err(error.into()),
    };
    let options = LeafOptions {
        dns: vec!["localhost".to_owned()],
        ips: vec![IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()],
        life: args.leaf.life(),
    };
    for member in members {
        let issued = authority.issue(&args.out.join(member.name()), &member, &options, now)?;
        say(&member, &issued, output);
    }
    Ok(ExitCode::SUCCESS)
}

/// Control nodes round the regions, edges in each, one operator.
fn dev_members(args: &DevCertsArgs) -> anyhow::Result<Vec<MeshName>> {
    let mut regions: Vec<&str> = Vec::new();
    for region in args.regions.iter().map(|region| region.trim()) {
        if regions.contains(&region) {
            bail!("region {region} is given twice");
        }
        regions.push(region);
    }
    let name = |region: &str, role, name: String| MeshName::new(&args.trust, region, role, &name);
    let mut members = Vec::new();
    for (number, region) in (1..=args.control).zip(regions.iter().cycle()) {
        members.push(name(region, Role::Control, format!("control-{number}"))?);
    }
    for region in &regions {
        for number in 1..=args.edges {
            members.push(name(region, Role::Edge, format!("edge-{region}-{number}"))?);
        }
    }
    if let Some(region) = regions.first() {
        members.push(name(region, Role::Admin, "admin".to_owned())?);
    }
    Ok(members)
}

fn ca(args: &CaArgs, now: u64, output: &mut Output) -> anyhow::Result<ExitCode> {
    let authority = MeshCa::create(&args.out, &args.trust, args.replace, now)?;
    output.line(format_args!("{}  authority of {}", args.out.join("ca.crt").display(), authority.trust()));
    output.note(format_args!("Next: tidegate certs issue --out {} --role control --region eu --name control-1", args.out.display()));
    Ok(ExitCode::SUCCESS)
}

fn issue(args: &IssueArgs, now: u64, output: &mut Output) -> anyhow::Result<ExitCode> {
    let authority = MeshCa::open(&args.out)?;
    let member = MeshName::new(authority.trust(), &args.region, args.role.into(), &args.name)?;
    let options = LeafOptions { dns: args.dns.clone(), ips: args.ip.clone(), life: args.leaf.life() };
    let issued = authority.issue(&args.out.join(member.name()), &member, &options, now)?;
    say(&member, &issued, output);
    Ok(ExitCode::SUCCESS)
}

fn say(member: &MeshName, issued: &Issued, output: &mut Output) {
    let dir = issued.files.pair.cert.parent().unwrap_or(Path::new("."));
    output.line(format_args!("{}  {member}", dir.display()));
    match &issued.replaced {
        Some(before) if *before != member.to_string() => {
            output.note(format_args!("{} was the certificate of {before}; a process that uses it has to be restarted", dir.display()));
        }
        _ => {}
    }
}

fn show(args: &ShowArgs, now: u64, output: &mut Output) -> anyhow::Result<ExitCode> {
    let certificates = describe(&args.file)?;
    let now = i64::try_from(now).context("the clock of this machine")?;
    let mut all_good = true;
    for (number, certificate) in certificates.iter().enumerate() {
        if number > 0 {
            output.line("");
        }
        all_good &= show_one(certificate, now, output);
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints one certificate; whether it is valid now.
fn show_one(certificate: &CertificateDescription, now: i64, output: &mut Output) -> bool {
    let mut field = |name: &str, value: &str| output.line(format_args!("{name:<11}{value}"));
    field("subject", &certificate.subject);
    field("issuer", &certificate.issuer);
    field("kind", if certificate.authority { "authority" } else { "leaf" });
    for uri in &certificate.uris {
        field("uri", uri);
    }
    for dns in &certificate.dns {
        field("dns", dns);
    }
    for ip in &certificate.ips {
        field("ip", &ip.to_string());
    }
    field("from", &certificate.not_before_text);
    field("until", &certificate.not_after_text);
    let valid = certificate.not_before <= now && now < certificate.not_after;
    let state = if valid {
        format!("valid, {} left", left(certificate.not_after - now))
    } else if now < certificate.not_before {
        "not valid yet".to_owned()
    } else {
        "expired".to_owned()
    };
    field("state", &state);
    if !certificate.authority {
        let member = match certificate.uris.as_slice() {
            [uri] => match uri.parse::<MeshName>() {
                Ok(name) => format!("{} {} in region {} of {}", name.role(), name.name(), name.region(), name.trust()),
                Err(error) => format!("of no mesh: {error}"),
            },
            uris => format!("of no mesh: {} URI names, and it takes exactly one", uris.len()),
        };
        field("member", &member);
    }
    valid
}

/// A time in seconds, rounded to days, or to hours when there are not two days.
fn left(seconds: i64) -> String {
    if seconds < 2 * A_DAY { format!("{} hours", (seconds + 1_800) / 3_600) } else { format!("{} days", (seconds + A_DAY / 2) / A_DAY) }
}

impl LeafArgs {
    fn life(&self) -> Duration {
        Duration::from_secs(u64::from(self.days) * A_DAY.unsigned_abs())
    }
}

/// Of a laptop. `.local` is for private use (RFC 6762), so nobody's real mesh is called so.
const DEFAULT_TRUST: &str = "tidegate.local";
/// Seconds.
const A_DAY: i64 = 24 * 3_600;
/// More on one laptop is a slip of the finger.
const MANY: i64 = 200;
