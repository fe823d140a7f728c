//! Given a snapshot, health and the time, says where the next attempt goes.
//!
//! This crate decides and does nothing: no clock, no sockets, no tasks, no random source of its own. Time and seed are
//! arguments, so the same snapshot, health and seed always decide the same, and a recorded [`Decision`] can be replayed.
//! What to do with an attempt (encode, send, stream) is the edge's; what a key may spend is the quota's.
//!
//! The road through it: an [`Intent`] becomes a [`Plan`] over a [`Snapshot`]; [`Plan::next`] says where to try, the edge
//! tries, [`Plan::ended`] hears how it went, [`Health`] learns from it, and the plan goes on or gives up.
//!
//! ```
//! use std::time::Duration;
//! use tidegate_routing::{
//!     AttemptEnd, CredentialSpec, EndpointSpec, Health, Intent, ModelSpec, Next, Outcome, Plan, ProviderSpec, Snapshot,
//!     SnapshotSpec, Timestamp,
//! };
//!
//! let account = CredentialSpec { name: "main".into(), weight: 1 };
//! let snapshot = Snapshot::build(SnapshotSpec {
//!     providers: vec![ProviderSpec { slug: "acme".into(), name: "Acme".into(), credentials: vec![account] }],
//!     models: vec![ModelSpec { slug: "author/model".into(), ..ModelSpec::default() }],
//!     endpoints: vec![EndpointSpec::new("acme-model", "acme", "author/model")],
//!     ..SnapshotSpec::default()
//! })
//! .map_err(|errors| format!("{errors:?}"))?;
//! let health = Health::new(&snapshot, None);
//!
//! let now = Timestamp(0);
//! let model = snapshot.model("author/model").ok_or("no such model")?;
//! let mut plan = Plan::new(&snapshot, Intent::new(model, now + Duration::from_secs(60), 42))?;
//! let mut served = false;
//! while let Next::Attempt(attempt) = plan.next(&snapshot, &health, now) {
//!     // ... send the request to `attempt.endpoint` with `attempt.credential` ...
//!     let outcome = Outcome::new(AttemptEnd::Success, Duration::from_millis(700));
//!     served = outcome.end == AttemptEnd::Success;
//!     plan.ended(&snapshot, &health, &attempt, &outcome, now);
//! }
//! assert!(served);
//! println!("{}", plan.decision().render(&snapshot));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod budget;
mod endpoint;
pub mod explain;
mod filter;
mod health;
mod id;
mod intent;
mod modality;
mod model;
mod outcome;
mod parameter;
mod plan;
pub mod preferences;
mod price;
mod quantization;
mod settings;
mod snapshot;
mod strategy;
#[cfg(test)]
mod testing;
mod thompson;
mod weight;

pub use endpoint::{DataPolicy, Endpoint, EndpointSpec, Tier};
pub use explain::Decision;
pub use filter::{Constraint, Excluded, Exclusion, NoRoute, NoRouteCode};
pub use health::{
    BlockReason, BreakerState, Course, CredentialView, Elsewhere, EndpointView, FailureClass, Finding, Health, Histogram, HistogramError,
    Increment, Log8, News, Opening, Percentiles, Probes, RegionEvidence, RegionSays, RegionVerdict, RemoteEvidence, RemoteVerdict,
    Reporter, Rule, Seen, SelfTest, SelfVerdict, Sight, VerdictRules, combine, elsewhere, judge, judge_windows,
};
pub use id::{CredentialIndex, EndpointId, EndpointIndex, ModelIndex, ProviderIndex, Timestamp};
pub use intent::{Affinity, Intent, Mode, Needs, TierChoice};
pub use modality::ModalitySet;
pub use model::{Credential, CredentialSpec, Model, ModelSpec, Provider, ProviderSpec};
pub use outcome::{AttemptEnd, Outcome, RateHint};
pub use parameter::ParameterSet;
pub use plan::{AttemptPlan, Exhausted, Next, Plan, Reason};
pub use preferences::{Preferences, PreferencesError, SortBy};
pub use price::{MaxPrice, Price};
pub use quantization::{Quantization, QuantizationSet};
pub use settings::Settings;
pub use snapshot::{BuildError, Snapshot, SnapshotSpec};
pub use strategy::Strategy;
