use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus::{Registry, TextEncoder};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::clock::Clock;
use crate::mesh::{Accept, Admit, Dial, DialError, Expect, Identity, IdentityFiles, MeshMetrics, Role};
use crate::tasks::Tasks;
use crate::tls::{CertificateFiles, TlsError, register_certificate_metrics};

const LONG: Duration = Duration::from_secs(30);
const DAY: u64 = 24 * 3_600;
const EU_CONTROL: &str = "spiffe://mesh.test/region/eu/control/c1";
const EU_EDGE: &str = "spiffe://mesh.test/region/eu/edge/e1";
const US_EDGE: &str = "spiffe://mesh.test/region/us/edge/e2";

fn now() -> u64 {
    Clock::start().unix_seconds()
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes `tls.crt` and `tls.key` as cert-manager does: no extended key usages, only what is asked for.
    fn issue(&self, dir: &Path, uris: &[&str], not_after: u64) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(not_after);
        let key = KeyPair::generate().unwrap();
        fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
        fs::write(dir.join("tls.crt"), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
    }
}

/// The files of one member.
struct Member {
    dir: tempfile::TempDir,
}

impl Member {
    fn new(leaf_of: &Authority, uris: &[&str], trusts: &[&Authority]) -> Self {
        let member = Self { dir: tempfile::tempdir().unwrap() };
        leaf_of.issue(member.dir.path(), uris, now() + DAY);
        member.trust(trusts);
        member
    }

    fn trust(&self, authorities: &[&Authority]) {
        let bundle: String = authorities.iter().map(|authority| authority.pem.as_str()).collect();
        fs::write(self.dir.path().join("ca.crt"), bundle).unwrap();
    }

    fn load(&self) -> Arc<Identity> {
        self.load_at(now()).unwrap()
    }

    fn load_at(&self, unix_now: u64) -> Result<Arc<Identity>, TlsError> {
        Identity::load(IdentityFiles::in_dir(self.dir.path()), Identity::DEFAULT_OVERLAP, unix_now)
    }
}

