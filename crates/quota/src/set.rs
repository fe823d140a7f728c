//! All limits of one key, compiled once per configuration and shared by its requests.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, Meter};
use crate::limit::{Dimension, Funding, Limit, Scope, StoreDown};
use crate::share::{Allocator, LimitName, Shares};
use crate::usage::Usage;

/// Who is counted. Ids are the public ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The organisation: all its counters live together.
    pub organisation: Arc<str>,
    /// The workspace, if the key is in one.
    pub workspace: Option<Arc<str>>,
    /// The key's public id.
    pub key: Arc<str>,
}

/// The limits of one key, its workspace and its organisation, ready to count.
#[derive(Debug)]
pub struct LimitSet {
    pub(crate) subject: Subject,
    pub(crate) slot: Arc<str>,
    pub(crate) buckets: Vec<Arc<Bucket>>,
    pub(crate) on_store_down: StoreDown,
    /// Some limit counts against a share.
    pub(crate) is_shared: bool,
}

/// The limits of a set that apply to one request: a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Selection(pub(crate) u64);

impl Selection {
    /// Whether no limit applies: nothing to ask.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A set of limits that cannot be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// More limits than a request's selection has bits.
    #[error("key `{key}` has {count} limits; at most {MOST} can apply to one key: declare fewer per model or provider")]
    TooMany {
        /// The key's public id.
        key: Arc<str>,
        /// How many it has.
        count: usize,
    },
    /// Two limits would count in the same place.
    #[error("the {scope} limit `{dimension}` of `{subject}` is declared twice for the same model and provider: keep one")]
    Twice {
        /// The scope of both.
        scope: Scope,
        /// The dimension of both.
        dimension: &'static str,
        /// Whose limit it is.
        subject: Arc<str>,
    },
    /// A workspace's limit on a key that is in none.
    #[error("key `{key}` is in no workspace, so the workspace limit `{dimension}` cannot apply to it")]
    NoWorkspace {
        /// The key's public id.
        key: Arc<str>,
        /// The dimension.
        dimension: &'static str,
    },
    /// A number outside of what can be counted.
    #[error("limit `{dimension}` of `{subject}`: {what}")]
    OutOfRange {
        /// The dimension.
        dimension: &'static str,
        /// Whose limit it is.
        subject: Arc<str>,
        /// What is wrong, and what would be right.
        what: &'static str,
    },
}

/// As many as a selection has bits.
const MOST: usize = 64;

/// Each slot is an entry in a sorted set; the scripts have the same bound.
pub(crate) const MOST_SLOTS: u64 = 100_000;

/// A thousandth of what a double holds exactly: sums of many reservations stay exact. Nine billion dollars.
pub(crate) const LARGEST_AMOUNT: u64 = 9_000_000_000_000_000 / 1_000 * 1_000;

impl LimitSet {
    /// Compiles the limits of a key, broadest scope first.
    ///
    /// # Errors
    /// When two limits count the same, when there are more than 64, when a number is out of range.
    pub fn compile(subject: Subject, limits: &[Limit], on_store_down: StoreDown) -> Result<Self, LimitError> {
        if limits.len() > MOST {
            return Err(LimitError::TooMany { key: subject.key, count: limits.len() });
        }
        let slot = Self::slot_of(&subject.organisation);
        let mut buckets: Vec<Arc<Bucket>> = Vec::with_capacity(limits.len());
        for limit in limits {
            let dimension = limit.dimension.as_str();
            let (letter, owner) = match limit.scope {
                Scope::Key => ('k', &subject.key),
                Scope::Workspace => match &subject.workspace {
                    Some(workspace) => ('w', workspace),
                    None => return Err(LimitError::NoWorkspace { key: subject.key, dimension }),
                },
                Scope::Organisation => ('o', &subject.organisation),
            };
            if let Some(what) = out_of_range(limit) {
                return Err(LimitError::OutOfRange { dimension, subject: owner.clone(), what });
            }
            let mut key = format!("{slot}:{letter}:{}:{dimension}", escaped(owner));
            for (name, value) in [("m", &limit.model), ("p", &limit.provider)] {
                if let Some(value) = value {
                    key.push_str(&format!(":{name}={}", escaped(value)));
                }
            }
            if buckets.iter().any(|bucket| *bucket.key == *key) {
                return Err(LimitError::Twice { scope: limit.scope, dimension, subject: owner.clone() });
            }
            buckets.push(Arc::new(Bucket { key: key.into(), limit: limit.clone(), share: None }));
        }
        buckets.sort_by_key(|bucket| std::cmp::Reverse(bucket.limit.scope));
        Ok(Self { subject, slot, buckets, on_store_down, is_shared: false })
    }

    /// What every storage key of an organisation begins with. The braces are Redis Cluster's hash tag: one slot, so that one script can
    /// check the limits of a key and its organisation together.
    pub(crate) fn slot_of(organisation: &str) -> Arc<str> {
        format!("q:{{o:{}}}", escaped(organisation)).into()
    }

