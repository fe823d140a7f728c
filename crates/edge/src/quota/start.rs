//! Opening the store of counters, and telling it what the ledger knows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tidegate_ledger::{Filter, Period as SumPeriod, Retention, Rollups, Row};
use tidegate_quota::{
    Bucket, Limit, MemoryStore, Meter, Period, QuotaStore, RedisOptions, RedisStore, Scope, SpentEntry, StoreError, SystemClock, Window,
};

use super::estimate::micro_dollars;
use crate::auth::{Account, Keys, Owners};
use crate::config::{ProviderConfig, QuotaConfig, StoreConfig};
use crate::ledger::region::{RegionLedger, owner_of};

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

/// Where it is written what was spent.
pub(crate) struct Spent<'a> {
    /// By this edge.
    pub(crate) own: &'a parking_lot::Mutex<Rollups>,
    /// By every edge of the region, where there is such a ledger.
    pub(crate) region: Option<&'a RegionLedger>,
    /// How far back the region's sums go.
    pub(crate) retention: Retention,
    /// Records call providers by the names that callers see, limits by their slugs.
    pub(crate) providers: &'a [ProviderConfig],
}

/// Raises the spend counters of every limit to what the ledger's sums say, and opens organisations with prepaid credits. Never lowers one,
/// so that it may be done at any time: after a start, when a new configuration declares new limits, and after the store may have lost
/// something. An organisation whose sums cannot be read stays as it is.
pub(crate) async fn restore(store: &dyn QuotaStore, keys: &Keys, owners: &Arc<Owners>, spent: &Spent<'_>, now_us: u64) {
    let all = spent_by_this_edge(keys, owners, spent, now_us);
    for (organisation, due) in all {
        let told = match spent.region {
            Some(region) => raise(region, spent, due, now_us).await,
            None => Ok(due.into_iter().map(|due| due.entry).collect()),
        };
        let restored = match told {
            Ok(entries) => store.restore(&organisation, &entries).await,
            Err(error) => Err(error),
        };
        if let Err(error) = restored {
            tracing::warn!(%error, %organisation, "what was spent before could not be told to the store of counters yet");
        }
    }
}

/// A counter, and whose sums say what it should be.
struct Due {
    entry: SpentEntry,
    window: Window,
    owner: String,
    filter: Filter,
}

/// Every spend counter by organisation, with what this edge's sums say. Organisations without use are there as well: a store has to hear
/// that nothing was spent before it lends them anything.
fn spent_by_this_edge(keys: &Keys, owners: &Arc<Owners>, spent: &Spent<'_>, now_us: u64) -> BTreeMap<Arc<str>, Vec<Due>> {
    let rollups = spent.own.lock();
    let mut all: BTreeMap<Arc<str>, Vec<Due>> = BTreeMap::new();
    let mut seen: HashSet<Arc<str>> = HashSet::new();
    for (caller, account) in keys.accounts(owners) {
        let Some(limits) = &account.limits else { continue };
        for bucket in limits.buckets(limits.select_all()) {
            let Meter::Budget(window) = bucket.meter() else { continue };
            if !bucket.limit.dimension.is_spend() || !seen.insert(Arc::clone(&bucket.key)) {
                continue;
            }
            let key = caller.counted_as();
            let period = Period::containing(now_us, window, bucket.limit.utc_offset_minutes);
            let filter = filter_of(&account, key, bucket.limit.scope);
            let named = Named::of(&bucket.limit, spent.providers);
            let micro_dollars = spent_of(&rollups, &filter, &named, bucket, window, period);
            all.entry(Arc::clone(&limits.subject().organisation)).or_default().push(Due {
                entry: SpentEntry { bucket: Arc::clone(bucket), period, micro_dollars },
                window,
                owner: owner_of(account.organisation.as_ref(), key),
                filter,
            });
        }
    }
    all
}

