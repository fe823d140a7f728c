//! Sums over generations: by the hour, by the day, and since the beginning.
//!
//! Adding is commutative and exact, so that the sum of all records, of all charges and of any roll-up is the same number. Hours and days
//! are those of UTC. What callers choose (the name of an application) is bounded per period: beyond the bound it counts as `(other)`.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;
use std::sync::Arc;

use crate::charge::Ending;
use crate::generation::Generation;
use crate::money::Money;

/// How long a sum lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// One hour of UTC, by its number since the epoch.
    Hour(u32),
    /// One day of UTC, by its number since the epoch.
    Day(u32),
    /// Since the beginning; by key, workspace and organisation only.
    Total,
}

/// What a sum is over. Empty where it does not apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Facets {
    /// Model that served.
    pub model: Arc<str>,
    /// Display name of the provider that served.
    pub provider: Arc<str>,
    /// Endpoint that served.
    pub endpoint: Arc<str>,
    /// Name of the key.
    pub key: Arc<str>,
    /// Organisation of the key.
    pub organisation: Arc<str>,
    /// Workspace of the key.
    pub workspace: Arc<str>,
    /// Application, by its attribution headers.
    pub app: Arc<str>,
    /// Region of the edge.
    pub region: Arc<str>,
}

/// One of the things that sums are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Facet {
    /// Model that served.
    Model,
    /// Provider that served.
    Provider,
    /// Endpoint that served.
    Endpoint,
    /// Name of the key.
    Key,
    /// Organisation of the key.
    Organisation,
    /// Workspace of the key.
    Workspace,
    /// Application.
    App,
    /// Region of the edge.
    Region,
}

/// What was counted. Tokens are the provider's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Generations, however they ended.
    pub requests: u64,
    /// Of these, those that came to nothing.
    pub failed: u64,
    /// Of these, those whose caller left.
    pub cancelled: u64,
    /// Of these, those that broke off.
    pub cut: u64,
    /// Of these, those that were served with the caller's own credential.
    pub own_key: u64,
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Completion tokens, reasoning included.
    pub completion_tokens: u64,
    /// Reasoning tokens.
    pub reasoning_tokens: u64,
    /// Prompt tokens read from caches.
    pub cached_tokens: u64,
    /// Prompt tokens written to caches.
    pub cache_write_tokens: u64,
    /// By list prices.
    pub cost: Money,
    /// What providers charge.
    pub upstream: Money,
    /// On top of the cost.
    pub fee: Money,
    /// What callers were charged.
    pub charged: Money,
    /// List price of what was served with callers' own credentials.
    pub own_key_cost: Money,
}

/// How long sums are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Hours that hourly sums are kept.
    pub hours: u32,
    /// Days that daily sums are kept.
    pub days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        // A fortnight by the hour shows two weeks side by side; 400 days compare a month with that of a year ago.
        Self { hours: 14 * 24, days: 400 }
    }
}

/// One sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// When.
    pub period: Period,
    /// Over what.
    pub facets: Facets,
    /// How much.
    pub sums: Sums,
}

/// Which sums are wanted; what is not set matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this key.
    pub key: Option<String>,
    /// Only this organisation; the empty one for keys without any.
    pub organisation: Option<String>,
    /// Only this workspace.
    pub workspace: Option<String>,
    /// Not before this hour or day.
    pub from: u32,
    /// Before this hour or day; 0 means no end.
    pub until: u32,
}

/// All sums of one edge, or of one region.
#[derive(Debug, Clone, Default)]
pub struct Rollups {
    hours: BTreeMap<u32, Bucket>,
    days: BTreeMap<u32, Bucket>,
    totals: Bucket,
}

/// Looked into for every record, by eight names of which callers choose one.
type Bucket = HashMap<Facets, Sums, foldhash::quality::RandomState>;