/// One side's counters, and what is made with them.
struct Metrics {
    registry: Registry,
    metrics: MeshMetrics,
}

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let metrics = MeshMetrics::register(&registry).unwrap();
        Self { registry, metrics }
    }

    fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }

    /// Waits for one refusal of this class, and proves that there was no other.
    async fn wait_refused(&self, side: &str, reason: &str) {
        let line = format!("tidegate_mesh_refused_total{{reason=\"{reason}\",side=\"{side}\"}} 1");
        let waited = tokio::time::timeout(LONG, async {
            while !self.text().contains("tidegate_mesh_refused_total{") {
                tokio::task::yield_now().await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("no {line}"));
        let text = self.text();
        assert!(text.contains(&line), "{line} is not in\n{text}");
        assert_eq!(text.matches("tidegate_mesh_refused_total{").count(), 1, "{text}");
    }
}

/// One listener and one dialler, each with its own view of the world.
struct Pair {
    listener: Arc<MtlsListener>,
    accepting: Metrics,
    dialer: MtlsDialer,
    dialing: Metrics,
    tasks: Tasks,
}

impl Pair {
    async fn new(server: Arc<Identity>, admit: Admit, client: Arc<Identity>) -> Self {
        Self::with_options(server, admit, client, MtlsOptions { timeout: LONG, ..MtlsOptions::default() }).await
    }

    async fn with_options(server: Arc<Identity>, admit: Admit, client: Arc<Identity>, options: MtlsOptions) -> Self {
        let tasks = Tasks::new();
        let (accepting, dialing) = (Metrics::new(), Metrics::new());
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let listener = MtlsListener::start(socket, server, admit, accepting.metrics.clone(), options, &tasks).unwrap();
        let dialer = MtlsDialer::new(client, dialing.metrics.clone(), options);
        Self { listener: Arc::new(listener), accepting, dialer, dialing, tasks }
    }

    async fn dial(&self, expect: Expect) -> Result<crate::mesh::Io, DialError> {
        self.dialer.dial(&self.listener.local_addr().to_string(), expect).await
    }

    /// Dials in vain; gives the dialling side's words after both sides have counted it.
    async fn refused(&self, expect: Expect, accept_reason: &str, dial_reason: &str) -> DialError {
        let error = self.dial(expect).await.err().expect("must be refused");
        self.accepting.wait_refused("accept", accept_reason).await;
        self.dialing.wait_refused("dial", dial_reason).await;
        error
    }
}

fn control() -> Expect {
    Expect::in_region(Role::Control, "eu")
}

fn edges() -> Admit {
    Admit::in_region([Role::Edge], "eu")
}

#[tokio::test]
async fn two_members_of_one_mesh_talk_and_know_each_other() {
    let authority = Authority::new("one");
    let (server, client) = (Member::new(&authority, &[EU_CONTROL], &[&authority]), Member::new(&authority, &[EU_EDGE], &[&authority]));
    let pair = Pair::new(server.load(), edges(), client.load()).await;
    let (dialled, accepted) = tokio::join!(pair.dial(control()), pair.listener.accept());
    let (mut ours, (mut theirs, peer)) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!(peer.name.unwrap().to_string(), EU_EDGE);
    ours.write_all(b"ping").await.unwrap();
    ours.flush().await.unwrap();
    let mut said = [0; 4];
    theirs.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"ping");
    assert!(pair.accepting.text().contains("tidegate_mesh_connections_total{side=\"accept\"} 1"));
    assert!(pair.dialing.text().contains("tidegate_mesh_connections_total{side=\"dial\"} 1"));
    pair.tasks.close(LONG).await.unwrap();
    assert_eq!(pair.listener.accept().await.err().unwrap().kind(), std::io::ErrorKind::NotConnected);
}

