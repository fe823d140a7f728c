//! What keys may do. Many keys share one policy, so it is held once and found again by the text it was made from.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tidegate_routing::Preferences;

use super::Membership;
use crate::config::KeyPolicy;

/// A key's policy, with the mesh's defaults merged in.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) own: KeyPolicy,
    /// Replaced when the defaults change, for all keys that share the policy at once.
    merged: ArcSwap<Preferences>,
    /// What it was made from; empty for a key of a file.
    pub(crate) source: Bytes,
}

impl Policy {
    pub(crate) fn new(own: KeyPolicy, defaults: &Preferences, source: Bytes) -> Arc<Self> {
        let merged = ArcSwap::from_pointee(Preferences::merge(defaults, own.preferences.clone()));
        Arc::new(Self { own, merged, source })
    }

    /// Holds for every request; requests can only tighten it.
    pub(crate) fn preferences(&self) -> Arc<Preferences> {
        self.merged.load_full()
    }
}

/// Turns a key's policy text into a policy; says what is wrong otherwise.
pub type ReadPolicy = Arc<dyn Fn(&[u8]) -> Result<KeyPolicy, String> + Send + Sync>;

/// The policies in use. Belongs to the one who writes the key table.
pub(crate) struct Policies {
    read: ReadPolicy,
    by_source: HashMap<Bytes, Arc<Policy>>,
    memberships: HashSet<Arc<Membership>>,
    defaults: Preferences,
}

impl Policies {
    pub(crate) fn new(read: ReadPolicy) -> Self {
        Self { read, by_source: HashMap::new(), memberships: HashSet::new(), defaults: Preferences::default() }
    }

    /// The policy of this text.
    pub(crate) fn get(&mut self, source: &Bytes) -> Result<Arc<Policy>, String> {
        if let Some(known) = self.by_source.get(source) {
            return Ok(Arc::clone(known));
        }
        if self.by_source.len() >= SWEEP_ABOVE && self.by_source.len().is_power_of_two() {
            self.by_source.retain(|_, policy| Arc::strong_count(policy) > 1);
        }
        let own = if source.is_empty() { KeyPolicy::default() } else { (self.read)(source)? };
        // Not a slice of the message that it came in, which would be kept alive by it.
        let source = Bytes::copy_from_slice(source);
        let policy = Policy::new(own, &self.defaults, source.clone());
        self.by_source.insert(source, Arc::clone(&policy));
        Ok(policy)
    }

    /// Whom a key belongs to; the same for all keys of one owner. Empty means nobody.
    pub(crate) fn membership(&mut self, organisation: &str, workspace: &str) -> Arc<Membership> {
        let named = |name: &str| (!name.is_empty()).then(|| name.into());
        let membership = Membership { organisation: named(organisation), workspace: named(workspace) };
        if let Some(known) = self.memberships.get(&membership) {
            return Arc::clone(known);
        }
        if self.memberships.len() >= SWEEP_ABOVE && self.memberships.len().is_power_of_two() {
            self.memberships.retain(|membership| Arc::strong_count(membership) > 1);
        }
        let membership = Arc::new(membership);
        self.memberships.insert(Arc::clone(&membership));
        membership
    }

    /// Merges other defaults into every policy.
    pub(crate) fn rebase(&mut self, defaults: &Preferences) {
        if self.defaults == *defaults {
            return;
        }
        self.defaults = defaults.clone();
        for policy in self.by_source.values() {
            policy.merged.store(Arc::new(Preferences::merge(defaults, policy.own.preferences.clone())));
        }
    }
}

/// From this many policies on, unused ones are dropped each time their number has doubled.
const SWEEP_ABOVE: usize = 1024;