impl Sums {
    /// What one generation adds.
    pub fn of(record: &Generation) -> Self {
        let usage = &record.usage;
        let one_if = |is: bool| u64::from(is);
        Self {
            requests: 1,
            failed: one_if(record.ending == Ending::Failed),
            cancelled: one_if(record.ending == Ending::Cancelled),
            cut: one_if(record.ending == Ending::Cut),
            own_key: one_if(record.is_byok),
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            cached_tokens: usage.cached_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            cost: record.charge.total,
            upstream: record.upstream_cost,
            fee: record.fee,
            charged: record.charged,
            own_key_cost: record.own_key_cost(),
        }
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        // Providers' counts are not trusted: a sum sticks at its bound rather than wrap.
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.requests, other.requests);
        add(&mut self.failed, other.failed);
        add(&mut self.cancelled, other.cancelled);
        add(&mut self.cut, other.cut);
        add(&mut self.own_key, other.own_key);
        add(&mut self.prompt_tokens, other.prompt_tokens);
        add(&mut self.completion_tokens, other.completion_tokens);
        add(&mut self.reasoning_tokens, other.reasoning_tokens);
        add(&mut self.cached_tokens, other.cached_tokens);
        add(&mut self.cache_write_tokens, other.cache_write_tokens);
        self.cost += other.cost;
        self.upstream += other.upstream;
        self.fee += other.fee;
        self.charged += other.charged;
        self.own_key_cost += other.own_key_cost;
    }
}

impl Facets {
    /// What one generation is summed over.
    pub fn of(record: &Generation) -> Self {
        let optional = |name: &Option<Arc<str>>| name.clone().unwrap_or_default();
        Self {
            model: Arc::clone(&record.model),
            provider: Arc::clone(&record.provider_name),
            endpoint: Arc::clone(&record.endpoint),
            key: Arc::clone(&record.key),
            organisation: optional(&record.organisation),
            workspace: optional(&record.workspace),
            app: record.app().into(),
            region: Arc::clone(&record.region),
        }
    }

    /// Who pays, and nothing else.
    pub fn owner(&self) -> Self {
        Self {
            key: Arc::clone(&self.key),
            organisation: Arc::clone(&self.organisation),
            workspace: Arc::clone(&self.workspace),
            ..Self::default()
        }
    }

    /// The value of one facet.
    pub fn get(&self, facet: Facet) -> &Arc<str> {
        match facet {
            Facet::Model => &self.model,
            Facet::Provider => &self.provider,
            Facet::Endpoint => &self.endpoint,
            Facet::Key => &self.key,
            Facet::Organisation => &self.organisation,
            Facet::Workspace => &self.workspace,
            Facet::App => &self.app,
            Facet::Region => &self.region,
        }
    }

    fn get_mut(&mut self, facet: Facet) -> &mut Arc<str> {
        match facet {
            Facet::Model => &mut self.model,
            Facet::Provider => &mut self.provider,
            Facet::Endpoint => &mut self.endpoint,
            Facet::Key => &mut self.key,
            Facet::Organisation => &mut self.organisation,
            Facet::Workspace => &mut self.workspace,
            Facet::App => &mut self.app,
            Facet::Region => &mut self.region,
        }
    }

    /// These facets and no other.
    pub fn only(&self, facets: &[Facet]) -> Self {
        let mut kept = Self::default();
        for facet in facets {
            *kept.get_mut(*facet) = Arc::clone(self.get(*facet));
        }
        kept
    }
}

impl Facet {
    /// Every facet.
    pub const ALL: [Facet; 8] =
        [Facet::Model, Facet::Provider, Facet::Endpoint, Facet::Key, Facet::Organisation, Facet::Workspace, Facet::App, Facet::Region];

    /// The name in commands and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Facet::Model => "model",
            Facet::Provider => "provider",
            Facet::Endpoint => "endpoint",
            Facet::Key => "key",
            Facet::Organisation => "organisation",
            Facet::Workspace => "workspace",
            Facet::App => "app",
            Facet::Region => "region",
        }
    }

    /// The facet of this name.
    pub fn parse(name: &str) -> Option<Facet> {
        Self::ALL.into_iter().find(|facet| facet.as_str() == name)
    }
}

