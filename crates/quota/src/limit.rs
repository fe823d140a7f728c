//! What an operator declares: how much of what, for whom.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One declared limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Whose use is counted together.
    pub scope: Scope,
    /// Counts only requests for this model (`author/slug`); all models when absent.
    pub model: Option<Arc<str>>,
    /// Counts only requests served by this provider; all providers when absent.
    pub provider: Option<Arc<str>>,
    /// What is counted.
    pub dimension: Dimension,
    /// How much: requests, tokens, slots, or micro-dollars, by the dimension. For a prepaid balance the sum of all credits ever bought.
    pub amount: u64,
    /// How much may be taken at once (rates only). Absent: 10 s worth of requests, 60 s worth of tokens.
    pub burst: Option<u64>,
    /// Counts, and says so, but never refuses.
    pub shadow: bool,
    /// Warns from this percentage of use on (1 to 100).
    pub warn_at: Option<u8>,
    /// Shared by all regions through shares and grants; otherwise each region has the whole amount for itself.
    pub global: bool,
    /// Where the day begins, in minutes east of UTC (−720 to 840). Calendar windows only.
    pub utc_offset_minutes: i16,
    /// Whether the money was paid before (spend only).
    pub funding: Funding,
}

impl Limit {
    /// A limit with the defaults for everything else: enforced, regional, UTC, postpaid.
    pub fn new(scope: Scope, dimension: Dimension, amount: u64) -> Self {
        Self {
            scope,
            model: None,
            provider: None,
            dimension,
            amount,
            burst: None,
            shadow: false,
            warn_at: None,
            global: false,
            utc_offset_minutes: 0,
            funding: Funding::Postpaid,
        }
    }
}

/// Whose use is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One API key.
    Key,
    /// All keys of a workspace.
    Workspace,
    /// All keys of an organisation.
    Organisation,
}

impl Scope {
    /// The word in configuration, messages and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Workspace => "workspace",
            Self::Organisation => "organisation",
        }
    }

    /// What a word of [`Scope::as_str`] means.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Key, Self::Workspace, Self::Organisation].into_iter().find(|scope| scope.as_str() == word)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Requests started per minute.
    RequestsPerMinute,
    /// Tokens per minute.
    TokensPerMinute(TokenKind),
    /// Requests running at the same time.
    Concurrent,
    /// Money, in micro-dollars.
    Spend(Window),
    /// Requests to free models per day.
    FreeRequestsPerDay,
}

impl Dimension {
    /// The word in configuration, messages, labels and storage keys. Storage keys are kept by Redis: never change one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "rpm",
            Self::TokensPerMinute(TokenKind::Input) => "tpm_input",
            Self::TokensPerMinute(TokenKind::Output) => "tpm_output",
            Self::TokensPerMinute(TokenKind::Both) => "tpm",
            Self::Concurrent => "concurrent",
            Self::Spend(Window::Day) => "spend_day",
            Self::Spend(Window::Week) => "spend_week",
            Self::Spend(Window::Month) => "spend_month",
            Self::Spend(Window::Total) => "spend_total",
            Self::FreeRequestsPerDay => "free_rpd",
        }
    }

    /// What a word of [`Dimension::as_str`] means.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.as_str() == word)
    }

    const ALL: [Self; 10] = [
        Self::RequestsPerMinute,
        Self::TokensPerMinute(TokenKind::Input),
        Self::TokensPerMinute(TokenKind::Output),
        Self::TokensPerMinute(TokenKind::Both),
        Self::Concurrent,
        Self::Spend(Window::Day),
        Self::Spend(Window::Week),
        Self::Spend(Window::Month),
        Self::Spend(Window::Total),
        Self::FreeRequestsPerDay,
    ];

    /// The window of a budget.
    pub const fn window(self) -> Option<Window> {
        match self {
            Self::RequestsPerMinute | Self::TokensPerMinute(_) | Self::Concurrent => None,
            Self::Spend(window) => Some(window),
            Self::FreeRequestsPerDay => Some(Window::Day),
        }
    }

    /// Whether money is counted: refused with 402, not 429.
    pub const fn is_spend(self) -> bool {
        matches!(self, Self::Spend(_))
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Which tokens are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// The prompt's.
    Input,
    /// The answer's, reasoning included.
    Output,
    /// Their sum.
    Both,
}

/// When a budget starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// At midnight.
    Day,
    /// At midnight before Monday.
    Week,
    /// At midnight before the first of the month.
    Month,
    /// Never.
    Total,
}

/// Whether the money was paid before it is spent. Decides what happens when it cannot be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Funding {
    /// Credits: nothing is spent that is not known to be there.
    Prepaid,
    /// A budget against an invoice: may be outrun by up to 5 % while the store is away.
    #[default]
    Postpaid,
}

/// What a key may do while its store cannot be asked (`on_store_down`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreDown {
    /// Each edge counts by itself, with its part of the limit.
    #[default]
    Local,
    /// Everything is allowed and settled later.
    Open,
    /// Nothing is allowed.
    Closed,
}
