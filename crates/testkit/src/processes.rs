//! A mesh of real processes in two regions: control nodes and edges as `tidegate` starts them, told what to do by its commands alone.
//!
//! Each region is a network namespace of a [`Wan`]; what is to be reached from the other region listens on the region's own addresses under
//! mutual TLS, everything else on the namespace's loopback. Providers are simulated inside each region, so that a region that is cut off
//! still has them.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tidegate_provider_sim::{Sim, SimHandle, SimSpec, Timing};
use tokio::runtime::Runtime;

use crate::wan::Wan;

/// Regions of the mesh; the first has two control nodes, the second one.
pub const REGIONS: [&str; 2] = ["eu", "us"];
/// The model that both providers serve; `near` costs a tenth of `spare`.
pub const MODEL: &str = "acme/one";
/// Far above what any step takes, so that only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PROVIDERS: [(&str, u16); 2] = [("near", 9001), ("spare", 9002)];
/// Region of each control node, as `tidegate certs dev` spreads them.
const CONTROL: [&str; 3] = ["eu", "us", "eu"];
/// One way.
const DISTANCE: Duration = Duration::from_millis(40);
/// Lines of a process that are shown when a test fails.
const KEPT_LINES: usize = 400;

/// The processes. Dropping it ends them, then removes the regions.
pub struct Processes {
    binary: PathBuf,
    directory: tempfile::TempDir,
    running: Mutex<BTreeMap<String, Process>>,
    /// What those said that were told to stop.
    last_words: Mutex<BTreeMap<String, String>>,
    sims: BTreeMap<(String, String), SimHandle>,
    _runtime: Runtime,
    // The last field: namespaces go when nothing is left in them.
    wan: Wan,
}

struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

/// An answer as it came over the wire.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Status; 0 when nobody answered.
    pub status: u16,
    /// Head and body; the reason when nobody answered.
    pub text: String,
}

impl Raw {
    /// The body, if it is JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        let (_, body) = self.text.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }
}

impl Processes {
    /// Makes the regions and writes every file; nothing runs yet but the simulated providers. `None`, with the reason on standard error,
    /// where namespaces are not allowed.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a skipped proof says so")]
    pub fn prepare(binary: &str, edges_per_region: u16) -> Option<Self> {
        let wan = Wan::open(&REGIONS, DISTANCE).inspect_err(|why| eprintln!("skipped: {why}")).ok()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let mut sims = BTreeMap::new();
        for region in REGIONS {
            for (name, port) in PROVIDERS {
                let spec = SimSpec {
                    address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                    name: name.to_owned(),
                    timing: Timing { first_token: Duration::from_millis(5), spread: 0.0, ..Timing::instant() },
                    ..SimSpec::default()
                };
                let started = wan.inside(region, || {
                    let _inside = runtime.enter();
                    Sim::start(spec)
                });
                sims.insert((region.to_owned(), name.to_owned()), started.expect("the region").expect("a port of its own namespace"));
            }
        }
        let directory = tempfile::tempdir().expect("a directory");
        let mesh = Self {
            binary: binary.into(),
            directory,
            running: Mutex::default(),
            last_words: Mutex::default(),
            sims,
            _runtime: runtime,
            wan,
        };
        mesh.write_files(edges_per_region);
        Some(mesh)
    }