impl Period {
    /// The hour of a moment in milliseconds of Unix time.
    pub fn hour_of(unix_ms: u64) -> Period {
        Period::Hour(u32::try_from(unix_ms / HOUR_MS).unwrap_or(u32::MAX))
    }

    /// The day of a moment in milliseconds of Unix time.
    pub fn day_of(unix_ms: u64) -> Period {
        Period::Day(u32::try_from(unix_ms / DAY_MS).unwrap_or(u32::MAX))
    }

    /// Its number; 0 for the total.
    pub fn number(self) -> u32 {
        match self {
            Period::Hour(number) | Period::Day(number) => number,
            Period::Total => 0,
        }
    }

    /// Its first moment in milliseconds of Unix time.
    pub fn begins_ms(self) -> u64 {
        match self {
            Period::Hour(number) => u64::from(number) * HOUR_MS,
            Period::Day(number) => u64::from(number) * DAY_MS,
            Period::Total => 0,
        }
    }
}

impl Filter {
    /// Whether a sum is wanted.
    pub fn wants(&self, row: &Row) -> bool {
        self.wants_period(row.period) && self.wants_facets(&row.facets)
    }

    fn wants_period(&self, period: Period) -> bool {
        period == Period::Total || (period.number() >= self.from && (self.until == 0 || period.number() < self.until))
    }

    fn wants_facets(&self, facets: &Facets) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        same(&self.key, &facets.key) && same(&self.organisation, &facets.organisation) && same(&self.workspace, &facets.workspace)
    }
}

impl Rollups {
    /// Counts a generation in its hour, its day and the total.
    pub fn add(&mut self, record: &Generation) {
        self.put_all(record, Sums::of(record));
    }

    /// The same for many. Those that follow each other and are over the same, as on a busy edge most are, are found by their addresses and
    /// counted in one step.
    pub fn add_all(&mut self, records: &[Generation]) {
        let mut groups: Vec<(&Generation, Sums)> = Vec::with_capacity(GROUPS.min(records.len()));
        for record in records {
            match groups.iter_mut().find(|(first, _)| first.counts_with(record)) {
                Some((_, sums)) => *sums += Sums::of(record),
                None => {
                    if groups.len() == GROUPS {
                        groups.drain(..).for_each(|(first, sums)| self.put_all(first, sums));
                    }
                    groups.push((record, Sums::of(record)));
                }
            }
        }
        groups.into_iter().for_each(|(first, sums)| self.put_all(first, sums));
    }

    /// Counts sums of generations that are over the same as `record`.
    fn put_all(&mut self, record: &Generation, sums: Sums) {
        let facets = Facets::of(record);
        *self.totals.entry(facets.owner()).or_default() += sums;
        let (hour, day) = (Period::hour_of(record.created_ms).number(), Period::day_of(record.created_ms).number());
        put(self.hours.entry(hour).or_default(), facets.clone(), sums);
        put(self.days.entry(day).or_default(), facets, sums);
    }

    /// Takes a sum over, as read from a file or another edge.
    pub fn merge(&mut self, row: Row) {
        match row.period {
            Period::Hour(hour) => put(self.hours.entry(hour).or_default(), row.facets, row.sums),
            Period::Day(day) => put(self.days.entry(day).or_default(), row.facets, row.sums),
            Period::Total => *self.totals.entry(row.facets).or_default() += row.sums,
        }
    }

    /// Forgets what is older than `kept` at `now_ms`, milliseconds of Unix time. Totals stay.
    pub fn expire(&mut self, kept: Retention, now_ms: u64) {
        let (hour, day) = (Period::hour_of(now_ms).number(), Period::day_of(now_ms).number());
        self.hours = self.hours.split_off(&hour.saturating_sub(kept.hours));
        self.days = self.days.split_off(&day.saturating_sub(kept.days));
    }