#[tokio::test]
async fn what_a_caller_may_not_do_is_said_on_both_sides() {
    let authority = Authority::new("one");
    let server = Member::new(&authority, &[EU_CONTROL], &[&authority]).load();
    let table = [
        ("spiffe://other.test/region/eu/edge/e1", "trust_domain", "is of trust domain other.test, another mesh; ours is mesh.test"),
        ("spiffe://mesh.test/region/eu/admin/a", "role", "has role admin; this listener admits edge"),
        (US_EDGE, "region", "is in region us; this listener admits eu only"),
    ];
    for (name, class, words) in table {
        let client = Member::new(&authority, &[name], &[&authority]);
        let pair = Pair::new(Arc::clone(&server), edges(), client.load()).await;
        // The dialling side finds another trust domain by itself too, and says so first.
        let (dial_class, theirs) = if class == "trust_domain" { ("trust_domain", "it refused us too: ") } else { ("peer", "refused us: ") };
        let error = pair.refused(control(), class, dial_class).await.to_string();
        assert!(error.contains(words) && error.contains(theirs) && error.contains(name), "{error}");
        pair.tasks.close(LONG).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_server_is_not_is_said_on_both_sides() {
    let authority = Authority::new("one");
    let client = Member::new(&authority, &[EU_EDGE], &[&authority]).load();
    let table = [
        ("spiffe://mesh.test/region/eu/edge/e9", "role", "has role edge; the caller wants control"),
        ("spiffe://mesh.test/region/us/control/c9", "region", "is in region us; the caller wants eu only"),
    ];
    for (name, class, words) in table {
        let server = Member::new(&authority, &[name], &[&authority]);
        let pair = Pair::new(server.load(), edges(), Arc::clone(&client)).await;
        let error = pair.refused(control(), "peer", class).await;
        let text = error.to_string();
        assert!(matches!(&error, DialError::Unexpected { found, expected, .. } if found == name && *expected == control()), "{text}");
        assert!(text.contains(words) && text.contains("expected role control in region eu"), "{text}");
        pair.tasks.close(LONG).await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_must_have_exactly_one_name() {
    let authority = Authority::new("one");
    for (uris, words) in [(&[EU_EDGE, US_EDGE][..], "has 2 URI names"), (&["https://example.org/"][..], "is not of the form spiffe://")] {
        let broken = Member::new(&authority, uris, &[&authority]);
        // Such an identity does not even load, so the connection is made with the pieces of a good one.
        let error = broken.load_at(now()).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("tls.crt"), "{error}");

        let server = Member::new(&authority, &[EU_CONTROL], &[&authority]);
        let pair = Pair::new(server.load(), edges(), server.load()).await;
        let files = IdentityFiles::in_dir(broken.dir.path()).pair;
        let stranger = crate::tls::ClientTlsOptions {
            extra_roots: vec![server.dir.path().join("ca.crt")],
            trusted: crate::tls::TrustedRoots::OnlyExtra,
            identity: Some(files),
            alpn: vec![ALPN_MESH.to_vec()],
        };
        let mut config = crate::tls::client_config(&stranger, &crate::tls::SystemRoots::none()).unwrap();
        Arc::get_mut(&mut config).unwrap().dangerous().set_certificate_verifier(PeerVerifier::new(server.load().state()));
        let stream = tokio::net::TcpStream::connect(pair.listener.local_addr()).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("tidegate.mesh").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
        let refused = crate::mesh::verdict::read(&mut stream).await.unwrap().unwrap_err();
        assert!(refused.contains(words), "{refused}");
        drop(stream);
        pair.accepting.wait_refused("accept", "name").await;
        pair.tasks.close(LONG).await.unwrap();
    }
}

#[tokio::test]
async fn another_authority_is_not_believed_by_either_side() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    // The server does not believe the client.
    let server = Member::new(&ours, &[EU_CONTROL], &[&ours]);
    let client = Member::new(&other, &[EU_EDGE], &[&ours, &other]);
    let pair = Pair::new(server.load(), edges(), client.load()).await;
    let error = pair.refused(control(), "authority", "peer").await;
    assert!(matches!(error, DialError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("it does not trust the authority of our certificate (spiffe://mesh.test/region/eu/edge/e1)"),
        "{error}"
    );
    pair.tasks.close(LONG).await.unwrap();

    // The client does not believe the server.
    let client = Member::new(&other, &[EU_EDGE], &[&other]);
    let pair = Pair::new(server.load(), edges(), client.load()).await;
    let error = pair.refused(control(), "peer", "authority").await;
    assert!(matches!(error, DialError::Tls { .. }), "{error}");
    assert!(
        error.to_string().contains("its certificate (spiffe://mesh.test/region/eu/control/c1) is of no authority that we trust"),
        "{error}"
    );
    pair.tasks.close(LONG).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_named() {
    let authority = Authority::new("one");
    let (server, client) = (Member::new(&authority, &[EU_CONTROL], &[&authority]), Member::new(&authority, &[EU_EDGE], &[&authority]));
    authority.issue(client.dir.path(), &[EU_EDGE], now() - DAY);
    assert!(matches!(client.load_at(now()), Err(TlsError::Expired { .. })));
    // It was good when this process started, and was never renewed.
    let pair = Pair::new(server.load(), edges(), client.load_at(now() - 2 * DAY).unwrap()).await;
    let error = pair.refused(control(), "validity", "peer").await.to_string();
    assert!(error.contains("it finds our certificate (spiffe://mesh.test/region/eu/edge/e1) expired"), "{error}");
    pair.tasks.close(LONG).await.unwrap();
}

/// Two leaves that end within seconds: what is open goes on for as long as it would, and nothing new is opened with them.
#[tokio::test]
async fn a_certificate_that_expires_ends_nothing_that_is_open() {
    let authority = Authority::new("one");
    let (server, client) = (Member::new(&authority, &[EU_CONTROL], &[&authority]), Member::new(&authority, &[EU_EDGE], &[&authority]));
    let ends = now() + 3;
    for (member, uri) in [(&server, EU_CONTROL), (&client, EU_EDGE)] {
        authority.issue(member.dir.path(), &[uri], ends);
    }
    let pair = Pair::new(server.load(), edges(), client.load()).await;
    let (near, far) = tokio::join!(pair.dial(control()), pair.listener.accept());
    let (mut near, (mut far, _)) = (near.unwrap(), far.unwrap());
    let (listener, tasks) = (Arc::clone(&pair.listener), pair.tasks.clone());
    tasks.spawn("accept", async move {
        while let Ok((io, _)) = listener.accept().await {
            drop(io);
        }
    });
    while pair.dial(control()).await.is_ok() {
        assert!(now() <= ends + 1, "still accepted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for number in 0..10_u8 {
        near.write_all(&[number]).await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), number);
        far.write_all(&[number]).await.unwrap();
        far.flush().await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), number);
    }
    pair.tasks.close(LONG).await.unwrap();
}

#[tokio::test]
async fn who_does_not_speak_tls_is_told_apart() {
    let authority = Authority::new("one");
    let member = Member::new(&authority, &[EU_CONTROL], &[&authority]);
    let pair = Pair::new(member.load(), edges(), member.load()).await;
    let mut plain = tokio::net::TcpStream::connect(pair.listener.local_addr()).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // The answer is an alert, which is not HTTP, and then the end.
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    drop(plain);
    pair.accepting.wait_refused("accept", "protocol").await;

    let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let (error, ()) = tokio::join!(pair.dialer.dial(&address, control()), async {
        let (mut stream, _) = socket.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
    });
    let error = error.err().unwrap().to_string();
    assert!(error.contains("the other side does not speak TLS") && error.contains(&address), "{error}");
    pair.tasks.close(LONG).await.unwrap();
}

/// `curl` and its like offer `http/1.1` and know nothing of verdicts.
#[tokio::test]
async fn an_ordinary_tool_is_judged_the_same_way() {
    let authority = Authority::new("one");
    let server = Member::new(&authority, &[EU_CONTROL], &[&authority]);
    for (name, may) in [(EU_EDGE, true), (US_EDGE, false)] {
        let tool = Member::new(&authority, &[name], &[&authority]);
        let pair = Pair::new(server.load(), edges(), tool.load()).await;
        let state = tool.load().state();
        let mut config = client_config(&state, PeerVerifier::new(Arc::clone(&state))).unwrap();
        Arc::get_mut(&mut config).unwrap().alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        let stream = tokio::net::TcpStream::connect(pair.listener.local_addr()).await.unwrap();
        let host = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(config).connect(host, stream).await.unwrap();
        if may {
            let (mut accepted, peer) = pair.listener.accept().await.unwrap();
            assert_eq!(peer.name.unwrap().to_string(), name);
            accepted.write_all(b"HTTP").await.unwrap();
            accepted.flush().await.unwrap();
            let mut first = [0; 4];
            stream.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"HTTP", "nothing is said before the answer");
        } else {
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said).await;
            assert!(said.is_empty());
            drop(stream);
            pair.accepting.wait_refused("accept", "region").await;
        }
        pair.tasks.close(LONG).await.unwrap();
    }
}

