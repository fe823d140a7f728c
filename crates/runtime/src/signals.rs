//! Signals of the operating system, as futures.
//!
//! SIGTERM and SIGINT ask for an orderly stop, SIGHUP for a reload. What a stop or a reload means is the role's business.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Stop signals, listened for from the moment of installation on.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes the signals over from the system's default, which is to end the process at once.
    pub fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Completes with the name of the next stop signal. A second one usually means that the operator is out of patience.
    pub async fn next(&mut self) -> &'static str {
        // Losing a branch is safe: a signal that came meanwhile stays pending in its own stream.
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Completes with the name of the signal when the process is asked to stop.
pub async fn wait_for_stop() -> io::Result<&'static str> {
    Ok(StopSignals::install()?.next().await)
}

/// Reload signals (SIGHUP). Several that arrive before they are looked at count as one.
#[derive(Debug)]
pub struct ReloadSignals {
    hangup: Signal,
}

impl ReloadSignals {
    /// Completes at the next signal; `None` when no more can come.
    pub async fn next(&mut self) -> Option<()> {
        self.hangup.recv().await
    }
}

/// Takes SIGHUP over from the system's default, which is to end the process.
pub fn reload_signals() -> io::Result<ReloadSignals> {
    Ok(ReloadSignals { hangup: signal(SignalKind::hangup())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The standard library cannot send signals; the shell can.
    fn send_to_self(name: &str) {
        let status = std::process::Command::new("kill").args(["-s", name, &std::process::id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    #[tokio::test]
    async fn hangup_is_a_reload_and_terminate_is_a_stop() {
        let mut reloads = reload_signals().unwrap();
        let mut stops = StopSignals::install().unwrap();
        send_to_self("HUP");
        assert_eq!(reloads.next().await, Some(()));
        send_to_self("TERM");
        assert_eq!(stops.next().await, "SIGTERM");
        send_to_self("INT");
        assert_eq!(stops.next().await, "SIGINT");
    }
}
