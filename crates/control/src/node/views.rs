//! Gives each edge that follows this node what it does not know yet of its region's health.

use std::collections::HashMap;
use std::time::Duration;

use tidegate_runtime::Shutdown;

use crate::fleet::{FleetService, ViewCursor};
use crate::publisher::Followers;

/// Edges hear at least this often that what they were told still holds.
const AT_LEAST: Duration = Duration::from_secs(1);

/// Runs until the stop is requested.
pub async fn run(fleet: FleetService, followers: Followers, shutdown: Shutdown) {
    let mut changes = fleet.changes();
    let mut cursors: HashMap<(String, u64), ViewCursor> = HashMap::new();
    loop {
        // Dropping a branch is safe: all edges are looked at again.
        tokio::select! {
            () = shutdown.requested() => return,
            _ = changes.changed() => {}
            () = tokio::time::sleep(AT_LEAST) => {}
        }
        let all = followers.all();
        let mut kept = HashMap::with_capacity(all.len());
        let mut judged: HashMap<String, bool> = HashMap::new();
        for follower in all {
            let introduction = &follower.introduction;
            let judges_it = match judged.get(&introduction.region) {
                Some(judges_it) => *judges_it,
                None => *judged.entry(introduction.region.clone()).or_insert_with_key(|region| fleet.judges(region)),
            };
            // What others are to know comes from their own region.
            if !judges_it {
                continue;
            }
            let key = (introduction.edge.clone(), introduction.instance);
            let mut cursor = cursors.remove(&key).unwrap_or_default();
            if let Some(view) = fleet.view(&introduction.edge, &mut cursor) {
                followers.offer_health(&introduction.edge, &view);
            }
            kept.insert(key, cursor);
        }
        // Edges that left are forgotten: whoever comes back is told everything.
        cursors = kept;
    }
}
