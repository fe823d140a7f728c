//! Processes under test: started with their output in a file, ended with everything below them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::interrupt;
use crate::process::ProcessTable;

/// Time between the polite signal and the other one.
const TERMINATE: Duration = Duration::from_secs(3);
/// How often a starting process is asked whether it answers; bounds the error of the start-up figure.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    started: Instant,
}

impl Process {
    /// Starts `command`; its output goes to `<directory>/<name>.log`.
    pub(crate) fn start(name: &str, command: &mut Command, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let errors = output.try_clone().context("duplicate the log file")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("start {name}: {}", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log, started })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a request to `path` is answered with 200; returns the time since the start.
    pub(crate) fn wait_for_answer(&mut self, address: SocketAddr, request: &[u8], patience: Duration) -> Result<Duration> {
        loop {
            if answers(address, request) {
                return Ok(self.started.elapsed());
            }
            interrupt::check()?;
            if let Some(status) = self.child.try_wait().context("look at the process")? {
                bail!("{} ended with {status} before it answered; its last words:\n{}", self.name, self.last_words());
            }
            if self.started.elapsed() > patience {
                bail!("{} did not answer within {patience:?}; its last words:\n{}", self.name, self.last_words());
            }
            thread::sleep(ASK_EVERY);
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().map(|line| format!("    {line}\n")).collect()
    }
}

/// Ends the process and its descendants.
impl Drop for Process {
    fn drop(&mut self) {
        let tree = ProcessTable::read().tree(self.pid());
        signal(self.pid(), Signal::TERM);
        let deadline = Instant::now() + TERMINATE;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // Still here: neither it nor its workers will go by themselves.
            tree.into_iter().for_each(|pid| signal(pid, Signal::KILL));
            let _ = self.child.wait();
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Gone already is what we want.
        let _ = kill_process(pid, signal);
    }
}

/// One whole exchange on a fresh connection; true when the status is 200.
fn answers(address: SocketAddr, request: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return false;
    };
    let patience = Some(Duration::from_secs(10));
    if stream.set_read_timeout(patience).and(stream.write_all(request)).is_err() {
        return false;
    }
    let mut start = [0; 12];
    stream.read_exact(&mut start).is_ok() && start.ends_with(b" 200")
}

/// A port that was free a moment ago. Another process could take it in between; the start then fails with its name.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    listener.local_addr().context("find a free port")
}

/// Full path of a program in the usual places; services live in `sbin`, which a user's `PATH` may lack.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|directory| directory.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_early_is_reported_with_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such option; exit 3"]);
        let mut process = Process::start("broken", &mut command, directory.path()).unwrap();
        let error = process.wait_for_answer(free_address().unwrap(), b"", Duration::from_secs(10)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("broken ended with") && text.contains("no such option"), "{text}");
    }

    #[test]
    fn programs_are_found() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program-anywhere"), None);
    }
}
