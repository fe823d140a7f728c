//! The time of the stores: microseconds since the Unix epoch.
//!
//! Microseconds, never nanoseconds: the same numbers are doubles in Lua, exact up to 2^53, and today's epoch takes 51 bits.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch.
pub type Micros = u64;

/// What a store asks for the time. A trait because tests and the simulator bring their own.
pub trait Clock: Send + Sync + 'static {
    /// Now, in microseconds since the Unix epoch.
    fn now(&self) -> Micros;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        // A machine whose clock stands before 1970 counts from 1970: every period is then the first one.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}
