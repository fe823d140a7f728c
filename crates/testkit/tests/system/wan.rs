//! The long-distance network of the test kit is as long, as lossy and as cut as it was told.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says why it was skipped")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tidegate_testkit::Wan;

/// A region each, 40 ms apart; `None` with the reason on standard error where namespaces are not allowed.
fn wan() -> Option<Wan> {
    Wan::open(&["here", "there"], Duration::from_millis(40)).inspect_err(|why| eprintln!("skipped: {why}")).ok()
}

/// Answers every connection with what it sends first, until the test is over.
fn echo(wan: &Wan) -> SocketAddr {
    let listener = wan.inside("there", || TcpListener::bind((wan.address("there", 2), 0))).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_ok() {
                let _ = stream.write_all(&byte);
            }
        }
    });
    address
}

fn round_trip(wan: &Wan, address: SocketAddr) -> std::io::Result<Duration> {
    wan.inside("here", || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let sent = Instant::now();
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        Ok(sent.elapsed())
    })?
}

#[test]
fn a_path_takes_its_time_and_can_be_cut_one_way() {
    let Some(wan) = wan() else { return };
    let address = echo(&wan);
    let time = round_trip(&wan, address).unwrap();
    assert!((Duration::from_millis(80)..Duration::from_millis(500)).contains(&time), "{time:?}");

    // Requests arrive, answers do not.
    wan.set("there", "here", |path| path.cut = true);
    assert!(round_trip(&wan, address).is_err());
    wan.set("there", "here", |path| path.cut = false);
    assert!(round_trip(&wan, address).is_ok());

    wan.isolate("there", true);
    assert!(round_trip(&wan, address).is_err());
    wan.isolate("there", false);
    assert!(round_trip(&wan, address).is_ok());
}

#[test]
fn a_lossy_path_still_carries_tcp() {
    let Some(wan) = wan() else { return };
    let address = echo(&wan);
    wan.set("here", "there", |path| *path = tidegate_testkit::Path { loss: 0.2, jitter: Duration::from_millis(5), ..*path });
    let reached = (0..10).filter(|_| round_trip(&wan, address).is_ok()).count();
    assert!(reached >= 5, "{reached} of 10");
}
