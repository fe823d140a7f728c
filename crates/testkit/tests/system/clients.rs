//! Requests of real clients as golden inputs: each file in `clients/` is played against an edge.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tidegate_testkit::{Caller, Mesh, Topology};

/// A recorded request.
struct Recording {
    client: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Value,
}

impl Recording {
    fn parse(client: String, text: &str) -> Self {
        let (head, body) = text.split_once("\n\n").expect("a blank line between head and body");
        let mut lines = head.lines();
        let path = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a request line").to_owned();
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { client, path, headers, body: serde_json::from_str(body).expect("a JSON body") }
    }

    /// All of them.
    fn all() -> Vec<Self> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients");
        let mut files: Vec<_> = fs::read_dir(folder).expect("the recordings").map(|file| file.expect("a file").path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "http"));
        files.sort();
        let read = |path: PathBuf| {
            let client = path.file_stem().expect("a name").to_string_lossy().into_owned();
            Self::parse(client, &fs::read_to_string(path).expect("a recording"))
        };
        files.into_iter().map(read).collect()
    }

    /// The client, with all its headers but the key, which is the mesh's.
    fn caller(&self, mesh: &Mesh) -> Caller {
        self.headers.iter().filter(|(name, _)| name != "authorization").fold(mesh.caller(), |caller, (name, value)| {
            // A handful of names live as long as the test program.
            caller.with_header(Box::leak(name.clone().into_boxed_str()), value)
        })
    }

    fn streams(&self) -> bool {
        self.body["stream"] == true
    }
}

/// Fields that are the gateway's to read or to write, not the provider's.
const OURS: &[&str] = &["model", "provider", "usage", "session_id", "user", "stream_options", "include_reasoning"];
/// All that a provider of this dialect gets to see of a head.
const TO_PROVIDERS: &[&str] = &["host", "content-type", "content-length", "accept", "user-agent", "authorization", "traceparent"];

#[tokio::test]
async fn every_client_is_answered_and_its_fields_arrive_untouched() {
    let recordings = Recording::all();
    assert!(recordings.len() >= 12, "{}", recordings.len());
    for recording in recordings {
        let client = &recording.client;
        let mesh = Topology::new().provider("a", |_| {}).start().await;
        let caller = recording.caller(&mesh);
        if recording.streams() {
            let stream = caller.stream(&recording.path, &recording.body).await;
            assert_eq!(stream.status, 200, "{client}");
            let events = stream.collect().await;
            let last = events.iter().rev().find_map(|event| event.data()).expect("a chunk");
            assert!(last["usage"]["prompt_tokens"].is_u64(), "{client}: {last}");
        } else {
            let answer = caller.post(&recording.path, &recording.body).await;
            assert_eq!(answer.status, 200, "{client}: {}", answer.text());
            assert!(answer.json()["usage"]["cost"].is_number(), "{client}: {}", answer.text());
        }
        let seen = mesh.sim("a").last_request().expect("a request");
        let upstream = seen.json();
        for (field, value) in recording.body.as_object().expect("an object").iter().filter(|(field, _)| !OURS.contains(&field.as_str())) {
            assert_eq!(&upstream[field], value, "{client}: `{field}`");
        }
        for name in seen.headers.keys() {
            assert!(TO_PROVIDERS.contains(&name.as_str()), "{client}: `{name}` reached the provider");
        }
        assert!(seen.headers["user-agent"].to_str().is_ok_and(|agent| agent.starts_with("tidegate/")), "{client}");
        assert_eq!(seen.query, "", "{client}");
    }
}

#[tokio::test]
async fn what_clients_say_about_themselves_is_in_their_records() {
    let of = |name: &str| Recording::all().into_iter().find(|recording| recording.client == name).expect("a recording");
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let openrouter = of("openrouter-python");
    let answer = openrouter.caller(&mesh).post(&openrouter.path, &openrouter.body).await;
    let record = mesh.generation(answer.header("x-generation-id")).await;
    assert_eq!(record["session_id"], json!("session-7"), "{record}");
    assert_eq!(record["http_referer"], json!("https://harbour.example"), "{record}");
    assert!(answer.json().get("openrouter_metadata").is_some(), "the header that asks for it was sent");

    let opencode = of("opencode");
    let stream = opencode.caller(&mesh).stream(&opencode.path, &opencode.body).await;
    let id = stream.headers["x-generation-id"].to_str().expect("an id").to_owned();
    stream.collect().await;
    assert_eq!(mesh.generation(&id).await["session_id"], json!("ses_5f2c"));
}
