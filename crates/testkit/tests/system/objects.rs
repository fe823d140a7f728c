//! Records in an object store: each in exactly one object, whatever the store does meanwhile, and no request that waits for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tidegate_edge::config::{LedgerConfig, ObjectsConfig};
use tidegate_testkit::{Mesh, Topology, chat, key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CHAT: &str = "/v1/chat/completions";
const BUCKET: &str = "records";
const ID: &str = "objects-access-key";
const SECRET: &str = "objects-secret-key";

/// What the store does with a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    /// Stores it, and closes the connection without an answer.
    TakesInSilence,
    /// 503, as stores say when they are asked too much.
    Refuses,
    /// 403, as for a key that was taken away.
    Forbids,
    /// Never answers.
    Hangs,
}

/// As much of S3 as puts objects.
struct Store {
    address: std::net::SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    mood: Mood,
    objects: BTreeMap<String, Vec<u8>>,
    puts: u64,
    /// Everything that was sent, heads and all.
    heard: Vec<u8>,
}

impl Store {
    async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { mood, objects: BTreeMap::new(), puts: 0, heard: Vec::new() }));
        let shared = Arc::clone(&state);
        beside(async move {
            while let Ok((socket, _)) = listener.accept().await {
                beside(serve(socket, Arc::clone(&shared)));
            }
        });
        Self { address, state }
    }

    fn set(&self, mood: Mood) {
        self.state.lock().mood = mood;
    }

    fn puts(&self) -> u64 {
        self.state.lock().puts
    }

    /// The ids of all records in all objects, in order.
    fn ids(&self) -> Vec<String> {
        let objects = self.state.lock().objects.clone();
        let mut ids = Vec::new();
        for (name, bytes) in objects {
            assert!(name.starts_with(&format!("/{BUCKET}/some/where/20")) && name.ends_with(".jsonl.zst"), "{name}");
            let text = zstd::decode_all(bytes.as_slice()).expect("zstd");
            for line in String::from_utf8(text).expect("text").lines() {
                let line: Value = serde_json::from_str(line).expect("JSON");
                ids.push(line["id"].as_str().expect("an id").to_owned());
            }
        }
        ids.sort();
        ids
    }

    async fn until_holds(&self, wanted: &[String]) {
        let mut wanted = wanted.to_vec();
        wanted.sort();
        until("all records to be in the store", || self.ids().len() >= wanted.len()).await;
        assert_eq!(self.ids(), wanted, "every record once");
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
fn beside(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

async fn serve(mut socket: TcpStream, state: Arc<Mutex<State>>) {
    let mut heard = Vec::new();
    let (head, length) = loop {
        if let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&heard[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            break (end + 4, length.expect("a length"));
        }
        if socket.read_buf(&mut heard).await.unwrap_or(0) == 0 {
            return;
        }
    };
    while heard.len() < head + length {
        if socket.read_buf(&mut heard).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let text = String::from_utf8_lossy(&heard[..head]).into_owned();
    let mut words = text.split_whitespace();
    assert_eq!(words.next(), Some("PUT"), "{text}");
    let name = words.next().expect("a name").to_owned();
    for part in [&format!("Credential={ID}/"), "/eu-test-1/s3/aws4_request", "Signature=", "x-amz-content-sha256"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    let mood = {
        let mut state = state.lock();
        state.puts += 1;
        state.heard.extend_from_slice(&heard);
        if matches!(state.mood, Mood::Takes | Mood::TakesInSilence) {
            let body = heard[head..].to_vec();
            if let Some(before) = state.objects.insert(name, body.clone()) {
                assert_eq!(before, body, "an object that is sent again is the same");
            }
        }
        state.mood
    };
    let answer = match mood {
        Mood::Takes => "HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 0\r\n\r\n",
        Mood::TakesInSilence => return,
        Mood::Refuses => "HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n",
        Mood::Forbids => "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
        Mood::Hangs => {
            let _ = socket.read(&mut [0; 1]).await;
            return;
        }
    };
    let _ = socket.write_all(answer.as_bytes()).await;
}

async fn until(what: &str, wanted: impl Fn() -> bool) {
    let reached = async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached).await.unwrap_or_else(|_| panic!("waited too long for {what}"));
}

fn config(directory: &Path, store: &Store, rotate_bytes: u64, waiting_bytes: u64) -> LedgerConfig {
    LedgerConfig {
        directory: Some(directory.join("ledger")),
        objects: Some(ObjectsConfig {
            bucket: BUCKET.to_owned(),
            prefix: "some/where".to_owned(),
            region: "eu-test-1".to_owned(),
            endpoint: Some(format!("http://{}", store.address)),
            extra_roots: None,
            access_key_id: ID.into(),
            secret_access_key: SECRET.into(),
            session_token: None,
            rotate_bytes,
            rotate_every: Duration::from_secs(3600),
            waiting_bytes,
        }),
        ..LedgerConfig::default()
    }
}

async fn mesh(ledger: LedgerConfig) -> Mesh {
    Topology::new().provider("a", |_| {}).with(|topology| topology.ledger = ledger).start().await
}

async fn ask(mesh: &Mesh, count: usize, ids: &mut Vec<String>) {
    for _ in 0..count {
        let answer = mesh.post(CHAT, &chat("m", "hello")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        ids.push(answer.json()["id"].as_str().expect("an id").to_owned());
    }
}

/// A record is some 700 bytes as JSON: an object for every few of them.
const SMALL: u64 = 2_000;
const MUCH: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_in_one_object_whatever_the_store_does() {
    let (store, directory) = (Store::start(Mood::Takes).await, tempfile::tempdir().expect("a directory"));
    let mut ids = Vec::new();
    let first = mesh(config(directory.path(), &store, SMALL, MUCH)).await;
    for mood in [Mood::Takes, Mood::Refuses, Mood::Takes, Mood::TakesInSilence, Mood::Forbids] {
        store.set(mood);
        let before = store.puts();
        ask(&first, 8, &mut ids).await;
        until("an object to be sent", || store.puts() > before).await;
    }
    // Stopped while nothing goes: the end is not held up for long, and the next start sends what is left.
    first.edge.shutdown().await;
    assert!(store.ids().len() < ids.len(), "{} of {} are there", store.ids().len(), ids.len());
    store.set(Mood::Takes);
    let second = mesh(config(directory.path(), &store, SMALL, MUCH)).await;
    ask(&second, 3, &mut ids).await;
    // Too few for an object: the end of the process makes it.
    second.edge.shutdown().await;
    store.until_holds(&ids).await;
    assert_eq!(std::fs::read_dir(directory.path().join("ledger/objects")).expect("the folder").count(), 0, "nothing waits");
    let heard = String::from_utf8_lossy(&store.state.lock().heard).into_owned();
    assert!(!heard.contains(SECRET), "the secret signs, and is not sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_holds_up_no_request_and_fills_no_disk() {
    let (store, directory) = (Store::start(Mood::Hangs).await, tempfile::tempdir().expect("a directory"));
    let mut ids = Vec::new();
    // Three finished files are more than may wait: what comes then stays in the journal.
    let first = mesh(config(directory.path(), &store, SMALL, 1_500)).await;
    ask(&first, 60, &mut ids).await;
    first.until_metric("tidegate_ledger_records_total", &[], |records| records == 60.0).await;
    let folder = directory.path().join("ledger/objects");
    let waiting = || std::fs::read_dir(&folder).map_or(0, Iterator::count);
    until("a few files", || waiting() >= 2).await;
    first.edge.shutdown().await;
    assert!(waiting() <= 6, "{} files of some 600 bytes wait", waiting());
    store.set(Mood::Takes);
    let second = mesh(config(directory.path(), &store, SMALL, MUCH)).await;
    until("what waited in the journal to be sent", || store.ids().len() >= 56).await;
    second.edge.shutdown().await;
    store.until_holds(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_edges_may_share_a_bucket() {
    let (store, directory) = (Store::start(Mood::Takes).await, tempfile::tempdir().expect("a directory"));
    let mut ids = Vec::new();
    for name in ["1", "2", "1"] {
        let mesh = mesh(config(&directory.path().join(name), &store, SMALL, MUCH)).await;
        ask(&mesh, 5, &mut ids).await;
        mesh.edge.shutdown().await;
    }
    store.until_holds(&ids).await;
}

/// What a caller sends, and how it is known: neither has anything to do in a warehouse.
const CANARY: &str = "canary-5d1f7c";

#[tokio::test(flavor = "multi_thread")]
async fn objects_hold_no_secret_and_no_text() {
    let (store, directory) = (Store::start(Mood::Takes).await, tempfile::tempdir().expect("a directory"));
    let (caller_key, credential) = (format!("{CANARY}-caller-key"), format!("{CANARY}-credential"));
    let ledger = config(directory.path(), &store, SMALL, MUCH);
    let mesh = Topology::new()
        .provider("a", |draft| {
            let secret = credential.clone();
            draft.provider = Box::new(move |provider| provider.credentials[0].secret = Some(secret.as_str().into()));
        })
        .with(|topology| {
            topology.ledger = ledger;
            topology.more_keys = vec![key("named", &caller_key)];
        })
        .start()
        .await;
    let caller = mesh.caller().with_key(&caller_key).with_header("cookie", &format!("{CANARY}-cookie")).with_header("x-anything", CANARY);
    for script in ["", "cut=3", "status=401", "status=500", "malformed"] {
        for streamed in [false, true] {
            let answer = tidegate_provider_sim::Script::text(format!("{CANARY}-answer"));
            mesh.sim("a").push_script(if script.is_empty() { answer } else { script.parse().expect("a script") });
            let mut request = chat("m", &format!("{CANARY}-prompt"));
            request["stream"] = streamed.into();
            request["metadata"] = serde_json::json!({ "name": CANARY });
            request["stop"] = serde_json::json!([CANARY]);
            request["tools"] =
                serde_json::json!([{ "type": "function", "function": { "name": "canary-5d1f7c", "parameters": { "type": "object" } } }]);
            caller.post(CHAT, &request).await;
        }
    }
    mesh.edge.shutdown().await;
    until("all objects", || store.ids().len() >= 10).await;
    // Nor the digest, by which the configuration knows the key.
    let digest: String = tidegate_edge::auth::digest(&caller_key, None).iter().map(|byte| format!("{byte:02x}")).collect();
    let state = store.state.lock();
    let records: Vec<u8> = state.objects.values().flat_map(|object| zstd::decode_all(object.as_slice()).expect("zstd")).collect();
    let sent = String::from_utf8_lossy(&state.heard).into_owned() + &String::from_utf8_lossy(&records);
    assert!(sent.contains("\"key\":\"named\""), "records are there");
    for word in [CANARY, &digest, SECRET] {
        assert!(!sent.contains(word), "{word} was sent to the object store");
    }
}