    /// Counts global limits against this region's shares of them, among these declared regions; without it each region has the whole amount.
    #[must_use]
    pub fn with_shares(mut self, shares: &Shares, regions: &[Arc<str>], own: &str) -> Self {
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.limit.global) {
            let name = LimitName::of(&bucket.limit, &self.subject);
            let floor = Allocator::floor_of(bucket.limit.amount, regions, own);
            let alone = || Self {
                subject: self.subject.clone(),
                slot: self.slot.clone(),
                buckets: vec![bucket.clone()],
                on_store_down: self.on_store_down,
                is_shared: false,
            };
            let share = shares.of(bucket, name, floor, regions.len() as u64, alone);
            *bucket = Arc::new(Bucket { share: Some(share), ..Bucket::clone(bucket) });
            self.is_shared = true;
        }
        self
    }

    /// Counts what a request asks for of shared limits.
    pub(crate) fn note_demand(&self, selection: Selection, usage: &Usage) {
        for bucket in self.buckets(selection) {
            let units = usage.amount(bucket.limit.dimension);
            if let Some(share) = bucket.share.as_ref().filter(|_| units > 0) {
                share.ask(units);
            }
        }
    }

    /// The limits that apply to a request for `model` served by `provider`.
    ///
    /// Before a provider is chosen (`None`) the limits of providers do not apply; ask for them with [`LimitSet::select_provider`] and a
    /// reservation of their own at each attempt.
    pub fn select(&self, model: &str, provider: Option<&str>) -> Selection {
        self.selection(|limit| {
            limit.model.as_deref().is_none_or(|of| of == model) && limit.provider.as_deref().is_none_or(|of| provider == Some(of))
        })
    }

    /// Only the limits that name this provider, for an attempt after the request was reserved without one.
    pub fn select_provider(&self, model: &str, provider: &str) -> Selection {
        self.selection(|limit| {
            limit.model.as_deref().is_none_or(|of| of == model) && limit.provider.as_deref().is_some_and(|of| of == provider)
        })
    }

    /// Whether a limit names a provider: then attempts are to be reserved one by one.
    pub fn names_providers(&self) -> bool {
        self.buckets.iter().any(|bucket| bucket.limit.provider.is_some())
    }

    /// Every limit, for showing them.
    pub fn select_all(&self) -> Selection {
        self.selection(|_| true)
    }

    fn selection(&self, applies: impl Fn(&Limit) -> bool) -> Selection {
        let bits = self.buckets.iter().enumerate().filter(|(_, bucket)| applies(&bucket.limit));
        Selection(bits.fold(0, |bits, (index, _)| bits | 1 << index))
    }

    /// The buckets of a selection, broadest scope first.
    pub fn buckets(&self, selection: Selection) -> impl Iterator<Item = &Arc<Bucket>> {
        self.buckets.iter().enumerate().filter(move |(index, _)| selection.0 >> index & 1 == 1).map(|(_, bucket)| bucket)
    }

    /// Who is counted.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// What happens while the store cannot be asked.
    pub fn on_store_down(&self) -> StoreDown {
        self.on_store_down
    }

    /// Whether any limit is declared at all.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    pub(crate) fn has_prepaid(&self, selection: Selection) -> bool {
        self.buckets(selection).any(|bucket| bucket.limit.funding == Funding::Prepaid && bucket.limit.dimension.is_spend())
    }
}

fn out_of_range(limit: &Limit) -> Option<&'static str> {
    let rate = matches!(Bucket { key: Arc::from(""), limit: limit.clone(), share: None }.meter(), Meter::Rate);
    if limit.amount > LARGEST_AMOUNT {
        Some("the amount is too large to be counted exactly: choose at most 9000000000000000")
    } else if limit.dimension == Dimension::Concurrent && limit.amount > MOST_SLOTS {
        Some("more than 100000 requests at the same time are not counted one by one: leave the limit out")
    } else if limit.burst == Some(0) {
        Some("a burst of 0 lets nothing pass: choose at least 1, or leave it out")
    } else if limit.burst.is_some() && !rate {
        Some("only rates per minute have a burst: leave it out")
    } else if limit.burst.is_some_and(|burst| burst / 1_000 > limit.amount) {
        Some("the burst is more than a thousand minutes of the rate: choose a smaller one")
    } else if limit.warn_at.is_some_and(|percent| percent == 0 || percent > 100) {
        Some("`warn_at` is a percentage from 1 to 100")
    } else if !(-720..=840).contains(&limit.utc_offset_minutes) {
        Some("the offset from UTC is -720 to 840 minutes")
    } else if limit.funding == Funding::Prepaid && !limit.dimension.is_spend() {
        Some("only spend can be prepaid")
    } else {
        None
    }
}

/// Ids inside of a storage key: what could end the slot tag or a field is written as `%XX`.
pub(crate) fn escaped(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b'@' | b'+' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
