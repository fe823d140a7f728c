//! `tidegate kek …`: the keys that seal providers' credentials.

mod rewrap;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueHint};
use secrecy::ExposeSecret;
use tidegate_runtime::sealing::{Kek, Keyring};

use crate::output::Output;

/// `tidegate kek …`.
#[derive(Debug, Subcommand)]
pub(crate) enum KekCommand {
    /// Make a key and write it to a key file.
    New(KekNewArgs),
    /// Print the public halves of a key file, for control nodes.
    Public(KekPublicArgs),
    /// Wrap the data keys of agreed credentials with the current key of a key file.
    Rewrap(rewrap::KekRewrapArgs),
}

/// `tidegate kek new`.
#[derive(Debug, Args)]
#[command(after_help = "\
Edges get the key file; control nodes and operators get what `tidegate kek public` prints, which seals and opens nothing. With
`--rotate` the new key goes in front of those that are there: new credentials use it, old ones still open until they are rewrapped.

Examples:
  tidegate kek new --out kek --id 2027-01
  tidegate kek public kek > kek.pub
  tidegate kek new --out kek --id 2027-07 --rotate")]
pub(crate) struct KekNewArgs {
    /// The key file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: PathBuf,
    /// Name of the key: a-z, 0-9, `-`, `_` and `.`.
    #[arg(long, default_value = "kek-1")]
    id: String,
    /// Add the key to an existing file, as the current one.
    #[arg(long)]
    rotate: bool,
}

/// `tidegate kek public`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tidegate kek public kek > kek.pub")]
pub(crate) struct KekPublicArgs {
    /// The key file.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

pub(super) fn run(command: &KekCommand, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        KekCommand::New(args) => new(args, output),
        KekCommand::Public(args) => {
            output.text(Keyring::read(&args.file)?.public().to_text());
            Ok(ExitCode::SUCCESS)
        }
        KekCommand::Rewrap(args) => rewrap::run(args, output),
    }
}

fn new(args: &KekNewArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let kek = Kek::generate(&args.id)?;
    let line = kek.to_line();
    let path = &args.out;
    if args.rotate {
        let before = Keyring::read(path).with_context(|| format!("`--rotate` adds to a key file; {} is none", path.display()))?;
        if before.get(&args.id).is_some() {
            bail!("{} has a key `{}` already; choose another --id", path.display(), args.id);
        }
        let rest = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        // Beside it and then in its place: the old keys must survive a full disk.
        let fresh = path.with_extension(format!("new-{}", std::process::id()));
        write_new(&fresh, &format!("{}\n{rest}", line.expose_secret()))?;
        fs::rename(&fresh, path).with_context(|| format!("put the new file in the place of {}", path.display()))?;
    } else {
        write_new(path, &format!("{HEAD}{}\n", line.expose_secret()))?;
    }
    output.line(kek.public().to_line());
    output.note(format_args!("{} now seals with `{}`. For edges only; control nodes get `tidegate kek public`.", path.display(), args.id));
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that did not exist and that only its owner can read.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow::anyhow!(
            "{} exists already, and losing a key loses what it sealed; add a key with --rotate or choose another file",
            path.display()
        ),
        _ => anyhow::Error::new(error).context(format!("write {}", path.display())),
    })
}

const HEAD: &str = "# Keys that open providers' credentials. The first one is current. For edges only.\n";
