//! How fast a key spends here. Floating point: it sizes purchases and decides nothing.

use crate::clock::Micros;
use crate::usage::Usage;
use crate::wallet::Demand;

/// A moving average over whole seconds.
#[derive(Debug, Default)]
pub(super) struct Pace {
    second: Micros,
    sums: [f64; 5],
    rates: [f64; 5],
    seen: Micros,
}

const SECOND: Micros = 1_000_000;
/// Weight of the newest second: a burst is believed within three.
const NEWEST: f64 = 0.4;
/// A purchase lasts about this many seconds.
const AHEAD: f64 = 2.0;

impl Pace {
    pub(super) fn note(&mut self, usage: &Usage, now: Micros) {
        self.seen = now;
        let second = now / SECOND;
        if second != self.second {
            // Seconds without a request count as zero; after twenty of them nothing is left.
            for missed in 0..second.saturating_sub(self.second).min(20) {
                for (rate, sum) in self.rates.iter_mut().zip(self.sums) {
                    let newest = if missed == 0 { sum } else { 0.0 };
                    *rate += NEWEST * (newest - *rate);
                }
            }
            self.sums = [0.0; 5];
            self.second = second;
        }
        let parts = [usage.requests.into(), usage.input_tokens, usage.output_tokens, usage.micro_dollars, u64::from(usage.free)];
        for (sum, part) in self.sums.iter_mut().zip(parts) {
            *sum += part as f64;
        }
    }

    /// Requests per second; a second that has already more of them counts before it is over.
    pub(super) fn rate(&self) -> f64 {
        self.rates[0].max(self.sums[0] * NEWEST)
    }

    pub(super) fn seen(&self) -> Micros {
        self.seen
    }

    /// Two seconds' worth.
    pub(super) fn demand(&self) -> Demand {
        let part = |index: usize| (self.rates[index].max(self.sums[index] * NEWEST) * AHEAD).ceil() as u64;
        let requests = u32::try_from(part(0)).unwrap_or(u32::MAX);
        let want = Usage {
            requests,
            input_tokens: part(1),
            output_tokens: part(2),
            micro_dollars: part(3),
            free: self.rates[4] > 0.0 || self.sums[4] > 0.0,
        };
        Demand { want, slots: requests.max(1) }
    }
}
