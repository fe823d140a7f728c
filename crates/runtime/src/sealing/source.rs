//! Where an edge has its key-encryption keys from: a file, or a command that asks a key management service for them.
//!
//! The keys are held in memory for the life of the process. They are asked for again when something was sealed with a key that is not
//! among them, so that a rotation needs no restart; as long as that fails, the keys that are there are used on.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{KekError, Keyring, Place, SealError, Sealed};

/// Where the keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KekSource {
    /// A key file.
    File(PathBuf),
    /// A program and its arguments. What it prints is a key file; it ends with code 0 within `patience`. It is started without a shell and
    /// without input, with this process's environment and standard error.
    Command {
        /// The program, by path or by name, and what it is given.
        command: Vec<String>,
        /// Longest time that it may take.
        patience: Duration,
    },
}

impl KekSource {
    /// Gets the keys. Blocks for as long as the source takes.
    ///
    /// # Errors
    /// A source that gives no usable keys; the message never repeats what it gave.
    pub fn read(&self) -> Result<Keyring, KekError> {
        match self {
            KekSource::File(path) => Keyring::read(path),
            KekSource::Command { command, patience } => {
                let name = command.first().cloned().unwrap_or_default();
                let text = output_of(command, *patience).map_err(|problem| KekError::Command { command: name.clone(), problem })?;
                Keyring::parse(&PathBuf::from(format!("what `{name}` printed")), &text)
            }
        }
    }
}

/// Keys in memory, and where to get more.
#[derive(Debug)]
pub struct KekStore {
    source: KekSource,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    keyring: Arc<Keyring>,
    asked: Instant,
}

impl KekStore {
    /// Asks the source, again and again for a while: a key management service may be away for a moment when a whole mesh starts. Blocks.
    ///
    /// # Errors
    /// The last answer of the source.
    pub fn open(source: KekSource) -> Result<KekStore, KekError> {
        let mut pauses = RETRY_PAUSES.iter();
        loop {
            let error = match source.read() {
                Ok(keyring) => {
                    let held = Held { keyring: Arc::new(keyring), asked: Instant::now() };
                    return Ok(KekStore { source, held: Mutex::new(held) });
                }
                Err(error) => error,
            };
            // A file does not get better by waiting.
            let Some(pause) = pauses.next().filter(|_| matches!(error, KekError::Command { .. })) else { return Err(error) };
            tracing::warn!(%error, again_ms = pause.as_millis() as u64, "the keys that open sealed credentials are not to be had yet");
            std::thread::sleep(*pause);
        }
    }

    /// Opens a value that was sealed for `place`; asks the source for the key if it is not there, at most once in [`ASK_EVERY`]. May block.
    ///
    /// # Errors
    /// As [`Keyring::open`].
    pub fn open_sealed(&self, place: Place<'_>, sealed: &Sealed) -> Result<SecretString, SealError> {
        let mut keyring = Arc::clone(&self.held.lock().keyring);
        if keyring.get(&sealed.kek_id).is_none() {
            keyring = self.ask_again();
        }
        keyring.open(place, sealed)
    }

    fn ask_again(&self) -> Arc<Keyring> {
        // Others wait for the same answer.
        let mut held = self.held.lock();
        if held.asked.elapsed() >= ASK_EVERY {
            match self.source.read() {
                Ok(keyring) => {
                    tracing::info!(keys = ?keyring.ids().collect::<Vec<_>>(), "the keys that open sealed credentials were read again");
                    held.keyring = Arc::new(keyring);
                }
                Err(error) => tracing::warn!(%error, "no new keys for sealed credentials; those that are there are used on"),
            }
            held.asked = Instant::now();
        }
        Arc::clone(&held.keyring)
    }

    #[cfg(test)]
    fn let_time_pass(&self) {
        let mut held = self.held.lock();
        held.asked = held.asked.checked_sub(ASK_EVERY).unwrap_or(held.asked);
    }
}

