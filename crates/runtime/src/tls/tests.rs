use std::fs;
use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::Tasks;
use crate::clock::Clock;

const NOW: u64 = 1_790_000_000;
const YEAR: u64 = 365 * 24 * 3_600;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: PathBuf,
}

impl Authority {
    fn new(dir: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = dir.join("ca.pem");
        fs::write(&pem, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes a pair that ends at `not_after`, Unix seconds.
    fn write(&self, files: &CertificateFiles, names: &[&str], not_after: u64) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(not_after);
        let key = KeyPair::generate().unwrap();
        fs::write(&files.cert, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
    }
}

struct Setup {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path());
        Self { dir, authority }
    }

    fn pair(&self, stem: &str, names: &[&str]) -> CertificateFiles {
        let files =
            CertificateFiles { cert: self.dir.path().join(format!("{stem}.pem")), key: self.dir.path().join(format!("{stem}.key")) };
        self.authority.write(&files, names, NOW + 10 * YEAR);
        files
    }

    fn client(&self, identity: Option<CertificateFiles>) -> Arc<ClientConfig> {
        let options = ClientTlsOptions {
            extra_roots: vec![self.authority.pem.clone()],
            trusted: TrustedRoots::OnlyExtra,
            identity,
            ..ClientTlsOptions::default()
        };
        client_config(&options, &SystemRoots::none()).unwrap()
    }
}

/// What the client sees of a connection.
struct Seen {
    leaf: Vec<u8>,
    alpn: Option<Vec<u8>>,
    version: Option<ProtocolVersion>,
    group: Option<NamedGroup>,
    kind: Option<HandshakeKind>,
}

async fn connect(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, name: &str) -> std::io::Result<Seen> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async {
        let (stream, _) = listener.accept().await?;
        let mut stream = TlsAcceptor::from(Arc::clone(server)).accept(stream).await?;
        stream.write_all(b"x").await?;
        stream.shutdown().await
    };
    let calling = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, stream).await?;
        // Reading to the end also takes in the session ticket, and any late complaint about our certificate.
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await?;
        let connection = stream.get_ref().1;
        Ok(Seen {
            leaf: connection.peer_certificates().unwrap()[0].to_vec(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            version: connection.protocol_version(),
            group: connection.negotiated_key_exchange_group().map(|group| group.name()),
            kind: connection.handshake_kind(),
        })
    };
    let (_, seen) = tokio::join!(serving, calling);
    seen
}

fn leaf_of(files: &CertificateFiles) -> Vec<u8> {
    material::read_certificates(&files.cert).unwrap()[0].to_vec()
}

#[tokio::test]
async fn the_certificate_follows_the_name() {
    let setup = Setup::new();
    let first = setup.pair("first", &["api.example.org"]);
    let wild = setup.pair("wild", &["*.tenant.example.org"]);
    let exact = setup.pair("exact", &["a.tenant.example.org"]);
    let store = CertificateStore::load(vec![first.clone(), wild.clone(), exact.clone()], NOW).unwrap();
    let server = server_config(&store, &ServerTlsOptions::default()).unwrap();
    let client = setup.client(None);
    for (name, files) in [("api.example.org", &first), ("B.Tenant.example.org", &wild), ("a.tenant.example.org", &exact)] {
        let seen = connect(&server, &client, name).await.unwrap();
        assert_eq!(seen.leaf, leaf_of(files), "{name}");
        assert_eq!(seen.alpn.as_deref(), Some(ALPN_H2));
        assert_eq!(seen.version, Some(ProtocolVersion::TLSv1_3));
        assert_eq!(seen.group, Some(NamedGroup::X25519MLKEM768));
    }
    // A wildcard stands for one label only: the default is shown, and the client refuses it.
    assert!(connect(&server, &client, "x.y.tenant.example.org").await.is_err());
}

