//! TLS on both legs: versions, names, protocols, resumption, renewal, and certificates of callers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup, ProtocolVersion, ServerConfig};
use tidegate_edge::config::{ListenerTls, UpstreamHttp};
use tidegate_testkit::raw::{RawUpstream, stream_end};
use tidegate_testkit::{Authority, Event, Mesh, Topology, chat, leaf, stream};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

async fn mesh_with(tls: ListenerTls) -> Mesh {
    Topology::new().provider("a", |_| {}).with(|topology| topology.tls = Some(tls)).start().await
}

async fn handshake(mesh: &Mesh, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(mesh.https()).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a host name");
    TlsConnector::from(Arc::clone(config)).connect(name, tcp).await
}

#[tokio::test]
async fn both_versions_and_both_protocols_are_spoken() {
    let authority = Authority::new();
    let mesh = mesh_with(authority.listener(vec![authority.issue("edge", &["localhost"])])).await;
    let versions = [(&rustls::version::TLS13, ProtocolVersion::TLSv1_3), (&rustls::version::TLS12, ProtocolVersion::TLSv1_2)];
    for (version, expected) in versions {
        for alpn in [&["h2", "http/1.1"][..], &["http/1.1"][..], &[][..]] {
            let config = authority.client(&[version], alpn, None);
            let seen = handshake(&mesh, &config, "localhost").await.expect("a handshake");
            let session = seen.get_ref().1;
            assert_eq!(session.protocol_version(), Some(expected));
            assert_eq!(session.alpn_protocol(), alpn.first().map(|name| name.as_bytes()), "the first that both know");
            let mut caller = mesh.caller().with_tls(mesh.https(), config);
            if alpn.first() == Some(&"h2") {
                caller = caller.over_http2();
            }
            assert_eq!(caller.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200);
        }
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn the_old_version_can_be_switched_off() {
    let authority = Authority::new();
    let files = authority.issue("edge", &["localhost"]);
    let mesh = mesh_with(ListenerTls { tls12: false, ..authority.listener(vec![files]) }).await;
    assert!(handshake(&mesh, &authority.client(&[&rustls::version::TLS12], &[], None), "localhost").await.is_err());
    assert!(handshake(&mesh, &authority.client(&[], &[], None), "localhost").await.is_ok());
    mesh.until_metric("tidegate_edge_tls_handshakes_total", &[("result", "failed")], |count| count == 1.0).await;
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn the_certificate_follows_the_name_and_the_keys_are_post_quantum() {
    let authority = Authority::new();
    let first = authority.issue("first", &["api.example.org"]);
    let second = authority.issue("second", &["*.tenant.example.org"]);
    let mesh = mesh_with(authority.listener(vec![first.clone(), second.clone()])).await;
    let config = authority.client(&[], &[], None);
    for (name, files) in [("api.example.org", &first), ("a.tenant.example.org", &second)] {
        let seen = handshake(&mesh, &config, name).await.expect("a handshake");
        let session = seen.get_ref().1;
        assert_eq!(session.peer_certificates().expect("a chain")[0], leaf(files), "{name}");
        assert_eq!(session.negotiated_key_exchange_group().map(|group| group.name()), Some(NamedGroup::X25519MLKEM768));
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn sessions_are_resumed() {
    let authority = Authority::new();
    let mesh = mesh_with(authority.listener(vec![authority.issue("edge", &["localhost"])])).await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let before = mesh.metric("tidegate_edge_tls_handshakes_total", &[("result", "resumed")]);
        let caller = mesh.caller().with_tls(mesh.https(), authority.client(&[version], &["http/1.1"], None));
        for _ in 0..3 {
            assert_eq!(caller.get("/").await.status, 200);
        }
        mesh.until_metric("tidegate_edge_tls_handshakes_total", &[("result", "resumed")], |count| count == before + 2.0).await;
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_running_streams_do_not_notice() {
    let authority = Authority::new();
    let files = authority.issue("edge", &["localhost"]);
    let upstream = RawUpstream::bind().await;
    let mesh =
        Topology::new().raw("raw", &upstream).with(|topology| topology.tls = Some(authority.listener(vec![files.clone()]))).start().await;
    let config = || authority.client(&[], &["http/1.1"], None);
    let caller = mesh.caller().with_tls(mesh.https(), config());
    let request = stream("m", "hello");
    let (mut running, mut exchange) = tokio::join!(caller.stream("/v1/chat/completions", &request), async {
        let mut exchange = upstream.accept().await;
        exchange.begin_stream().await;
        exchange.text("before").await;
        exchange
    });
    assert!(matches!(running.next().await, Some(Event::Data(_))));

    let before = leaf(&files);
    std::fs::write(&files.cert, "no certificate").expect("a writable file");
    mesh.edge.refresh_files();
    let seen = handshake(&mesh, &config(), "localhost").await.expect("the old pair is still good");
    assert_eq!(seen.get_ref().1.peer_certificates().expect("a chain")[0], before);
    assert_eq!(mesh.metric("tidegate_cert_reloads_total", &[("result", "refused")]), 1.0);

    let renewed = leaf(&authority.issue("edge", &["localhost"]));
    mesh.edge.refresh_files();
    assert_ne!(renewed, before);
    let seen = handshake(&mesh, &config(), "localhost").await.expect("a handshake");
    assert_eq!(seen.get_ref().1.peer_certificates().expect("a chain")[0], renewed);

    exchange.text("after").await;
    exchange.send(stream_end()).await;
    let rest = running.collect().await;
    assert_eq!((Event::text(&rest).as_str(), rest.last()), ("after", Some(&Event::Done)));
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_renewal_is_found_without_being_told() {
    let authority = Authority::new();
    let files = authority.issue("edge", &["localhost"]);
    let tls = ListenerTls { reload_every: Duration::from_millis(5), ..authority.listener(vec![files]) };
    let mesh = mesh_with(tls).await;
    let renewed = leaf(&authority.issue("edge", &["localhost"]));
    mesh.until_metric("tidegate_cert_reloads_total", &[("result", "replaced")], |count| count >= 1.0).await;
    let seen = handshake(&mesh, &authority.client(&[], &[], None), "localhost").await.expect("a handshake");
    assert_eq!(seen.get_ref().1.peer_certificates().expect("a chain")[0], renewed);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn callers_without_a_certificate_are_refused_where_one_is_asked_for() {
    let (authority, callers) = (Authority::new(), Authority::new());
    let files = authority.issue("edge", &["localhost"]);
    let mesh = mesh_with(ListenerTls { client_ca: Some(callers.pem()), ..authority.listener(vec![files]) }).await;
    let known = callers.issue("caller", &["caller.example.org"]);
    let stranger = authority.issue("stranger", &["stranger.example.org"]);
    for identity in [None, Some(&stranger)] {
        let config = authority.client(&[], &["http/1.1"], identity);
        // With TLS 1.3 the client learns of the refusal with its first read.
        let refused = match handshake(&mesh, &config, "localhost").await {
            Err(_) => true,
            Ok(mut stream) => stream.read(&mut [0; 16]).await.is_err(),
        };
        assert!(refused);
    }
    let caller = mesh.caller().with_tls(mesh.https(), authority.client(&[], &["http/1.1"], Some(&known)));
    assert_eq!(caller.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_given_up() {
    let authority = Authority::new();
    let tls = authority.listener(vec![authority.issue("edge", &["localhost"])]);
    let mesh = Topology::new()
        .provider("a", |_| {})
        .with(|topology| {
            topology.tls = Some(tls);
            topology.limits.tls_handshake = Duration::from_millis(50);
        })
        .start()
        .await;
    let mut socket = TcpStream::connect(mesh.https()).await.expect("the edge listens");
    assert!(matches!(socket.read(&mut [0; 16]).await, Ok(0) | Err(_)));
    mesh.until_metric("tidegate_edge_tls_handshakes_total", &[("result", "timeout")], |count| count == 1.0).await;
    mesh.edge.shutdown().await;
}

/// What a terminator saw of one connection.
#[derive(Debug, PartialEq)]
struct Seen {
    alpn: Option<Vec<u8>>,
    group: Option<NamedGroup>,
}

/// TLS in front of something that speaks plain; ends with the test's runtime.
struct Terminator {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Terminator {
    async fn start(config: Arc<ServerConfig>, behind: Arc<Mutex<Option<SocketAddr>>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else { return };
                let (config, behind, noted) = (Arc::clone(&config), *behind.lock(), Arc::clone(&noted));
                spawn(async move {
                    let Ok(mut tls) = TlsAcceptor::from(config).accept(tcp).await else { return };
                    let session = tls.get_ref().1;
                    let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
                    let group = session.negotiated_key_exchange_group().map(|group| group.name());
                    noted.lock().push(Seen { alpn, group });
                    let mut plain =
                        TcpStream::connect(behind.expect("set before the first request")).await.expect("the simulation listens");
                    drop(tokio::io::copy_bidirectional(&mut tls, &mut plain).await);
                });
            }
        });
        Self { address, seen }
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

#[tokio::test]
async fn providers_with_a_private_authority_are_reached_by_either_protocol() {
    let authority = Authority::new();
    let files = authority.issue("provider", &["localhost"]);
    let cases = [
        (&["h2", "http/1.1"][..], UpstreamHttp::Auto, Some("h2")),
        (&["http/1.1"][..], UpstreamHttp::Auto, Some("http/1.1")),
        (&["h2", "http/1.1"][..], UpstreamHttp::Http1, Some("http/1.1")),
        (&[][..], UpstreamHttp::Auto, None),
    ];
    for (offered, http, agreed) in cases {
        let behind = Arc::new(Mutex::new(None));
        let terminator = Terminator::start(authority.server(&files, offered), Arc::clone(&behind)).await;
        let (port, pem) = (terminator.address.port(), authority.pem());
        let mesh = Topology::new()
            .provider("a", |draft| {
                draft.provider = Box::new(move |provider| {
                    provider.info.base_url = format!("https://localhost:{port}/v1");
                    provider.extra_roots = vec![pem.clone()];
                    provider.only_extra_roots = true;
                    provider.allow_plain_http = false;
                    provider.http = http;
                });
            })
            .start()
            .await;
        *behind.lock() = Some(mesh.sim("a").addr());
        assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200);
        let events = mesh.stream("/v1/chat/completions", &stream("m", "hello")).await.collect().await;
        assert_eq!(events.last(), Some(&Event::Done));
        let seen = std::mem::take(&mut *terminator.seen.lock());
        assert!(!seen.is_empty());
        for seen in seen {
            assert_eq!(seen.alpn.as_deref(), agreed.map(str::as_bytes));
            assert_eq!(seen.group, Some(NamedGroup::X25519MLKEM768));
        }
        mesh.edge.shutdown().await;
    }
}

#[tokio::test]
async fn a_provider_with_an_unknown_authority_or_name_gets_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let wrong_name = authority.issue("wrong", &["elsewhere.example.org"]);
    let unknown = other.issue("unknown", &["localhost"]);
    for (server, files) in [(&authority, &wrong_name), (&other, &unknown)] {
        let behind = Arc::new(Mutex::new(None));
        let terminator = Terminator::start(server.server(files, &["http/1.1"]), Arc::clone(&behind)).await;
        let (port, pem) = (terminator.address.port(), authority.pem());
        let mesh = Topology::new()
            .provider("a", |draft| {
                draft.provider = Box::new(move |provider| {
                    provider.info.base_url = format!("https://localhost:{port}/v1");
                    provider.extra_roots = vec![pem.clone()];
                    provider.only_extra_roots = true;
                });
            })
            .start()
            .await;
        *behind.lock() = Some(mesh.sim("a").addr());
        let answer = mesh.post("/v1/chat/completions", &chat("m", "hello")).await;
        assert_eq!((answer.status, answer.error_type().as_str()), (503, "provider_overloaded"), "{}", answer.text());
        assert_eq!(mesh.metric("tidegate_edge_attempts_total", &[("outcome", "connect")]), 1.0);
        assert_eq!(mesh.hits("a"), 0);
        mesh.edge.shutdown().await;
    }
}
