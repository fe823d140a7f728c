//! Where use is counted against limits.

use tidegate_quota::RedisOptions;

/// Where use is counted against limits.
#[derive(Debug, Clone, Default)]
pub struct QuotaConfig {
    /// The counters.
    pub store: StoreConfig,
}

impl QuotaConfig {
    /// Whether the edges of a region count together.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match self.store {
            StoreConfig::Memory => false,
            StoreConfig::Redis(_) => true,
        }
    }
}

/// The counters.
#[derive(Debug, Clone, Default)]
pub enum StoreConfig {
    /// In this process: exact for one edge. After a restart budgets continue from the ledger's sums; rates begin anew.
    #[default]
    Memory,
    /// In Redis or Valkey, shared by the edges of a region.
    Redis(Box<RedisOptions>),
}
