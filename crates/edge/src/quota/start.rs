//! Opening the store of counters, and telling it what the ledger knows.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tidegate_ledger::{Filter, Period as SumPeriod, Rollups, Row};
use tidegate_quota::{
    Bucket, Funding, Limit, MemoryStore, Meter, Period, QuotaStore, RedisOptions, RedisStore, Scope, SpentEntry, StoreError, SystemClock,
    Window,
};

use super::estimate::micro_dollars;
use crate::auth::{Account, Keys, Owners};
use crate::config::{QuotaConfig, StoreConfig};

/// Opens the store; true when it outlives this process. A Redis that is away now is one that is away: the edge starts all the same.
///
/// # Errors
/// An address or a certificate that cannot be understood.
pub(crate) fn open(config: &QuotaConfig) -> Result<(Arc<dyn QuotaStore>, bool), StoreError> {
    Ok(match &config.store {
        StoreConfig::Memory => (Arc::new(MemoryStore::new(Arc::new(SystemClock))), false),
        StoreConfig::Redis(options) => (Arc::new(RedisStore::new(RedisOptions::clone(options))?), true),
    })
}

/// Raises the spend counters of every limit to what the ledger's sums say. Never lowers one, so that it may be done at any time: after a
/// start, and when a new configuration declares new limits.
pub(crate) async fn restore(store: &dyn QuotaStore, keys: &Keys, owners: &Arc<Owners>, rollups: &parking_lot::Mutex<Rollups>, now_us: u64) {
    for (organisation, spent) in spent(keys, owners, rollups, now_us) {
        if let Err(error) = store.restore(&organisation, &spent).await {
            tracing::error!(%error, %organisation, "what was spent before could not be told to the store of counters");
        }
    }
}

fn spent(keys: &Keys, owners: &Arc<Owners>, rollups: &parking_lot::Mutex<Rollups>, now_us: u64) -> BTreeMap<Arc<str>, Vec<SpentEntry>> {
    let mut entries: BTreeMap<Arc<str>, Vec<SpentEntry>> = BTreeMap::new();
    let mut seen: HashSet<Arc<str>> = HashSet::new();
    let rollups = rollups.lock();
    for (caller, account) in keys.accounts(owners) {
        let Some(limits) = &account.limits else { continue };
        for bucket in limits.buckets(limits.select_all()) {
            let Meter::Budget(window) = bucket.meter() else { continue };
            if !bucket.limit.dimension.is_spend() || !seen.insert(Arc::clone(&bucket.key)) {
                continue;
            }
            let period = Period::containing(now_us, window, bucket.limit.utc_offset_minutes);
            let micro_dollars = spent_of(&rollups, &account, caller.counted_as(), bucket, window, period);
            if bucket.limit.funding == Funding::Prepaid {
                // Credits are not spent before the store knows what was: also that it was nothing.
                entries.entry(Arc::clone(&limits.subject().organisation)).or_default();
            }
            if micro_dollars > 0 {
                let entry = SpentEntry { bucket: Arc::clone(bucket), period, micro_dollars };
                entries.entry(Arc::clone(&limits.subject().organisation)).or_default().push(entry);
            }
        }
    }
    entries
}

/// What was charged within a limit's period, micro-dollars.
fn spent_of(rollups: &Rollups, account: &Account, key: &str, bucket: &Bucket, window: Window, period: Period) -> u64 {
    let filter = filter_of(account, key, bucket.limit.scope);
    let (model, provider) = (&bucket.limit.model, &bucket.limit.provider);
    if window == Window::Total && model.is_none() && provider.is_none() {
        return micro_dollars(rollups.total(&filter).charged);
    }
    let of_limit = |row: &Row| of_limit(&bucket.limit, row);
    let (start_ms, end_ms) = (period.start / 1_000, period.end / 1_000);
    let day = |ms: u64| SumPeriod::day_of(ms).number();
    // Days where they fit; a day that begins at another hour is put together from hours, as far back as those are kept.
    let rows = if window == Window::Total || bucket.limit.utc_offset_minutes == 0 {
        let until = if window == Window::Total { 0 } else { day(end_ms) };
        rollups.days(&Filter { from: day(start_ms), until, ..filter })
    } else {
        let hour = |ms: u64| SumPeriod::hour_of(ms).number();
        rollups.hours(&Filter { from: hour(start_ms), until: hour(end_ms), ..filter })
    };
    micro_dollars(Row::sum(rows.iter().filter(|row| of_limit(row))).charged)
}

fn of_limit(limit: &Limit, row: &Row) -> bool {
    limit.model.as_ref().is_none_or(|model| *model == row.facets.model)
        && limit.provider.as_ref().is_none_or(|provider| *provider == row.facets.provider)
}

fn filter_of(account: &Account, key: &str, scope: Scope) -> Filter {
    let organisation = Some(account.organisation.as_deref().unwrap_or_default().to_owned());
    match scope {
        Scope::Key => Filter { key: Some(key.to_owned()), ..Filter::default() },
        Scope::Workspace => Filter { workspace: account.workspace.as_deref().map(str::to_owned), ..Filter::default() },
        Scope::Organisation => Filter { organisation, ..Filter::default() },
    }
}
