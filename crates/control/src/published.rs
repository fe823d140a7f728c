//! The newest state, for everyone who reads: sync, health, the admin API.

use std::sync::Arc;

use tokio::sync::watch;

use crate::state::State;

/// Where the state is put after each entry. Readers take a reference count and never wait for the one who applies.
#[derive(Debug, Clone)]
pub struct Published {
    sender: Arc<watch::Sender<Arc<State>>>,
}

impl Published {
    /// Begins with a state.
    pub fn new(state: State) -> Published {
        Published { sender: Arc::new(watch::Sender::new(Arc::new(state))) }
    }

    /// The newest state.
    pub fn load(&self) -> Arc<State> {
        self.sender.borrow().clone()
    }

    /// Wakes at each newer state; those in between may be missed.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.sender.subscribe()
    }

    /// Waits until the state has at least this index.
    pub async fn reached(&self, index: u64) -> Arc<State> {
        let mut states = self.watch();
        match states.wait_for(|state| state.applied() >= index).await {
            Ok(state) => state.clone(),
            // The sender lives as long as `self`.
            Err(_closed) => self.load(),
        }
    }

    /// Puts a newer state out.
    pub fn publish(&self, state: &State) {
        self.sender.send_replace(Arc::new(state.clone()));
    }
}
