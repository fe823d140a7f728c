//! Who takes part: what each contender is, and how it is started.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::certificate::Certificate;
use super::launch::{Process, find_program, free_address};
use super::tidegate::Part;
use super::{packages, proxies, tidegate};
use crate::loopback::Target;
use crate::scenario::Scenario;

/// Key that peers with a key check expect.
pub(crate) const PEER_KEY: &str = "sk-loadtest-peer";

/// Patience with a starting process; LiteLLM needs most of it.
const START: Duration = Duration::from_secs(90);

/// Valgrind starts a program some hundred times slower than the kernel does.
const START_UNDER_VALGRIND: Duration = Duration::from_secs(180);

/// Name of the access log in a contender's folder.
const ACCESS_LOG: &str = "access.log";
/// Name of the journal's folder there.
const LEDGER: &str = "ledger";
/// Name of the profile there, when it runs under callgrind.
pub(crate) const PROFILE: &str = "callgrind.out";

/// What a contender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The mock without anything in between.
    Direct,
    /// The unit F.
    Floor,
    FloorPerCore,
    Raw,
    Nginx,
    Haproxy,
    Tidegate,
    /// The same with one runtime over all cores instead of one per core.
    TidegateShared,
    Litellm,
    Portkey,
    /// A gateway that somebody else started.
    External,
}

impl Kind {
    /// Starts within a second and costs little to start again.
    pub(crate) fn is_light(self) -> bool {
        matches!(self, Self::Floor | Self::FloorPerCore | Self::Raw | Self::Nginx | Self::Haproxy | Self::Tidegate | Self::TidegateShared)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor F",
            Self::FloorPerCore => "floor per core",
            Self::Raw => "raw relay",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Tidegate => "tidegate",
            Self::TidegateShared => "tidegate shared",
            Self::Litellm => "litellm",
            Self::Portkey => "portkey",
            Self::External => "external",
        }
    }
}

/// One participant, running.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) plain: Target,
    pub(crate) secure: Option<Target>,
    /// Headers of every request.
    pub(crate) headers: Vec<(String, String)>,
    /// The process to account for; none for what we must not measure.
    pub(crate) pid: Option<u32>,
    /// Time from the start of the process to its first answer.
    pub(crate) started_in: Duration,
    /// Its files; empty for what we did not start.
    pub(crate) folder: PathBuf,
    /// Ends the process when the contender goes.
    _process: Option<Process>,
    /// Go after the process.
    _leftovers: Option<Leftovers>,
}

/// What is written for each request: millions of lines and records have served their purpose when the contender goes.
#[derive(Debug)]
struct Leftovers {
    access_log: PathBuf,
    ledger: PathBuf,
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        // Most contenders never had any.
        let _ = std::fs::remove_file(&self.access_log);
        let _ = std::fs::remove_dir_all(&self.ledger);
    }
}

/// What starting a contender needs.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) directory: &'a Path,
    /// Number of processes started so far.
    pub(crate) started: Cell<usize>,
    pub(crate) upstream: SocketAddr,
    pub(crate) certificate: &'a Certificate,
    pub(crate) workers: usize,
    pub(crate) tidegate: Option<&'a Path>,
    /// Parts that Tidegate is to do without.
    pub(crate) without: &'a [Part],
    /// Every scenario that a model is needed for.
    pub(crate) scenarios: &'a [Scenario],
    /// Valgrind, when every contender is to be run under callgrind; its profile is [`PROFILE`] in the contender's folder.
    pub(crate) valgrind: Option<&'a Path>,
}

/// Size of Tidegate's configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) keys: usize,
    pub(crate) extra_models: usize,
    /// Serve every scenario and dialect; else only `bench/json`, so that the endpoint count is exact.
    pub(crate) all_models: bool,
}

impl Size {
    /// Ten keys, every scenario.
    pub(crate) const USUAL: Self = Self { keys: 10, extra_models: 0, all_models: true };
}

