//! The state as named sections of a snapshot, and back.
//!
//! A section is one protobuf message. Sections that this build does not know are refused: a state that is read in part is another state.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use thiserror::Error;
use tidegate_proto::v1::{
    AuditSection, ChangesSection, GrantsSection, HealthSection, HistorySection, MembersSection, MetaSection, PricesSection,
    RequestsSection, ResourcesSection, RolloutsSection,
};

use super::{Audit, BrokenChain, Changes, Grants, Health, History, Prices, Requests, Resources, Rollouts, State};

/// Number of the format of the sections together; goes up when an older build could not read a newer snapshot.
pub const FORMAT: u32 = 1;

/// Why sections are not a state.
#[derive(Debug, Error)]
pub enum SectionError {
    /// A section that has to be there is not.
    #[error("snapshot lacks the section `{0}`")]
    Missing(&'static str),
    /// Written by a newer build.
    #[error("snapshot has the section `{0}`, which this version does not know: use a newer version")]
    Unknown(String),
    /// Written by a newer build.
    #[error("snapshot has format {0}, this version reads up to {FORMAT}: use a newer version")]
    Format(u32),
    /// Not the message it should be.
    #[error("section `{0}` of the snapshot cannot be read")]
    Decode(&'static str, #[source] prost::DecodeError),
    /// Readable, but not what was written.
    #[error("section `{0}` of the snapshot does not hold what its digest says")]
    Digest(&'static str),
    /// The audit log was tampered with.
    #[error("audit log of the snapshot")]
    Audit(#[from] BrokenChain),
}

impl SectionError {
    /// Name of the section.
    pub fn section(&self) -> &str {
        match self {
            SectionError::Missing(name) | SectionError::Decode(name, _) | SectionError::Digest(name) => name,
            SectionError::Unknown(name) => name,
            SectionError::Format(_) => META,
            SectionError::Audit(_) => AUDIT,
        }
    }
}

impl State {
    /// Every section, by name. Takes time with the size of the state: for a blocking thread.
    pub fn to_sections(&self) -> Vec<(String, Bytes)> {
        let section = |name: &str, message: &dyn Fn() -> Vec<u8>| (name.to_owned(), Bytes::from(message()));
        let (change_floor, change_records) = self.changes.to_wire();
        let mut sections = vec![
            section(META, &|| self.meta(change_floor.clone()).encode_to_vec()),
            section(RESOURCES, &|| {
                ResourcesSection { resources: self.resources().map(|resource| resource.as_ref().clone()).collect() }.encode_to_vec()
            }),
            section(ROLLOUTS, &|| self.rollouts_section().encode_to_vec()),
            section(HISTORY, &|| {
                HistorySection { revisions: self.history.revisions().map(|revision| revision.as_ref().clone()).collect() }.encode_to_vec()
            }),
            section(PRICES, &|| PricesSection { changes: self.prices.changes().cloned().collect() }.encode_to_vec()),
            section(AUDIT, &|| {
                AuditSection { entries: self.audit.entries().map(|entry| entry.as_ref().clone()).collect() }.encode_to_vec()
            }),
            section(REQUESTS, &|| {
                RequestsSection { requests: self.requests.iter().map(|request| request.as_ref().clone()).collect() }.encode_to_vec()
            }),
            section(MEMBERS, &|| MembersSection { members: self.members.values().cloned().collect() }.encode_to_vec()),
            section(CHANGES, &|| ChangesSection { records: change_records.clone() }.encode_to_vec()),
            section(HEALTH, &|| self.health.to_section().encode_to_vec()),
        ];
        if !self.grants.is_empty() {
            // Builds that do not know it read every other snapshot.
            sections.push(section(GRANTS, &|| self.grants.to_section().encode_to_vec()));
        }
        sections
    }

    /// The state that [`State::to_sections`] was called on.
    ///
    /// # Errors
    /// When a section is missing, unknown, unreadable or not what it says it is.
    pub fn from_sections(sections: Vec<(String, Bytes)>) -> Result<State, SectionError> {
        let mut sections: BTreeMap<String, Bytes> = sections.into_iter().collect();
        let meta: MetaSection = take(&mut sections, META)?;
        if meta.format > FORMAT {
            return Err(SectionError::Format(meta.format));
        }
        let resources: ResourcesSection = take(&mut sections, RESOURCES)?;
        let rollouts: RolloutsSection = take(&mut sections, ROLLOUTS)?;
        let history: HistorySection = take(&mut sections, HISTORY)?;
        let prices: PricesSection = take(&mut sections, PRICES)?;
        let audit: AuditSection = take(&mut sections, AUDIT)?;
        let requests: RequestsSection = take(&mut sections, REQUESTS)?;
        let members: MembersSection = take(&mut sections, MEMBERS)?;
        let changes: ChangesSection = take(&mut sections, CHANGES)?;
        let health: HealthSection = take(&mut sections, HEALTH)?;
        let grants: GrantsSection = if sections.contains_key(GRANTS) { take(&mut sections, GRANTS)? } else { GrantsSection::default() };
        if let Some(unknown) = sections.into_keys().next() {
            return Err(SectionError::Unknown(unknown));
        }
        let resources = Resources::restored(resources.resources, rollouts.differing, rollouts.settled);
        if meta.newest != resources.newest().digest().to_bytes().as_slice() {
            return Err(SectionError::Digest(RESOURCES));
        }
        if meta.settled != resources.settled().digest().to_bytes().as_slice() {
            return Err(SectionError::Digest(ROLLOUTS));
        }
        let mut answered = Requests::default();
        requests.requests.into_iter().for_each(|request| answered.push(request));
        Ok(State {
            applied: meta.applied,
            term: meta.term,
            revision: meta.revision,
            leader_time_ms: meta.leader_time_ms,
            resources,
            rollouts: Rollouts::restored(rollouts.rollouts),
            history: History::restored(history.revisions, meta.history_floor),
            prices: Prices::restored(prices.changes),
            audit: Audit::restored(audit.entries, meta.audit_anchor.to_vec(), meta.audit_dropped)?,
            requests: answered,
            members: members.members.into_iter().map(|member| (member.node_id, member)).collect(),
            changes: Changes::from_wire(&meta.change_floor.unwrap_or_default(), &changes.records).ok_or(SectionError::Digest(CHANGES))?,
            health: Health::from_section(health).ok_or(SectionError::Digest(HEALTH))?,
            grants: Grants::from_section(grants).ok_or(SectionError::Digest(GRANTS))?,
        })
    }

    fn meta(&self, change_floor: tidegate_proto::v1::ChangeRecord) -> MetaSection {
        MetaSection {
            format: FORMAT,
            applied: self.applied,
            term: self.term,
            revision: self.revision,
            leader_time_ms: self.leader_time_ms,
            audit_anchor: self.audit.anchor().to_vec().into(),
            audit_dropped: self.audit.dropped(),
            history_floor: self.history.floor(),
            change_floor: Some(change_floor),
            newest: self.newest().digest().to_bytes().to_vec().into(),
            settled: self.settled().digest().to_bytes().to_vec().into(),
        }
    }

    fn rollouts_section(&self) -> RolloutsSection {
        let differing = self.resources.differing();
        RolloutsSection {
            rollouts: self.rollouts.iter().map(Arc::as_ref).cloned().collect(),
            differing: differing.iter().map(Into::into).collect(),
            settled: differing.iter().filter_map(|id| self.settled().get(id)).map(|resource| resource.as_ref().clone()).collect(),
        }
    }
}

fn take<M: Message + Default>(sections: &mut BTreeMap<String, Bytes>, name: &'static str) -> Result<M, SectionError> {
    let bytes = sections.remove(name).ok_or(SectionError::Missing(name))?;
    M::decode(bytes).map_err(|error| SectionError::Decode(name, error))
}

const META: &str = "meta";
const RESOURCES: &str = "resources";
const ROLLOUTS: &str = "rollouts";
const HISTORY: &str = "history";
const PRICES: &str = "prices";
const AUDIT: &str = "audit";
const REQUESTS: &str = "requests";
const MEMBERS: &str = "members_meta";
const CHANGES: &str = "changes";
const HEALTH: &str = "health";
const GRANTS: &str = "grants";
