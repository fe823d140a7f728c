//! Following the control plane: one stream to any control node, and what is done with what comes.
//!
//! The control plane is never between a caller and an answer. Requests read what is in memory; this task, off their path, replaces it
//! when something newer has proven itself. While no control node can be reached everything goes on as it was, and a restarted edge
//! begins with what it kept ([`last_good`](self)). The parts: `places` says where to connect, [`Replica`] holds what was received,
//! `trial` compiles it without trusting it, `guard` keeps a configuration that killed the process from killing the next one.

mod follow;
mod guard;
mod last_good;
mod management;
mod missed;
mod places;
mod replica;
mod stream;
mod trial;

use std::sync::Arc;

use tidegate_proto::{Problem, ResourceMap};
use tidegate_runtime::mesh::Dial;

pub use crate::auth::ReadPolicy;
use crate::config::{Defaults, MeshConfig};
pub(crate) use follow::{Aside, Link, Place};
pub(crate) use management::{ManageError, Management};
pub(crate) use missed::Missed;
pub use replica::{Divergence, Replica, Taken};

/// Turns the resources of a cluster into what the edge is told. Opens sealed credentials on the way, for which the cluster's id is part of
/// what was authenticated. Keys are not among the resources.
pub type Compile = Arc<dyn Fn(&str, &ResourceMap) -> Result<MeshConfig, Vec<Problem>> + Send + Sync>;

/// What an edge needs to follow the control plane, besides its configuration.
#[derive(Clone)]
pub struct ControlServices {
    /// How connections to control nodes are made.
    pub dial: Arc<dyn Dial>,
    /// See [`Compile`].
    pub compile: Compile,
    /// Understands what a key may do.
    pub read_policy: ReadPolicy,
}

/// What an edge routes by that has not heard of the control plane yet: nothing. To start an edge with that follows one.
#[must_use]
pub fn nothing() -> MeshConfig {
    MeshConfig {
        revision: 0,
        providers: Vec::new(),
        models: Vec::new(),
        endpoints: Vec::new(),
        keys: Vec::new(),
        keys_pepper: None,
        organisations: Vec::new(),
        workspaces: Vec::new(),
        presets: Vec::new(),
        defaults: Defaults::default(),
        settings: tidegate_routing::Settings::default(),
    }
}