/// The upstream of everyone.
pub(crate) fn start_mock(directory: &Path, address: Option<SocketAddr>) -> Result<(Process, SocketAddr)> {
    let address = address.map_or_else(free_address, Ok)?;
    let mut process = Process::start("mock", &mut own(["mock", "--listen", &address.to_string()])?, directory)?;
    process.wait_for_answer(address, b"GET /v1/models HTTP/1.1\r\nhost: mock\r\n\r\n", START)?;
    Ok((process, address))
}

impl Ground<'_> {
    /// Starts a contender and waits for its first answer.
    pub(crate) fn start(&self, kind: Kind) -> Result<Contender> {
        self.start_as(kind, kind.name(), Size::USUAL)
    }

    /// The same under another name, and with another size when it is Tidegate.
    pub(crate) fn start_as(&self, kind: Kind, name: &str, size: Size) -> Result<Contender> {
        let listen = free_address()?;
        let folder = self.folder(name)?;
        let setup = |secure| proxies::Setup {
            listen,
            secure,
            upstream: self.upstream,
            certificate: self.certificate,
            workers: self.workers,
            directory: &folder,
        };
        let addresses = ["--listen", &listen.to_string(), "--upstream", &self.upstream.to_string(), "--threads", &self.workers.to_string()]
            .map(str::to_owned);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).chain(addresses.clone()).collect::<Vec<_>>();
        let mut secure = None;
        let (mut command, headers) = match kind {
            Kind::Direct | Kind::External => {
                return Ok(Contender { name: name.to_owned(), ..self.direct()? });
            }
            Kind::Floor => (own(words(&["floor", "--model", "shared"]))?, Vec::new()),
            Kind::FloorPerCore => (own(words(&["floor", "--model", "per-core"]))?, Vec::new()),
            Kind::Raw => (own(words(&["raw"]))?, Vec::new()),
            Kind::Nginx | Kind::Haproxy => {
                let program = find_program(kind.name()).with_context(|| format!("{} is not installed", kind.name()))?;
                let address = *secure.insert(free_address()?);
                let command = match kind {
                    Kind::Nginx => proxies::nginx(&setup(address), &program)?,
                    _ => proxies::haproxy(&setup(address), &program)?,
                };
                (command, Vec::new())
            }
            Kind::Tidegate | Kind::TidegateShared => {
                let address = *secure.insert(free_address()?);
                let runtime = if kind == Kind::Tidegate { "per-core" } else { "shared" };
                (self.tidegate_command(listen, address, &folder, size, runtime)?, bearer(&tidegate::key(0)))
            }
            Kind::Litellm => (packages::litellm(listen, self.upstream, self.scenarios, self.workers, &folder)?, bearer(PEER_KEY)),
            Kind::Portkey => {
                let headers = packages::portkey_headers(self.upstream).into_iter().chain(bearer(PEER_KEY)).collect();
                (packages::portkey(listen)?, headers)
            }
        };
        let mut patience = START;
        if let Some(valgrind) = self.valgrind {
            command = under_callgrind(valgrind, &command, &folder);
            patience = START_UNDER_VALGRIND;
        }
        let mut process = Process::start(name, &mut command, &folder)?;
        let started_in = process.wait_for_answer(listen, &first_request(listen, &headers), patience)?;
        let target = |scheme: &str, address: SocketAddr| Target::parse(&format!("{scheme}://{address}/v1"));
        Ok(Contender {
            kind,
            name: name.to_owned(),
            plain: target("http", listen)?,
            secure: secure.map(|address| target("https", address)).transpose()?,
            headers,
            pid: Some(process.pid()),
            started_in,
            _process: Some(process),
            _leftovers: Some(Leftovers { access_log: folder.join(ACCESS_LOG), ledger: folder.join(LEDGER) }),
            folder,
        })
    }

    /// A folder of its own for each process: a fresh one must not touch the files of one that still runs.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let number = self.started.get() + 1;
        self.started.set(number);
        let folder = self.directory.join(format!("{number:02}-{}", name.replace(' ', "-")));
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(folder)
    }

    fn direct(&self) -> Result<Contender> {
        Ok(Contender {
            kind: Kind::Direct,
            name: Kind::Direct.name().to_owned(),
            plain: Target::parse(&format!("http://{}/v1", self.upstream))?,
            secure: None,
            headers: Vec::new(),
            pid: None,
            started_in: Duration::ZERO,
            folder: PathBuf::new(),
            _process: None,
            _leftovers: None,
        })
    }

    fn tidegate_command(
        &self,
        listen: SocketAddr,
        secure: SocketAddr,
        folder: &Path,
        size: Size,
        runtime: &'static str,
    ) -> Result<Command> {
        let program = self.tidegate.context("there is no Tidegate binary")?;
        let (access_log, ledger) = (folder.join(ACCESS_LOG), folder.join(LEDGER));
        let text = tidegate::config(&tidegate::Setup {
            listen,
            secure: Some((secure, self.certificate)),
            operations: free_address()?,
            upstream: self.upstream,
            access_log: &access_log,
            ledger: &ledger,
            scenarios: if size.all_models { self.scenarios } else { &[Scenario::Json] },
            translated: size.all_models,
            extra_models: size.extra_models,
            keys: size.keys,
            runtime,
            without: self.without,
        });
        let file = folder.join("tidegate.yaml");
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        let mut command = Command::new(program);
        command.args(["edge", "--config"]).arg(file).env(tidegate::UPSTREAM_KEY_VARIABLE, PEER_KEY);
        Ok(command)
    }
}

