//! Stopping on Ctrl-C and SIGTERM: long loops look here, return an error, and destructors end the processes they started.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// How often a waiting loop looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Starts the thread that listens; it lives as long as the process. Every loop ends within a second or so.
pub(crate) fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            // Both branches only wait; dropping either loses nothing.
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            REQUESTED.store(true, Ordering::Relaxed);
        });
    })?;
    Ok(())
}

/// Sleeps until `instant`; an error when the user asked to stop.
pub(crate) fn sleep_until(instant: Instant) -> Result<()> {
    loop {
        check()?;
        let left = instant.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(LOOK_EVERY));
    }
}

/// The user asked to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// An error when the user asked to stop.
pub(crate) fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}