    /// Every sum.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let row = |period, (facets, sums): (&Facets, &Sums)| Row { period, facets: facets.clone(), sums: *sums };
        let hours = self.hours.iter().flat_map(move |(hour, bucket)| bucket.iter().map(move |entry| row(Period::Hour(*hour), entry)));
        let days = self.days.iter().flat_map(move |(day, bucket)| bucket.iter().map(move |entry| row(Period::Day(*day), entry)));
        hours.chain(days).chain(self.totals.iter().map(move |entry| row(Period::Total, entry)))
    }

    /// Daily sums that are wanted, in no particular order.
    pub fn days(&self, filter: &Filter) -> Vec<Row> {
        wanted(&self.days, filter, Period::Day)
    }

    /// Hourly sums that are wanted, in no particular order.
    pub fn hours(&self, filter: &Filter) -> Vec<Row> {
        wanted(&self.hours, filter, Period::Hour)
    }

    /// The sum since the beginning of all owners that are wanted.
    pub fn total(&self, filter: &Filter) -> Sums {
        sum(self.totals.iter().filter(|(facets, _)| filter.wants_facets(facets)).map(|(_, sums)| *sums))
    }

    /// Number of sums that are held.
    pub fn len(&self) -> usize {
        self.hours.values().chain(self.days.values()).map(HashMap::len).sum::<usize>() + self.totals.len()
    }

    /// Nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.totals.is_empty()
    }
}

impl Generation {
    /// Both belong to the same sums. Names are compared by address: two that are equal and apart are merely counted in two steps.
    fn counts_with(&self, other: &Self) -> bool {
        let same = |one: &Option<Arc<str>>, other: &Option<Arc<str>>| match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        Arc::ptr_eq(&self.endpoint, &other.endpoint)
            && Arc::ptr_eq(&self.key, &other.key)
            && Arc::ptr_eq(&self.model, &other.model)
            && Arc::ptr_eq(&self.provider_name, &other.provider_name)
            && Arc::ptr_eq(&self.region, &other.region)
            && same(&self.organisation, &other.organisation)
            && same(&self.workspace, &other.workspace)
            && Period::hour_of(self.created_ms) == Period::hour_of(other.created_ms)
            && self.app() == other.app()
    }
}

impl Row {
    /// Sums rows up over the facets that are named, by period; sorted by period, then by facets.
    pub fn grouped(rows: impl IntoIterator<Item = Row>, by: &[Facet]) -> Vec<Row> {
        let mut groups: BTreeMap<(Period, Facets), Sums> = BTreeMap::new();
        for row in rows {
            *groups.entry((row.period, row.facets.only(by))).or_default() += row.sums;
        }
        groups.into_iter().map(|((period, facets), sums)| Row { period, facets, sums }).collect()
    }

    /// The sum of all rows.
    pub fn sum<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Sums {
        sum(rows.into_iter().map(|row| row.sums))
    }
}

/// Sums that are put together before they are looked up: more would cost more to find than to look up.
const GROUPS: usize = 8;

fn sum(all: impl Iterator<Item = Sums>) -> Sums {
    all.fold(Sums::default(), |mut total, sums| {
        total += sums;
        total
    })
}

fn put(bucket: &mut Bucket, mut facets: Facets, sums: Sums) {
    if bucket.len() >= MOST_ROWS && !bucket.contains_key(&facets) {
        facets.app = OTHER.into();
    }
    *bucket.entry(facets).or_default() += sums;
}

fn wanted(buckets: &BTreeMap<u32, Bucket>, filter: &Filter, period: fn(u32) -> Period) -> Vec<Row> {
    let until = if filter.until == 0 { u32::MAX } else { filter.until };
    if filter.from >= until {
        return Vec::new();
    }
    let within = buckets.range(filter.from..until);
    let of = |(number, bucket): (&u32, &Bucket)| -> Vec<Row> {
        let matching = bucket.iter().filter(|(facets, _)| filter.wants_facets(facets));
        matching.map(|(facets, sums)| Row { period: period(*number), facets: facets.clone(), sums: *sums }).collect()
    };
    within.flat_map(of).collect()
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Rows of one period before applications are no longer told apart: callers choose their names. About 30 MB.
const MOST_ROWS: usize = 100_000;
/// The application of what is beyond the bound.
const OTHER: &str = "(other)";

#[cfg(test)]
mod tests;