/// A contender that somebody else started: `name=url#pid`, optionally followed by `;header: value` parts.
pub(crate) fn external(text: &str) -> Result<Contender> {
    let mut parts = text.split(';');
    let address = parts.next().unwrap_or_default();
    let (name, url) = address.split_once('=').context("write a peer as name=url#pid")?;
    let (url, pid) = url.split_once('#').context("a peer needs the id of its process: name=url#pid")?;
    let headers = parts.map(|header| {
        let (name, value) = header.split_once(':').with_context(|| format!("header `{header}` has no colon"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    });
    let plain = Target::parse(url)?;
    if plain.tls {
        bail!("peer `{name}`: the figures need its plain HTTP address");
    }
    Ok(Contender {
        kind: Kind::External,
        name: name.to_owned(),
        plain,
        secure: None,
        headers: headers.collect::<Result<_>>()?,
        pid: Some(pid.parse().with_context(|| format!("`{pid}` is not a process id"))?),
        started_in: Duration::ZERO,
        folder: PathBuf::new(),
        _process: None,
        _leftovers: None,
    })
}

fn bearer(key: &str) -> Vec<(String, String)> {
    vec![("authorization".to_owned(), format!("Bearer {key}"))]
}

/// A small real request: a process has started when it answers one.
pub(crate) fn first_request(address: SocketAddr, headers: &[(String, String)]) -> Vec<u8> {
    let body = format!("{{\"model\":\"{}/json\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello.\"}}]}}", tidegate::SAME_DIALECT);
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The same command under callgrind. The tool starts no processes of its own, so that the process id stays that of the program.
fn under_callgrind(valgrind: &Path, command: &Command, folder: &Path) -> Command {
    let mut wrapped = Command::new(valgrind);
    wrapped.args(["--tool=callgrind", "--dump-line=yes"]).arg(format!("--callgrind-out-file={}", folder.join(PROFILE).display()));
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped
}

/// This program with other arguments.
fn own<W: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = W>) -> Result<Command> {
    let program: PathBuf = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command.args(words);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_peer_names_address_process_and_headers() {
        let peer = external("busbar=http://127.0.0.1:4000/v1#77;authorization: Bearer x").unwrap();
        assert_eq!((peer.name.as_str(), peer.pid, peer.plain.address.port()), ("busbar", Some(77), 4000));
        assert_eq!(peer.headers, [("authorization".to_owned(), "Bearer x".to_owned())]);
        for wrong in ["busbar", "busbar=http://127.0.0.1:1", "x=http://192.0.2.1:1#5", "x=http://127.0.0.1:1#y"] {
            assert!(external(wrong).is_err(), "{wrong}");
        }
    }
}
