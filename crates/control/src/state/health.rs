//! What regions said about endpoints, as agreed.

use imbl::OrdMap;
use tidegate_proto::v1::{AgreedCell, HealthBatch, HealthSection};

/// Number of the section's format.
const FORMAT: u32 = 1;

/// Newest cell per region and endpoint.
#[derive(Debug, Clone, Default)]
pub struct Health {
    cells: OrdMap<(String, u64), AgreedCell>,
}

impl Health {
    /// All cells, by region.
    pub fn cells(&self) -> impl Iterator<Item = &AgreedCell> {
        self.cells.values()
    }

    pub(super) fn apply(&mut self, batch: HealthBatch, leader_time_ms: u64) {
        for region in batch.regions {
            for cell in region.cells {
                let key = (region.region.clone(), cell.endpoint);
                self.cells.insert(key, AgreedCell { region: region.region.clone(), cell: Some(cell), leader_time_ms });
            }
        }
    }

    pub(super) fn to_section(&self) -> HealthSection {
        HealthSection { format: FORMAT, cells: self.cells.values().cloned().collect(), ..HealthSection::default() }
    }

    pub(super) fn from_section(section: HealthSection) -> Option<Health> {
        if section.format > FORMAT {
            return None;
        }
        let keyed = section.cells.into_iter().filter_map(|agreed| Some(((agreed.region.clone(), agreed.cell.as_ref()?.endpoint), agreed)));
        Some(Health { cells: keyed.collect() })
    }
}