#[tokio::test]
async fn sessions_are_resumed_in_both_versions() {
    let setup = Setup::new();
    let store = CertificateStore::load(vec![setup.pair("one", &["localhost"])], NOW).unwrap();
    let server = server_config(&store, &ServerTlsOptions::default()).unwrap();
    let tls13 = setup.client(None);
    let tls12 = {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(material::read_certificates(&setup.authority.pem).unwrap().remove(0)).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    };
    for client in [tls13, tls12] {
        let first = connect(&server, &client, "localhost").await.unwrap();
        let second = connect(&server, &client, "localhost").await.unwrap();
        assert_ne!(first.kind, Some(HandshakeKind::Resumed));
        assert_eq!(second.kind, Some(HandshakeKind::Resumed), "{:?}", second.version);
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_where_one_is_asked_for() {
    let setup = Setup::new();
    let store = CertificateStore::load(vec![setup.pair("one", &["localhost"])], NOW).unwrap();
    let options =
        ServerTlsOptions { client_ca: Some(setup.authority.pem.clone()), min_version: TlsVersion::Tls13, ..ServerTlsOptions::default() };
    let server = server_config(&store, &options).unwrap();
    assert!(connect(&server, &setup.client(None), "localhost").await.is_err());
    let identity = setup.pair("caller", &["caller.example.org"]);
    connect(&server, &setup.client(Some(identity)), "localhost").await.unwrap();
}

#[tokio::test]
async fn a_renewed_pair_is_shown_and_a_bad_one_is_not() {
    let setup = Setup::new();
    let files = setup.pair("one", &["localhost"]);
    let clock = Clock::start();
    let store = CertificateStore::load(vec![files.clone()], NOW).unwrap();
    let server = server_config(&store, &ServerTlsOptions::default()).unwrap();
    let reloader = Reloader::new(Arc::clone(&store), clock);
    assert!(reloader.reload_now().replaced.is_empty());

    let before = leaf_of(&files);
    let other = setup.pair("other", &["localhost"]);
    fs::copy(&other.cert, &files.cert).unwrap();
    assert!(matches!(reloader.reload_now().errors[..], [TlsError::Mismatch { .. }]));
    setup.authority.write(&files, &["localhost"], 1_000_000_000);
    assert!(matches!(reloader.reload_now().errors[..], [TlsError::Expired { not_after: 1_000_000_000, .. }]));
    fs::write(&files.cert, "no certificate").unwrap();
    assert!(matches!(reloader.reload_now().errors[..], [TlsError::Content { .. }]));
    let client = setup.client(None);
    assert_eq!(connect(&server, &client, "localhost").await.unwrap().leaf, before);

    setup.authority.write(&files, &["localhost"], NOW + 9 * YEAR);
    assert_eq!(reloader.reload_now().replaced[0].not_after, NOW + 9 * YEAR);
    // A fresh client, because the other one may resume and then sees what it saw.
    let seen = connect(&server, &setup.client(None), "localhost").await.unwrap();
    assert_eq!(seen.leaf, leaf_of(&files));

    let registry = prometheus::Registry::new();
    register_certificate_metrics(&registry, vec![reloader], clock).unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(text.contains("tidegate_cert_reloads_total{result=\"refused\"} 3"), "{text}");
    assert!(text.contains("tidegate_cert_reloads_total{result=\"replaced\"} 1"), "{text}");
    assert!(text.contains("tidegate_cert_expiry_seconds{certificate="), "{text}");
}

#[tokio::test]
async fn polling_finds_a_renewal_and_ends_with_the_tasks() {
    let setup = Setup::new();
    let files = setup.pair("one", &["localhost"]);
    let store = CertificateStore::load(vec![files.clone()], NOW).unwrap();
    let tasks = Tasks::new();
    Reloader::new(Arc::clone(&store), Clock::start()).start(Duration::from_millis(1), &tasks);
    setup.authority.write(&files, &["localhost"], NOW + 8 * YEAR);
    let renewed = async {
        while store.certificates()[0].not_after != NOW + 8 * YEAR {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), renewed).await.unwrap();
    tasks.close(Duration::from_secs(30)).await.unwrap();
}

#[test]
fn unusable_files_are_named() {
    let setup = Setup::new();
    let good = setup.pair("good", &["localhost"]);
    let missing = CertificateFiles { cert: setup.dir.path().join("missing.pem"), key: good.key.clone() };
    let error = CertificateStore::load(vec![missing], NOW).unwrap_err();
    assert!(error.to_string().contains("missing.pem"));
    let swapped = CertificateFiles { cert: good.cert.clone(), key: good.cert.clone() };
    let error = CertificateStore::load(vec![swapped], NOW).unwrap_err();
    assert!(error.to_string().contains("no PEM private key"), "{error}");
    assert!(matches!(CertificateStore::load(Vec::new(), NOW), Err(TlsError::NoCertificates)));
    let trusting_nobody = ClientTlsOptions { trusted: TrustedRoots::OnlyExtra, ..ClientTlsOptions::default() };
    assert!(matches!(client_config(&trusting_nobody, &SystemRoots::load()), Err(TlsError::NoRoots)));
}