#[tokio::test]
async fn who_shows_no_certificate_is_refused() {
    let authority = Authority::new("one");
    let server = Member::new(&authority, &[EU_CONTROL], &[&authority]);
    let pair = Pair::new(server.load(), edges(), server.load()).await;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(PeerVerifier::new(server.load().state()))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_MESH.to_vec()];
    let stream = tokio::net::TcpStream::connect(pair.listener.local_addr()).await.unwrap();
    let host = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(host, stream).await.unwrap();
    assert!(crate::mesh::verdict::read(&mut stream).await.is_err());
    drop(stream);
    pair.accepting.wait_refused("accept", "authority").await;
    pair.tasks.close(LONG).await.unwrap();
}

#[tokio::test]
async fn grpc_knows_its_peer_and_why_it_was_refused() {
    use crate::mesh::grpc::tests::{call, serve};
    let authority = Authority::new("one");
    let (server, client) = (Member::new(&authority, &[EU_CONTROL], &[&authority]), Member::new(&authority, &[EU_EDGE], &[&authority]));
    let pair = Pair::new(server.load(), edges(), client.load()).await;
    serve(Arc::clone(&pair.listener) as _, &pair.tasks);
    let address = pair.listener.local_addr().to_string();
    let channel = crate::mesh::channel(Arc::new(pair.dialer.clone()), &*address, control(), Default::default());
    let answer = call(&channel, "hello").await.unwrap();
    assert!(answer.starts_with(EU_EDGE) && answer.ends_with("said hello"), "{answer}");

    let foreign = Member::new(&authority, &[US_EDGE], &[&authority]);
    let dialer = MtlsDialer::new(foreign.load(), Metrics::new().metrics, MtlsOptions { timeout: LONG, ..MtlsOptions::default() });
    let channel = crate::mesh::channel(Arc::new(dialer), &*address, control(), Default::default());
    let status = call(&channel, "hello").await.unwrap_err();
    let error = crate::mesh::dial_error(&status).unwrap().to_string();
    assert!(error.contains("this listener admits eu only"), "{error}");
    drop(channel);
    pair.tasks.close(LONG).await.unwrap();
}

