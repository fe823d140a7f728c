//! Whether a process should get traffic: a set of named conditions that must all hold.

use std::sync::Arc;

use parking_lot::Mutex;

/// The conditions of a process. Clones share them; without any, the process is ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<Vec<Entry>>>,
}

impl Readiness {
    /// No conditions yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that does not hold yet, such as `snapshot`.
    pub fn condition(&self, name: &'static str) -> Condition {
        let mut conditions = self.conditions.lock();
        let index = conditions.len();
        conditions.push(Entry { name, unmet: Some("not reached yet".to_owned()) });
        Condition { readiness: self.clone(), index }
    }

    /// Whether all conditions hold.
    pub fn is_ready(&self) -> bool {
        self.conditions.lock().iter().all(|entry| entry.unmet.is_none())
    }

    /// One line, `name: reason`, for each condition that does not hold.
    pub fn missing(&self) -> Vec<String> {
        self.conditions.lock().iter().filter_map(|entry| Some(format!("{}: {}", entry.name, entry.unmet.as_ref()?))).collect()
    }
}

/// One named condition. Dropping the handle leaves it as it was last set.
#[derive(Debug, Clone)]
pub struct Condition {
    readiness: Readiness,
    index: usize,
}

impl Condition {
    /// The condition holds from now on.
    pub fn met(&self) {
        self.set(None);
    }

    /// The condition does not hold, and why. The reason is shown to anyone who reaches the operations port.
    pub fn unmet(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, unmet: Option<String>) {
        if let Some(entry) = self.readiness.conditions.lock().get_mut(self.index) {
            entry.unmet = unmet;
        }
    }
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    /// Why it does not hold; `None` when it does.
    unmet: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conditions_must_hold() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let snapshot = readiness.condition("snapshot");
        let listeners = readiness.condition("listeners");
        snapshot.met();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.missing(), ["listeners: not reached yet"]);
        listeners.met();
        assert!(readiness.is_ready());
        listeners.unmet("draining");
        assert_eq!(readiness.missing(), ["listeners: draining"]);
    }
}