/// With what the region's sums say where that is more.
async fn raise(region: &RegionLedger, spent: &Spent<'_>, due: Vec<Due>, now_us: u64) -> Result<Vec<SpentEntry>, StoreError> {
    // Limits of one organisation read the same sums.
    let mut read: HashMap<(String, SumPeriod, SumPeriod), Vec<Row>> = HashMap::new();
    let mut entries = Vec::with_capacity(due.len());
    for Due { mut entry, window, owner, filter } in due {
        let (first, last) = periods_of(&entry, window, spent.retention, now_us);
        let rows = match read.entry((owner, first, last)) {
            std::collections::hash_map::Entry::Occupied(rows) => rows.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let rows = region.between(&place.key().0, first, last).await?;
                place.insert(rows)
            }
        };
        let named = Named::of(&entry.bucket.limit, spent.providers);
        let rows = rows.iter().filter(|row| filter.wants(row) && named.wants(row));
        entry.micro_dollars = entry.micro_dollars.max(micro_dollars(Row::sum(rows).charged));
        entries.push(entry);
    }
    Ok(entries)
}

/// The sums, first and last, that a limit's period is made of. Days where they fit; a day that begins at another hour is put together from
/// hours. A total of one model or provider goes back as far as days are kept.
fn periods_of(entry: &SpentEntry, window: Window, retention: Retention, now_us: u64) -> (SumPeriod, SumPeriod) {
    let limit = &entry.bucket.limit;
    let now_ms = now_us / 1_000;
    if window == Window::Total {
        let today = SumPeriod::day_of(now_ms).number();
        return match limit.model.is_none() && limit.provider.is_none() {
            true => (SumPeriod::Total, SumPeriod::Total),
            false => (SumPeriod::Day(today.saturating_sub(retention.days)), SumPeriod::Day(today)),
        };
    }
    let start_ms = entry.period.start / 1_000;
    match limit.utc_offset_minutes {
        0 => (SumPeriod::day_of(start_ms), SumPeriod::day_of(now_ms)),
        _ => {
            let first = SumPeriod::hour_of(now_ms).number().saturating_sub(retention.hours);
            (SumPeriod::Hour(SumPeriod::hour_of(start_ms).number().max(first)), SumPeriod::hour_of(now_ms))
        }
    }
}

/// What was charged within a limit's period by the sums of this edge, micro-dollars.
fn spent_of(rollups: &Rollups, filter: &Filter, named: &Named<'_>, bucket: &Bucket, window: Window, period: Period) -> u64 {
    let filter = filter.clone();
    if window == Window::Total && named.is_everything() {
        return micro_dollars(rollups.total(&filter).charged);
    }
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
    micro_dollars(Row::sum(rows.iter().filter(|row| named.wants(row))).charged)
}

/// The model and the provider that a limit names, as records call them.
struct Named<'a> {
    model: Option<&'a str>,
    provider: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn of(limit: &'a Limit, providers: &'a [ProviderConfig]) -> Self {
        let name = |slug: &'a str| providers.iter().find(|one| one.info.slug == slug).map_or(slug, |one| one.info.name.as_str());
        Self { model: limit.model.as_deref(), provider: limit.provider.as_deref().map(name) }
    }

    fn is_everything(&self) -> bool {
        self.model.is_none() && self.provider.is_none()
    }

    fn wants(&self, row: &Row) -> bool {
        self.model.is_none_or(|model| model == &*row.facets.model) && self.provider.is_none_or(|provider| provider == &*row.facets.provider)
    }
}

fn filter_of(account: &Account, key: &str, scope: Scope) -> Filter {
    let organisation = Some(account.organisation.as_deref().unwrap_or_default().to_owned());
    match scope {
        Scope::Key => Filter { key: Some(key.to_owned()), ..Filter::default() },
        Scope::Workspace => Filter { workspace: account.workspace.as_deref().map(str::to_owned), ..Filter::default() },
        Scope::Organisation => Filter { organisation, ..Filter::default() },
    }
}
