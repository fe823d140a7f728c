//! `tidegate certs` and `tidegate kek` as processes: what they write is what members of a mesh load.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use secrecy::{ExposeSecret, SecretString};
use tidegate_runtime::mesh::{
    Accept, Admit, Dial, Expect, Identity, IdentityFiles, MeshMetrics, MtlsDialer, MtlsListener, MtlsOptions, Role,
};
use tidegate_runtime::sealing::{Keyring, Place, PublicKeyring};
use tidegate_runtime::{Clock, Tasks};

fn tidegate(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).current_dir(dir).output().unwrap()
}

/// Runs what must succeed; gives standard output.
fn good(dir: &Path, args: &[&str]) -> String {
    let output = tidegate(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs what must fail; gives standard error.
fn bad(dir: &Path, args: &[&str]) -> String {
    let output = tidegate(dir, args);
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn identity(dir: &Path) -> Arc<Identity> {
    Identity::load(IdentityFiles::in_dir(dir), Identity::DEFAULT_OVERLAP, Clock::start().unix_seconds()).unwrap()
}

#[tokio::test]
async fn one_command_makes_members_that_talk() {
    let folder = tempfile::tempdir().unwrap();
    let said = good(folder.path(), &["certs", "dev", "--out", "certs"]);
    let certs = folder.path().join("certs");
    for (member, name) in [
        ("control-1", "spiffe://tidegate.local/region/eu/control/control-1"),
        ("control-2", "spiffe://tidegate.local/region/us/control/control-2"),
        ("control-3", "spiffe://tidegate.local/region/eu/control/control-3"),
        ("edge-eu-1", "spiffe://tidegate.local/region/eu/edge/edge-eu-1"),
        ("edge-us-1", "spiffe://tidegate.local/region/us/edge/edge-us-1"),
        ("admin", "spiffe://tidegate.local/region/eu/admin/admin"),
    ] {
        assert!(said.contains(name), "{said}");
        assert_eq!(identity(&certs.join(member)).name().to_string(), name);
        assert_eq!(mode(certs.join(member).join("tls.key")), 0o600);
    }
    assert_eq!(mode(certs.join("ca.key")), 0o600);

    let tasks = Tasks::new();
    let metrics = MeshMetrics::register(&Registry::new()).unwrap();
    let options = MtlsOptions { timeout: Duration::from_secs(30), ..MtlsOptions::default() };
    let socket = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let control = identity(&certs.join("control-1"));
    let listener = MtlsListener::start(socket, control, Admit::roles([Role::Edge]), metrics.clone(), options, &tasks).unwrap();
    let address = listener.local_addr().to_string();
    let dialer = MtlsDialer::new(identity(&certs.join("edge-eu-1")), metrics.clone(), options);
    let (dialled, accepted) = tokio::join!(dialer.dial(&address, Expect::in_region(Role::Control, "eu")), listener.accept());
    dialled.unwrap();
    assert_eq!(accepted.unwrap().1.name.unwrap().name(), "edge-eu-1");

    // Another laptop's mesh, of the same names, is a stranger.
    good(folder.path(), &["certs", "dev", "--out", "other"]);
    let stranger = MtlsDialer::new(identity(&folder.path().join("other/edge-eu-1")), metrics, options);
    let error = stranger.dial(&address, Expect::role(Role::Control)).await.err().unwrap().to_string();
    assert!(error.contains("is of no authority that we trust"), "{error}");
    tasks.close(Duration::from_secs(30)).await.unwrap();
}

#[test]
fn running_it_again_keeps_the_authority_and_renews_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let read = |path: &str| fs::read(folder.path().join(path)).unwrap();
    good(folder.path(), &["certs", "dev", "--out", "certs", "--regions", "eu", "--control", "1"]);
    let (authority, leaf) = (read("certs/ca.crt"), read("certs/control-1/tls.crt"));
    let identity = identity(&folder.path().join("certs/control-1"));
    good(folder.path(), &["certs", "dev", "--out", "certs", "--regions", "eu", "--control", "1"]);
    assert_eq!(read("certs/ca.crt"), authority);
    assert_ne!(read("certs/control-1/tls.crt"), leaf);
    let report = identity.reload_now(Clock::start().unix_seconds());
    assert!(report.errors.is_empty() && report.replaced.len() == 1, "{report:?}");

    let error = bad(folder.path(), &["certs", "dev", "--out", "certs", "--trust", "mesh.example.org"]);
    assert!(error.contains("is of tidegate.local, not of mesh.example.org"), "{error}");
    let error = bad(folder.path(), &["certs", "dev", "--out", "certs", "--regions", "eu,eu"]);
    assert!(error.contains("region eu is given twice"), "{error}");
}

#[test]
fn an_authority_is_never_overwritten_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let error = bad(folder.path(), &["certs", "issue", "--out", "certs", "--role", "edge", "--region", "eu", "--name", "e"]);
    assert!(error.contains("no authority in certs") && error.contains("tidegate certs ca --out certs"), "{error}");
    good(folder.path(), &["certs", "ca", "--out", "certs", "--trust", "mesh.example.org"]);
    let before = fs::read(folder.path().join("certs/ca.crt")).unwrap();
    let error = bad(folder.path(), &["certs", "ca", "--out", "certs"]);
    assert!(error.contains("certs/ca.crt exists already") && error.contains("--replace"), "{error}");
    // The key alone is reason enough: a certificate that was lost can be had from any member.
    fs::remove_file(folder.path().join("certs/ca.crt")).unwrap();
    assert!(bad(folder.path(), &["certs", "ca", "--out", "certs"]).contains("certs/ca.key exists already"));
    fs::write(folder.path().join("certs/ca.crt"), &before).unwrap();
    good(folder.path(), &["certs", "issue", "--out", "certs", "--role", "edge", "--region", "eu", "--name", "e"]);
    good(folder.path(), &["certs", "ca", "--out", "certs", "--replace"]);
    assert_ne!(fs::read(folder.path().join("certs/ca.crt")).unwrap(), before);
}

#[test]
fn a_leaf_is_issued_with_its_names_and_shown_with_them() {
    let folder = tempfile::tempdir().unwrap();
    good(folder.path(), &["certs", "ca", "--out", "certs", "--trust", "mesh.example.org"]);
    let issue = ["certs", "issue", "--out", "certs", "--role", "edge", "--region", "us", "--name", "e1", "--days", "7"];
    let names = ["--dns", "edge.example.org", "--ip", "10.0.0.7", "--ip", "::1"];
    good(folder.path(), &[&issue[..], &names].concat());
    let shown = good(folder.path(), &["certs", "show", "certs/e1/tls.crt"]);
    for line in [
        "subject    CN=e1",
        "issuer     CN=Tidegate authority of mesh.example.org",
        "kind       leaf",
        "uri        spiffe://mesh.example.org/region/us/edge/e1",
        "dns        edge.example.org",
        "ip         10.0.0.7",
        "ip         ::1",
        "state      valid, 7 days left",
        "member     edge e1 in region us of mesh.example.org",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no `{line}` in\n{shown}");
    }
    assert!(good(folder.path(), &["certs", "show", "certs/ca.crt"]).contains("kind       authority"));
    for (args, words) in [
        (vec!["certs", "show", "certs/nothing.crt"], "certs/nothing.crt"),
        (vec!["certs", "show", "certs/e1/tls.key"], "holds no PEM certificate"),
        ([&issue[..7], &["e u", "--name", "x"]].concat(), "region `e u` must have"),
        ([&issue[..], &["--dns", "a b"]].concat(), "`a b` is not a DNS name"),
        ([&issue[..7], &["eu", "--name", "../x"]].concat(), "name `../x` must have"),
    ] {
        let error = bad(folder.path(), &args);
        assert!(error.contains(words), "{args:?}: {error}");
    }
}

#[test]
fn keys_for_credentials_are_made_and_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kek");
    let place = Place { cluster: "c", credential: "openai/main", version: 1 };
    good(folder.path(), &["kek", "new", "--out", "kek", "--id", "2026-07"]);
    assert_eq!(mode(&path), 0o600);
    fs::write(folder.path().join("kek.pub"), good(folder.path(), &["kek", "public", "kek"])).unwrap();
    let sealing = PublicKeyring::read(&folder.path().join("kek.pub")).unwrap();
    let sealed = sealing.current().unwrap().seal(place, &SecretString::from("sk-1")).unwrap();

    let error = bad(folder.path(), &["kek", "new", "--out", "kek", "--id", "2027-01"]);
    assert!(error.contains("kek exists already") && error.contains("--rotate"), "{error}");
    let error = bad(folder.path(), &["kek", "new", "--out", "kek", "--id", "2026-07", "--rotate"]);
    assert!(error.contains("has a key `2026-07` already"), "{error}");
    good(folder.path(), &["kek", "new", "--out", "kek", "--id", "2027-01", "--rotate"]);
    assert_eq!(mode(&path), 0o600);
    let keyring = Keyring::read(&path).unwrap();
    assert_eq!(keyring.current().unwrap().id(), "2027-01");
    assert_eq!(keyring.open(place, &sealed).unwrap().expose_secret(), "sk-1");

    let error = bad(folder.path(), &["kek", "public", "kek.pub"]);
    assert!(error.contains("a public key, which opens nothing"), "{error}");
    let error = bad(folder.path(), &["kek", "new", "--out", "x", "--id", "Upper"]);
    assert!(error.contains("a key id has 1 to 64 characters"), "{error}");
}