#[tokio::test]
async fn a_silent_caller_delays_nobody() {
    let authority = Authority::new("one");
    let (server, client) = (Member::new(&authority, &[EU_CONTROL], &[&authority]), Member::new(&authority, &[EU_EDGE], &[&authority]));
    let pair = Pair::new(server.load(), edges(), client.load()).await;
    let silent = tokio::net::TcpStream::connect(pair.listener.local_addr()).await.unwrap();
    let (dialled, accepted) = tokio::join!(pair.dial(control()), pair.listener.accept());
    dialled.unwrap();
    accepted.unwrap();
    drop(silent);
    pair.tasks.close(LONG).await.unwrap();
}

#[tokio::test]
async fn a_connection_ends_at_its_age() {
    let authority = Authority::new("one");
    let (server, client) = (Member::new(&authority, &[EU_CONTROL], &[&authority]), Member::new(&authority, &[EU_EDGE], &[&authority]));
    let options = MtlsOptions { timeout: LONG, max_age: Duration::from_millis(20) };
    let pair = Pair::with_options(server.load(), edges(), client.load(), options).await;
    let (dialled, accepted) = tokio::join!(pair.dial(control()), pair.listener.accept());
    let (mut ours, _theirs) = (dialled.unwrap(), accepted.unwrap());
    let error = tokio::time::timeout(LONG, ours.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    pair.tasks.close(LONG).await.unwrap();
}

#[test]
fn a_renewal_is_checked_like_a_stranger() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let member = Member::new(&authority, &[EU_EDGE], &[&authority]);
    let identity = member.load();
    let before = identity.certificate();
    let refused = |words: &str| {
        let report = identity.reload_now(now());
        assert!(report.replaced.is_empty());
        assert!(report.errors[0].to_string().contains(words), "{:?}", report.errors);
        assert_eq!(identity.certificate(), before);
    };
    other.issue(member.dir.path(), &[EU_EDGE], now() + DAY);
    refused("would not be believed by the mesh");
    authority.issue(member.dir.path(), &[US_EDGE], now() + DAY);
    refused("a renewal keeps the name");
    authority.issue(member.dir.path(), &[EU_EDGE, US_EDGE], now() + DAY);
    refused("it must have exactly one");
    authority.issue(member.dir.path(), &[EU_EDGE], now() - 1);
    refused("expired at");
    fs::write(member.dir.path().join("tls.crt"), "garbage").unwrap();
    refused("holds no PEM certificate");
    authority.issue(member.dir.path(), &[EU_EDGE], now() + 2 * DAY);
    assert_eq!(identity.reload_now(now()).replaced.len(), 1);
    fs::write(member.dir.path().join("ca.crt"), "").unwrap();
    assert!(identity.reload_now(now()).errors[0].to_string().contains("ca.crt"));
    assert!(identity.certificate().not_after > before.not_after);

    let registry = Registry::new();
    register_certificate_metrics(&registry, vec![identity], Clock::start()).unwrap();
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(text.contains("tidegate_cert_expiry_seconds{certificate="), "{text}");
    assert!(text.contains("tidegate_cert_reloads_total{result=\"refused\"} 6"), "{text}");
    assert!(text.contains("tidegate_cert_reloads_total{result=\"replaced\"} 1"), "{text}");
}