    fn write_files(&self, edges_per_region: u16) {
        let at = self.directory.path().display();
        self.command("eu", "", &["kek", "new", "--out", &format!("{at}/kek")]);
        let public = self.command("eu", "", &["kek", "public", &format!("{at}/kek")]);
        self.write("kek.pub", &public);
        let edges = edges_per_region.to_string();
        self.command(
            "eu",
            "",
            &["certs", "dev", "--out", &format!("{at}/certs"), "--regions", "eu,us", "--control", "3", "--edges", &edges],
        );
        for (node, region) in CONTROL.iter().enumerate() {
            let (node, listen) = (node + 1, self.address_of(node));
            let peers = if node == 1 { String::new() } else { format!("peers: [\"{}:7201\"], ", self.address_of(0)) };
            self.write(
                &format!("control-{node}.yaml"),
                &format!(
                    "name: control-{node}\nregion: {region}\ndata_dir: {at}/control-{node}\nidentity: {at}/certs/control-{node}\n\
                     raft: {{ listen: \"{listen}:7201\", {peers}timing: continental }}\nsync: {{ listen: \"{listen}:7202\" }}\n\
                     admin: {{ listen: \"{listen}:7203\" }}\noperations: {{ address: \"{listen}:7204\" }}\n\
                     sealing: {{ key_file: {at}/kek.pub }}\n"
                ),
            );
        }
        let sync = |wanted: &str| {
            let nodes = CONTROL.iter().enumerate().filter(|(_, region)| **region == wanted);
            nodes.map(|(node, _)| format!("\"https://{}:7202\"", self.address_of(node))).collect::<Vec<_>>().join(", ")
        };
        for (region, other) in [("eu", "us"), ("us", "eu")] {
            for number in 1..=edges_per_region {
                let name = format!("edge-{region}-{number}");
                self.write(
                    &format!("{name}.yaml"),
                    &format!(
                        "region: {region}\nlisteners: [{{ address: \"127.0.0.1:{}\" }}]\noperations: {{ address: \"127.0.0.1:{}\" }}\n\
                         runtime: {{ workers: 1 }}\ncontrol:\n  endpoints: [{}]\n  elsewhere: {{ {other}: [{}] }}\n  name: {name}\n  \
                         identity: {{ cert: {at}/certs/{name}/tls.crt, key: {at}/certs/{name}/tls.key, ca: {at}/certs/{name}/ca.crt }}\n  \
                         state_dir: {at}/{name}\n  kek: {at}/kek\n  bake: 1s\n",
                        8000 + number,
                        8100 + number,
                        sync(region),
                        sync(other)
                    ),
                );
            }
        }
        let mut mesh = String::from("providers:\n");
        for (name, port) in PROVIDERS {
            mesh.push_str(&format!("  {name}: {{ base_url: \"http://127.0.0.1:{port}/v1\", credentials: [\"env:PROVIDER_KEY\"] }}\n"));
        }
        mesh.push_str(&format!("models: {{ {MODEL}: {{}} }}\nendpoints:\n"));
        for (name, price) in [("near", 1), ("spare", 10)] {
            let prices = format!("{{ prompt: {price}, completion: {price} }}");
            mesh.push_str(&format!("  - {{ provider: {name}, model: {MODEL}, prices: {prices}, context_length: 100000 }}\n"));
        }
        mesh.push_str("organisations: { acme: {} }\nworkspaces: { dev: { organisation: acme } }\n");
        self.write("mesh.yaml", &mesh);
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).expect("a file in the test's directory");
    }

    /// A file of the mesh.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The distance between the regions.
    #[must_use]
    pub fn wan(&self) -> &Wan {
        &self.wan
    }

    /// A provider as it is in a region.
    #[must_use]
    pub fn sim(&self, region: &str, name: &str) -> &SimHandle {
        &self.sims[&(region.to_owned(), name.to_owned())]
    }

    fn address_of(&self, node: usize) -> Ipv4Addr {
        self.wan.address(CONTROL[node], u8::try_from(node + 1).expect("three nodes"))
    }

    /// The admin address of a control node, numbered from 1.
    #[must_use]
    pub fn admin(&self, node: usize) -> String {
        format!("https://{}:7203", self.address_of(node - 1))
    }

    /// Starts a role by its name, `control-1` or `edge-eu-1`, inside its region.
    pub fn start(&self, name: &str) {
        self.start_under(name, &[]);
    }

    /// The same, under a command that ends in becoming it, such as `nice`.
    pub fn start_under(&self, name: &str, under: &[&str]) {
        let (role, region) = place(name);
        let binary = self.binary.display().to_string();
        let mut words = under.iter().copied().chain([binary.as_str()]);
        let mut command = Command::new(words.next().expect("at least the binary"));
        command.args(words).args([role, "--log-format", "json", "--config", &self.file(&format!("{name}.yaml"))]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = self.wan.spawn(region, &mut command).expect("the binary runs");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&said);
        // Somebody has to read on, or the process would wait for space in the pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut kept = keep.lock();
                if kept.len() < KEPT_LINES || line.contains("\"WARN\"") || line.contains("\"ERROR\"") {
                    kept.push(line);
                }
            }
        });
        let before = self.running.lock().insert(name.to_owned(), Process { child, said });
        assert!(before.is_none(), "{name} runs already");
    }

    /// Ends a role at once, as a lost machine does (SIGKILL).
    pub fn kill(&self, name: &str) {
        let mut process = self.running.lock().remove(name).unwrap_or_else(|| panic!("{name} does not run"));
        process.child.kill().expect("a process of ours");
        process.child.wait().expect("a process of ours");
    }

    /// Asks a role to stop (SIGTERM) and waits until it has: the exit code, and how long it took.
    pub fn stop(&self, name: &str) -> (Option<i32>, Duration) {
        let mut process = self.running.lock().remove(name).unwrap_or_else(|| panic!("{name} does not run"));
        let asked = Instant::now();
        let told = Command::new("kill").args(["-s", "TERM", &process.child.id().to_string()]).status();
        assert!(told.is_ok_and(|status| status.success()), "{name} cannot be told to stop");
        let code = process.child.wait().expect("a process of ours").code();
        let took = asked.elapsed();
        let said = process.said.lock().join("\n");
        self.last_words.lock().insert(name.to_owned(), said);
        (code, took)
    }

    /// The process of a running role.
    #[must_use]
    pub fn id(&self, name: &str) -> u32 {
        self.running.lock().get(name).unwrap_or_else(|| panic!("{name} does not run")).child.id()
    }

    /// Whether a role has ended by itself, and how: its exit code and what it has said. It can be started again then.
    #[must_use]
    pub fn ended(&self, name: &str) -> Option<(Option<i32>, String)> {
        let mut running = self.running.lock();
        let code = running.get_mut(name)?.child.try_wait().expect("a process of ours")?.code();
        let process = running.remove(name)?;
        let said = process.said.lock().join("\n");
        Some((code, said))
    }

    /// What a running role has said, or one that was told to stop, for the message of a failing test.
    #[must_use]
    pub fn said(&self, name: &str) -> String {
        let running = self.running.lock().get(name).map(|process| process.said.lock().join("\n"));
        running.or_else(|| self.last_words.lock().get(name).cloned()).unwrap_or_default()
    }

    /// Runs `tidegate` inside a region, towards the control node at `url`.
    #[must_use]
    pub fn run(&self, region: &str, url: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.binary);
        command.args(arguments).stdin(Stdio::null()).env("PROVIDER_KEY", "sk-of-the-proof");
        if !url.is_empty() {
            command.env("TIDEGATE_CONTROL", url).env("TIDEGATE_IDENTITY", self.file("certs/admin"));
        }
        self.wan.inside(region, || command.output()).expect("the region").expect("the binary runs")
    }

    /// The same, which has to succeed: its standard output.
    #[track_caller]
    pub fn command(&self, region: &str, url: &str, arguments: &[&str]) -> String {
        let output = self.run(region, url, arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out.into_owned()
    }

    /// Asks a control node for its status; `None` while it cannot say.
    #[must_use]
    pub fn status(&self, node: usize) -> Option<Value> {
        let output = self.run(CONTROL[node - 1], &self.admin(node), &["control", "status", "--json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// One request of an edge's listener, on a connection of its own.
    #[must_use]
    pub fn ask(&self, edge: &str, key: &str) -> Raw {
        self.wan.inside(place(edge).1, || completion(listener(edge), key)).expect("the region")
    }

    /// `GET` of an edge's listener.
    #[must_use]
    pub fn get(&self, edge: &str, path: &str, key: &str) -> Raw {
        self.wan.inside(place(edge).1, || exchange(listener(edge), &get(path, key))).expect("the region")
    }

    /// `GET` of an edge's operations port.
    #[must_use]
    pub fn operations(&self, edge: &str, path: &str) -> Raw {
        let mut address = listener(edge);
        address.set_port(address.port() + 100);
        self.wan.inside(place(edge).1, || exchange(address, &get(path, ""))).expect("the region")
    }

    /// How an edge sees a provider's endpoint when it chooses, without sending anything there: what `/explain` says of it for a request that
    /// goes to `elsewhere` first. `None` while there is no answer.
    #[must_use]
    pub fn considered(&self, edge: &str, key: &str, provider: &str, elsewhere: &str) -> Option<Value> {
        let request = post_preferring(key, false, elsewhere);
        let answer = self.wan.inside(place(edge).1, || exchange(listener(edge), &request)).expect("the region").json()?;
        let explained = self.operations(edge, &format!("/explain/{}", answer["id"].as_str()?)).json()?;
        let considered = explained["decision"]["choices"][0]["considered"].as_array()?;
        considered.iter().find(|one| one["provider"] == provider).cloned()
    }

    /// A metric of an edge whose name and labels begin and contain as given.
    #[must_use]
    pub fn metric(&self, edge: &str, name: &str, label: &str) -> Option<f64> {
        let metrics = self.operations(edge, "/metrics").text;
        let line = metrics.lines().find(|line| line.starts_with(name) && line.contains(label))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in self.running.lock().values_mut() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// Role and region in a name such as `control-2` or `edge-us-1`.
fn place(name: &str) -> (&str, &str) {
    let mut parts = name.split('-');
    let role = parts.next().unwrap_or_default();
    let second = parts.next().unwrap_or_default();
    let region = second.parse::<usize>().map_or(second, |node| CONTROL[node - 1]);
    (role, region)
}

/// Where an edge listens, inside its region.
#[must_use]
pub fn listener(edge: &str) -> SocketAddr {
    let number: u16 = edge.rsplit('-').next().and_then(|number| number.parse().ok()).expect("a name with a number");
    SocketAddr::from((Ipv4Addr::LOCALHOST, 8000 + number))
}

/// Asks for a completion, from a thread inside the region.
#[must_use]
pub fn completion(address: SocketAddr, key: &str) -> Raw {
    exchange(address, &post(key, false))
}

/// The bytes of a request for a completion.
#[must_use]
pub fn post(key: &str, streamed: bool) -> String {
    post_preferring(key, streamed, "")
}

/// The same, of one that goes to `provider` first, if that is not empty.
fn post_preferring(key: &str, streamed: bool, provider: &str) -> String {
    let order = if provider.is_empty() { String::new() } else { format!(r#""provider":{{"order":["{provider}"]}},"#) };
    let asked = r#""max_tokens":100000,"messages":[{"role":"user","content":"hello"}]"#;
    let body = format!(r#"{{"model":"{MODEL}","stream":{streamed},{order}{asked}}}"#);
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {key}\r\nconnection: close\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn get(path: &str, key: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n")
}

fn exchange(address: SocketAddr, request: &str) -> Raw {
    let answer = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    match answer() {
        Ok(text) => Raw { status: text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0), text },
        Err(error) => Raw { status: 0, text: error.to_string() },
    }
}

/// Waits until something is so and says how long it took.
///
/// # Panics
/// After [`PATIENCE`], with what was waited for.
#[track_caller]
pub fn until(what: impl std::fmt::Display, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}