/// What a command prints, if it ends well in time.
fn output_of(command: &[String], patience: Duration) -> Result<Zeroizing<String>, String> {
    let deadline = Instant::now() + patience;
    let Some((program, arguments)) = command.split_first() else { return Err("the command is empty".to_owned()) };
    let started = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| format!("it does not start: {error}"))?;
    let printed = read_until(&mut child, deadline);
    let printed = match printed {
        Some(printed) => printed,
        None => {
            end(&mut child);
            return Err(format!("it did not end within {} s and was stopped", patience.as_secs_f64()));
        }
    };
    if printed.len() > MOST_BYTES {
        end(&mut child);
        return Err(format!("it printed more than {MOST_BYTES} bytes, which is no key file"));
    }
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Ok(None) => {
                end(&mut child);
                return Err(format!("it did not end within {} s and was stopped", patience.as_secs_f64()));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    if !status.success() {
        return Err(format!("it failed: {status}; see its own words on standard error"));
    }
    let text = std::str::from_utf8(&printed).map_err(|_| "what it printed is not text".to_owned())?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// All that it prints, or as much as proves that it is too much; nothing when that takes too long.
fn read_until(child: &mut Child, deadline: Instant) -> Option<Zeroizing<Vec<u8>>> {
    let pipe = child.stdout.take()?;
    let (tell, told) = mpsc::sync_channel(1);
    // It ends with the child, whose pipe it reads.
    std::thread::spawn(move || {
        // Never moves while it grows: no copy is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES + 1));
        let _ = pipe.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes);
        let _ = tell.send(bytes);
    });
    told.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// A thousand keys.
const MOST_BYTES: usize = 64 << 10;
/// Between two looks at a command that has printed everything and is about to end.
const LOOK: Duration = Duration::from_millis(2);
const RETRY_PAUSES: [Duration; 4] = [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// A key that the source does not have either is not asked for with every revision.
pub const ASK_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::super::Kek;
    use super::*;

    const PLACE: Place<'_> = Place { cluster: "c", credential: "openai/main", version: 1 };

    fn shell(script: &str) -> KekSource {
        KekSource::Command { command: ["sh", "-c", script].map(str::to_owned).to_vec(), patience: Duration::from_secs(20) }
    }

    fn problem(source: &KekSource) -> String {
        match source.read() {
            Err(error) => error.to_string(),
            Ok(keyring) => panic!("{:?}", keyring.ids().collect::<Vec<_>>()),
        }
    }

    #[test]
    fn a_commands_output_is_a_key_file() {
        let kek = Kek::generate("k1").unwrap();
        let sealed = kek.public().seal(PLACE, &"sk-secret".into()).unwrap();
        let line = kek.to_line();
        let store = KekStore::open(shell(&format!("echo '# of the service'; echo {}", line.expose_secret()))).unwrap();
        assert_eq!(store.open_sealed(PLACE, &sealed).unwrap().expose_secret(), "sk-secret");
    }

    #[test]
    fn what_gives_no_keys_is_told_without_what_it_gave() {
        let secret = "kek-v1:k1:not-base64-at-all";
        for (source, expected) in [
            (shell(&format!("echo {secret}")), "line 1"),
            (shell(&format!("echo {secret}; exit 3")), "exit status: 3"),
            (shell("true"), "holds no key"),
            (shell("head -c 100000 /dev/zero"), "more than 65536 bytes"),
            (KekSource::Command { command: vec!["/nowhere/unwrap".to_owned()], patience: Duration::from_secs(20) }, "does not start"),
            (KekSource::Command { command: Vec::new(), patience: Duration::from_secs(20) }, "empty"),
        ] {
            let problem = problem(&source);
            assert!(problem.contains(expected), "{expected}: {problem}");
            assert!(!problem.contains("base64-at-all"), "{problem}");
        }
        let hangs = KekSource::Command {
            command: ["sh", "-c", "exec sleep 600"].map(str::to_owned).to_vec(),
            patience: Duration::from_millis(200),
        };
        assert!(problem(&hangs).contains("within 0.2 s"));
        let prints_and_hangs = KekSource::Command {
            command: ["sh", "-c", "echo x; exec 1>&-; exec sleep 600"].map(str::to_owned).to_vec(),
            patience: Duration::from_millis(200),
        };
        assert!(problem(&prints_and_hangs).contains("was stopped"));
    }

    #[test]
    fn a_new_key_is_asked_for_when_it_is_needed_and_a_source_that_is_away_takes_nothing_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("answer");
        let (old, new) = (Kek::generate("old").unwrap(), Kek::generate("new").unwrap());
        let by_old = old.public().seal(PLACE, &"one".into()).unwrap();
        let by_new = new.public().seal(PLACE, &"two".into()).unwrap();
        std::fs::write(&path, old.to_line().expose_secret()).unwrap();
        let count = directory.path().join("count");
        let store = KekStore::open(shell(&format!("echo . >> {}; cat {}", count.display(), path.display()))).unwrap();
        let asked = || std::fs::read_to_string(&count).unwrap().lines().count();

        let unknown = store.open_sealed(PLACE, &by_new).unwrap_err().to_string();
        assert!(unknown.contains("no key-encryption key `new`"), "{unknown}");
        assert_eq!(asked(), 1, "a moment ago");
        std::fs::remove_file(&path).unwrap();
        store.let_time_pass();
        assert!(store.open_sealed(PLACE, &by_new).is_err());
        assert_eq!(asked(), 2);
        assert_eq!(store.open_sealed(PLACE, &by_old).unwrap().expose_secret(), "one", "the service is away");

        let both = format!("{}\n{}\n", new.to_line().expose_secret(), old.to_line().expose_secret());
        std::fs::write(&path, both).unwrap();
        store.let_time_pass();
        assert_eq!(store.open_sealed(PLACE, &by_new).unwrap().expose_secret(), "two");
        assert_eq!(store.open_sealed(PLACE, &by_old).unwrap().expose_secret(), "one");
        assert_eq!(asked(), 3);
    }
}