#[test]
fn an_authority_that_left_the_files_counts_for_a_while() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let member = Member::new(&old, &[EU_EDGE], &[&old]);
    let identity = member.load();
    let peer_of_old = Member::new(&old, &[EU_CONTROL], &[&old]).load().state();
    let believes = || {
        let (leaf, rest) = peer_of_old.leaf.key.cert.split_first().unwrap();
        identity.state().trust.verify_server(leaf, rest, rustls_pki_types::UnixTime::now()).is_ok()
    };
    member.trust(&[&new]);
    let start = now();
    assert!(identity.reload_now(start).errors.is_empty());
    assert!(believes());
    let end = start + Identity::DEFAULT_OVERLAP.as_secs();
    identity.reload_now(end - 1);
    assert!(believes());
    identity.reload_now(end);
    assert!(!believes());
    // Back in the files, it counts as before.
    member.trust(&[&old, &new]);
    identity.reload_now(end + 1);
    assert!(believes());
}

/// Kubernetes mounts a secret as links through `..data`, which it swaps as a whole.
#[test]
fn a_secret_is_renewed_behind_its_symlinks() {
    let authority = Authority::new("one");
    let dir = tempfile::tempdir().unwrap();
    let version = |name: &str, not_after: u64| {
        let version = dir.path().join(name);
        fs::create_dir(&version).unwrap();
        authority.issue(&version, &[EU_EDGE], not_after);
        fs::write(version.join("ca.crt"), &authority.pem).unwrap();
        let fresh = dir.path().join("..data_tmp");
        std::os::unix::fs::symlink(name, &fresh).unwrap();
        fs::rename(&fresh, dir.path().join("..data")).unwrap();
    };
    version("..v1", now() + DAY);
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        std::os::unix::fs::symlink(PathBuf::from("..data").join(file), dir.path().join(file)).unwrap();
    }
    let identity = Identity::load(IdentityFiles::in_dir(dir.path()), Duration::ZERO, now()).unwrap();
    version("..v2", now() + 2 * DAY);
    assert_eq!(identity.reload_now(now()).replaced.len(), 1);
    assert!(identity.certificate().not_after > now() + DAY + 60);
}

