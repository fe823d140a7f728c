//! The system tests: whole meshes in one process, met from outside. One binary, because linking the product once per file takes longer
//! than running the tests. What needs a process of its own (a global subscriber, a regressions file) is a binary of its own beside it.

mod api;
mod cancel;
mod clients;
mod control_link;
mod errors;
mod first;
mod health;
mod hedge;
mod hygiene;
mod ledger;
mod management;
mod objects;
mod observability;
mod pressure;
mod quota;
mod quota_provider;
mod reconcile;
mod region;
mod reload;
mod rollout;
mod routing;
mod shares;
mod slow_reader;
mod sticky;
mod streaming;
mod translated;
mod wan;
mod wire_tls;
