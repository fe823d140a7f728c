//! `tidegate kek rewrap`: credentials that were sealed for an older key of the edges open with the current one.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_runtime::sealing::{Keyring, Place, Sealed};

use crate::admin_client::{AdminClient, ControlPlane, Reason};
use crate::output::Output;

/// `tidegate kek rewrap`.
#[derive(Debug, Args)]
#[command(after_help = "\
Runs where the edges' key file is: control nodes cannot do it, as they hold no private key. Only data keys are wrapped anew; secrets are
neither opened nor sent. To change the key of a mesh:

  1. tidegate kek new --out kek --id 2027-07 --rotate     and give edges the file
  2. tidegate kek public kek > kek.pub                    and give control nodes that
  3. tidegate kek rewrap --kek kek --reason 'yearly'
  4. once every edge has that revision (`tidegate edges`), take the old line out of both files

Examples:
  tidegate kek rewrap --kek kek --dry-run
  tidegate kek rewrap --kek kek --reason 'a laptop was lost'")]
pub(crate) struct KekRewrapArgs {
    /// The edges' key file: the current key first, and the older ones.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    kek: PathBuf,
    /// Show what would be wrapped anew.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    plane: ControlPlane,
}

/// One data key, as the control plane has it.
#[derive(Debug, Deserialize)]
struct Wrapped {
    provider: String,
    credential: String,
    version: u32,
    cluster: String,
    kek: String,
    wrapped_dek: String,
}

pub(super) fn run(args: &KekRewrapArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let keyring = Keyring::read(&args.kek)?;
    let current = keyring.current().context("the key file holds no key")?;
    let client = AdminClient::new(&args.plane)?;
    let answer = client.get("/credentials/sealed")?;
    let all: Vec<Wrapped> = serde_json::from_value(answer["credentials"].clone()).context("read the control node's answer")?;
    let (done, old): (Vec<_>, Vec<_>) = all.into_iter().partition(|wrapped| wrapped.kek == current.id());
    let rewrapped = old.iter().map(|wrapped| rewrap(&keyring, wrapped)).collect::<anyhow::Result<Vec<Value>>>()?;
    let mut revision = answer["revision"].clone();
    if !args.dry_run {
        let reason = args.reason.or(format!("tidegate kek rewrap to {}", current.id()));
        for part in rewrapped.chunks(AT_ONCE) {
            let body = json!({ "credentials": part, "reason": reason });
            revision = client.send_json(Method::POST, "/credentials/rewrap", &body)?["revision"].clone();
        }
    }
    if args.plane.json {
        output.line(
            json!({ "rewrapped": old.len(), "already": done.len(), "kek": current.id(), "revision": revision, "dry_run": args.dry_run }),
        );
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if args.dry_run { "would be" } else { "are" };
    output.line(format_args!(
        "{} data keys {verb} wrapped with `{}` (revision {revision}); {} were already",
        old.len(),
        current.id(),
        done.len()
    ));
    Ok(ExitCode::SUCCESS)
}

fn rewrap(keyring: &Keyring, wrapped: &Wrapped) -> anyhow::Result<Value> {
    let name = format!("{}/{}", wrapped.provider, wrapped.credential);
    let Some(wrapped_dek) = unhex(&wrapped.wrapped_dek) else { bail!("the data key of `{name}` is not hex") };
    let place = Place { cluster: &wrapped.cluster, credential: &name, version: wrapped.version };
    // Only the data key is looked at.
    let sealed = Sealed { kek_id: wrapped.kek.clone(), wrapped_dek, nonce: Vec::new(), ciphertext: Vec::new() };
    let current = keyring.current().context("the key file holds no key")?;
    let anew = keyring.rewrap(place, &sealed, current.public()).with_context(|| format!("wrap the data key of `{name}` anew"))?;
    Ok(json!({
        "provider": wrapped.provider,
        "credential": wrapped.credential,
        "version": wrapped.version,
        "from": wrapped.kek,
        "kek": anew.kek_id,
        "wrapped_dek": hex(&anew.wrapped_dek),
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// As many as one command takes (`RewrapCredentials`).
const AT_ONCE: usize = 500;

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use tidegate_runtime::sealing::Kek;

    use super::*;

    #[test]
    fn what_was_sealed_for_the_old_key_opens_with_the_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kek");
        let (old, new) = (Kek::generate("old").unwrap(), Kek::generate("new").unwrap());
        let place = Place { cluster: "mesh-1", credential: "groq/main", version: 3 };
        let sealed = old.public().seal(place, &"sk-secret".into()).unwrap();
        std::fs::write(&path, format!("{}\n{}\n", new.to_line().expose_secret(), old.to_line().expose_secret())).unwrap();
        let wrapped = Wrapped {
            provider: "groq".to_owned(),
            credential: "main".to_owned(),
            version: 3,
            cluster: "mesh-1".to_owned(),
            kek: "old".to_owned(),
            wrapped_dek: hex(&sealed.wrapped_dek),
        };
        let anew = rewrap(&Keyring::read(&path).unwrap(), &wrapped).unwrap();
        assert_eq!((&anew["from"], &anew["kek"], &anew["version"]), (&json!("old"), &json!("new"), &json!(3)));
        let wrapped_dek = unhex(anew["wrapped_dek"].as_str().unwrap()).unwrap();
        let moved = Sealed { kek_id: "new".to_owned(), wrapped_dek, ..sealed };
        assert_eq!(Keyring::of(new).open(place, &moved).unwrap().expose_secret(), "sk-secret");
    }

    #[test]
    fn hex_is_read_as_it_is_written() {
        assert_eq!(unhex(&hex(&[0, 15, 160, 255])), Some(vec![0, 15, 160, 255]));
        assert_eq!((unhex("0"), unhex("zz")), (None, None));
    }
}