/// Leaf and authority change under open connections and running traffic: first the authorities of everyone, then the leaves, then the
/// old authority goes. Nothing that is open breaks, and no dial fails in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaf_and_authority_rotate_under_traffic() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (server, client) = (Member::new(&old, &[EU_CONTROL], &[&old]), Member::new(&old, &[EU_EDGE], &[&old]));
    let (server_identity, client_identity) = (server.load(), client.load());
    let pair = Arc::new(Pair::new(Arc::clone(&server_identity), edges(), Arc::clone(&client_identity)).await);
    let tasks = Tasks::new();
    // Every accepted connection echoes until its caller leaves.
    let (listener, echoes) = (Arc::clone(&pair.listener), tasks.clone());
    tasks.spawn("accept", async move {
        while let Ok((mut io, _)) = listener.accept().await {
            echoes.spawn("echo", async move {
                let mut byte = [0];
                while io.read_exact(&mut byte).await.is_ok() {
                    if io.write_all(&byte).await.is_err() || io.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    async fn echo(io: &mut crate::mesh::Io) -> std::io::Result<()> {
        io.write_all(b"x").await?;
        io.flush().await?;
        let mut byte = [0];
        io.read_exact(&mut byte).await.map(|_| ())
    }
    let mut open = pair.dial(control()).await.unwrap();
    echo(&mut open).await.unwrap();

    let (stop, dials) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (dialing, stopping, counting) = (Arc::clone(&pair), Arc::clone(&stop), Arc::clone(&dials));
    let (failed_in, failed) = tokio::sync::oneshot::channel();
    tasks.spawn("traffic", async move {
        let mut first_failure = None;
        while !stopping.load(Ordering::Relaxed) {
            match dialing.dial(control()).await {
                Ok(mut io) => {
                    if let Err(error) = echo(&mut io).await {
                        first_failure.get_or_insert(error.to_string());
                    }
                }
                Err(error) => {
                    first_failure.get_or_insert(error.to_string());
                }
            }
            counting.fetch_add(1, Ordering::Relaxed);
        }
        let _ = failed_in.send(first_failure);
    });
    let some_dials = || async {
        let from = dials.load(Ordering::Relaxed);
        while dials.load(Ordering::Relaxed) < from + 3 {
            tokio::task::yield_now().await;
        }
    };
    let reload = |who: &str| {
        for identity in [&server_identity, &client_identity] {
            let report = identity.reload_now(now());
            assert!(report.errors.is_empty(), "{who}: {:?}", report.errors);
        }
    };
    some_dials().await;
    for member in [&server, &client] {
        member.trust(&[&old, &new]);
    }
    reload("both authorities");
    some_dials().await;
    new.issue(server.dir.path(), &[EU_CONTROL], now() + 2 * DAY);
    reload("new leaf of the server");
    some_dials().await;
    new.issue(client.dir.path(), &[EU_EDGE], now() + 2 * DAY);
    reload("new leaf of the client");
    some_dials().await;
    for member in [&server, &client] {
        member.trust(&[&new]);
    }
    reload("only the new authority");
    some_dials().await;
    echo(&mut open).await.unwrap();

    // A member that missed the rotation is refused once the overlap is over.
    let late = server_identity.reload_now(now() + 2 * Identity::DEFAULT_OVERLAP.as_secs());
    assert!(late.errors.is_empty());
    stop.store(true, Ordering::Relaxed);
    assert_eq!(failed.await.unwrap(), None);
    let straggler = Member::new(&old, &[EU_EDGE], &[&old, &new]);
    let dialer = MtlsDialer::new(straggler.load(), Metrics::new().metrics, MtlsOptions { timeout: LONG, ..MtlsOptions::default() });
    let error = dialer.dial(&pair.listener.local_addr().to_string(), control()).await.err().unwrap();
    assert!(error.to_string().contains("it does not trust the authority of our certificate"), "{error}");

    drop(open);
    pair.tasks.close(LONG).await.unwrap();
    tasks.close(LONG).await.unwrap();
}

/// The pair of a listener's files is what an ordinary HTTPS server takes too.
#[test]
fn the_files_are_those_of_a_secret() {
    let files = IdentityFiles::in_dir(Path::new("/etc/tidegate/identity"));
    let pair = CertificateFiles { cert: "/etc/tidegate/identity/tls.crt".into(), key: "/etc/tidegate/identity/tls.key".into() };
    assert_eq!(files, IdentityFiles { pair, authorities: vec!["/etc/tidegate/identity/ca.crt".into()] });
}
