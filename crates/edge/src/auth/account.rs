//! Who pays for a key, and the limits it counts against: its own, its workspace's and its organisation's together.
//!
//! Keys and owners change independently, so a key's account is put together when the key is used first after either has changed, and is
//! kept with the key.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_ledger::Fee;
use tidegate_quota::{Limit, LimitSet, Shares, StoreDown, Subject};

use super::Keys;
use crate::config::{KeyConfig, MeshConfig, OrganisationConfig, WorkspaceConfig};

/// The organisations and workspaces of one configuration, and who shares limits.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    organisations: HashMap<String, OrganisationConfig>,
    workspaces: HashMap<String, WorkspaceConfig>,
    /// The regions that share global limits; fewer than two share nothing.
    regions: Vec<Arc<str>>,
    own_region: Arc<str>,
    /// The same over all configurations of an edge.
    shares: Arc<Shares>,
}

impl PartialEq for Owners {
    fn eq(&self, other: &Self) -> bool {
        self.organisations == other.organisations && self.workspaces == other.workspaces && self.regions == other.regions
    }
}

/// Whom a key says it belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Membership {
    pub(crate) organisation: Option<Arc<str>>,
    pub(crate) workspace: Option<Arc<str>>,
}

/// Who pays for a key, and what it may spend.
#[derive(Debug)]
pub(crate) struct Account {
    /// Who pays.
    pub(crate) organisation: Option<Arc<str>>,
    pub(crate) workspace: Option<Arc<str>>,
    /// What the organisation pays on top.
    pub(crate) fee: Fee,
    /// Limits of the key, its workspace and its organisation; `None` without any.
    pub(crate) limits: Option<Arc<LimitSet>>,
    /// Credits that its organisation has bought, micro-dollars; `None` when nothing is prepaid.
    pub(crate) credits: Option<u64>,
    /// What it was put together from.
    owners: Arc<Owners>,
}

/// What a key brings into its account.
pub(super) struct Own<'a> {
    /// By which it is counted.
    pub(super) key: &'a str,
    pub(super) membership: &'a Membership,
    pub(super) limits: &'a [Limit],
    pub(super) on_store_down: StoreDown,
}

impl Owners {
    pub(crate) fn of(organisations: &[OrganisationConfig], workspaces: &[WorkspaceConfig]) -> Self {
        Self {
            organisations: organisations.iter().map(|one| (one.name.clone(), one.clone())).collect(),
            workspaces: workspaces.iter().map(|one| (one.name.clone(), one.clone())).collect(),
            ..Self::default()
        }
    }

    /// Shares global limits among these regions, as the edges of `own` with these shares.
    pub(crate) fn sharing(self, regions: &[String], own: &Arc<str>, shares: &Arc<Shares>) -> Self {
        let regions = regions.iter().map(|region| region.as_str().into()).collect();
        Self { regions, own_region: Arc::clone(own), shares: Arc::clone(shares), ..self }
    }

    /// Whether global limits are shared among regions.
    pub(crate) fn is_shared(&self) -> bool {
        self.regions.len() > 1
    }

    /// The regions that share them.
    pub(crate) fn regions(&self) -> &[Arc<str>] {
        &self.regions
    }

    /// This edge's shares.
    pub(crate) fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }

    /// This edge's region.
    pub(crate) fn own_region(&self) -> &Arc<str> {
        &self.own_region
    }
}

impl Account {
    /// The account of a key of a file.
    ///
    /// # Errors
    /// An owner that does not exist, or limits that cannot be counted.
    pub(crate) fn of_config(key: &KeyConfig, owners: &Arc<Owners>) -> Result<Self, String> {
        let membership = Membership::of_config(key);
        let own = Own { key: &key.name, membership: &membership, limits: &key.limits, on_store_down: key.on_store_down };
        Self::of(&own, owners)
    }

    pub(super) fn of(own: &Own<'_>, owners: &Arc<Owners>) -> Result<Self, String> {
        let workspace = match &own.membership.workspace {
            None => None,
            Some(name) => Some(owners.workspaces.get(&**name).ok_or_else(|| format!("there is no workspace `{name}`"))?),
        };
        // A key in a workspace belongs to the workspace's organisation.
        let declared = own.membership.organisation.as_deref();
        let named = workspace.map(|workspace| workspace.organisation.as_str()).or(declared);
        if let (Some(named), Some(declared)) = (named, declared)
            && named != declared
        {
            return Err(format!("the workspace belongs to `{named}`, not to `{declared}`"));
        }
        let organisation = match named {
            None => None,
            Some(name) => Some(owners.organisations.get(name).ok_or_else(|| format!("there is no organisation `{name}`"))?),
        };
        let shared = workspace.into_iter().flat_map(|one| &one.limits).chain(organisation.into_iter().flat_map(|one| &one.limits));
        let limits: Vec<Limit> = own.limits.iter().chain(shared).cloned().collect();
        let subject = Subject {
            // A key without an organisation counts by itself.
            organisation: organisation.map_or_else(|| format!("key:{}", own.key).into(), |one| one.name.as_str().into()),
            workspace: workspace.map(|workspace| workspace.name.as_str().into()),
            key: own.key.into(),
        };
        let limits = match limits.is_empty() {
            true => None,
            false => {
                let limits = LimitSet::compile(subject, &limits, own.on_store_down).map_err(|error| error.to_string())?;
                Some(Arc::new(if owners.is_shared() {
                    limits.with_shares(&owners.shares, &owners.regions, &owners.own_region)
                } else {
                    limits
                }))
            }
        };
        Ok(Self {
            organisation: organisation.map(|organisation| organisation.name.as_str().into()),
            workspace: workspace.map(|workspace| workspace.name.as_str().into()),
            fee: organisation.map(|organisation| organisation.fee).unwrap_or_default(),
            credits: organisation.and_then(|organisation| organisation.credits),
            limits,
            owners: Arc::clone(owners),
        })
    }

    /// Of nobody, without limits.
    pub(super) fn none(owners: &Arc<Owners>) -> Self {
        Self { organisation: None, workspace: None, fee: Fee::default(), limits: None, credits: None, owners: Arc::clone(owners) }
    }

    /// Put together from these owners.
    pub(super) fn is_of(&self, owners: &Arc<Owners>) -> bool {
        Arc::ptr_eq(&self.owners, owners)
    }
}

impl Membership {
    pub(super) fn of_config(key: &KeyConfig) -> Self {
        Self { organisation: key.organisation.as_deref().map(Into::into), workspace: key.workspace.as_deref().map(Into::into) }
    }
}

/// The limits of a key of this name, with those of its workspace and its organisation; `None` when there are none.
///
/// # Errors
/// No such key, or limits that cannot be counted.
pub fn limits_of(config: &MeshConfig, key: &str) -> Result<Option<Arc<LimitSet>>, UnknownKey> {
    let found = config.keys.iter().find(|one| one.name == key);
    let key = found.ok_or_else(|| UnknownKey(format!("there is no key `{key}` in this configuration")))?;
    let owners = Arc::new(Owners::of(&config.organisations, &config.workspaces));
    Ok(Account::of_config(key, &owners).map_err(UnknownKey)?.limits)
}

/// Why the limits of a key cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownKey(String);

impl Keys {
    /// The accounts of every key, with the keys.
    pub(crate) fn accounts<'a>(&'a self, owners: &'a Arc<Owners>) -> impl Iterator<Item = (&'a super::Caller, Arc<Account>)> {
        self.iter().map(move |caller| (&**caller, caller.resolve(owners)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> KeyConfig {
        KeyConfig::new("team", [7; 32])
    }

    #[test]
    fn a_key_counts_with_its_workspace_and_its_organisation() {
        let limit = |scope| Limit::new(scope, tidegate_quota::Dimension::RequestsPerMinute, 5);
        let organisations = [OrganisationConfig {
            limits: vec![limit(tidegate_quota::Scope::Organisation)],
            fee: Fee { markup_ppm: 50_000, own_key_ppm: 0 },
            ..OrganisationConfig::new("acme")
        }];
        let workspaces =
            [WorkspaceConfig { limits: vec![limit(tidegate_quota::Scope::Workspace)], ..WorkspaceConfig::new("search", "acme") }];
        let owners = Arc::new(Owners::of(&organisations, &workspaces));
        let member = KeyConfig { workspace: Some("search".to_owned()), ..key() };
        let account = Account::of_config(&member, &owners).expect("a good key");
        assert_eq!((account.organisation.as_deref(), account.workspace.as_deref()), (Some("acme"), Some("search")));
        assert_eq!(account.fee.markup_ppm, 50_000);
        let limits = account.limits.expect("inherited limits");
        assert_eq!(limits.buckets(limits.select_all()).count(), 2);
        for (organisation, workspace, why) in [
            (None, Some("other"), "no workspace"),
            (Some("other"), None, "no organisation"),
            (Some("other"), Some("search"), "belongs to `acme`"),
        ] {
            let wrong = KeyConfig { organisation: organisation.map(str::to_owned), workspace: workspace.map(str::to_owned), ..key() };
            let error = Account::of_config(&wrong, &owners).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn an_account_follows_its_owners_and_is_kept_while_they_stay() {
        let organisation = |ppm| OrganisationConfig { fee: Fee { markup_ppm: ppm, own_key_ppm: 0 }, ..OrganisationConfig::new("acme") };
        let member = KeyConfig { organisation: Some("acme".to_owned()), ..key() };
        let keys = Keys::of_config(&[member], None, &crate::config::Defaults::default());
        let caller = keys.iter().next().expect("one key");
        let (before, after) = (Arc::new(Owners::of(&[organisation(1)], &[])), Arc::new(Owners::of(&[organisation(2)], &[])));
        let first = caller.resolve(&before);
        assert!(Arc::ptr_eq(&first, &caller.resolve(&before)) && Arc::ptr_eq(&first, &caller.account()));
        assert_eq!(caller.resolve(&after).fee.markup_ppm, 2);
        assert_eq!(caller.account().fee.markup_ppm, 2);
        // An owner that is gone leaves the key without one, but with its own limits.
        assert_eq!(caller.resolve(&Arc::default()).organisation, None);
    }
}
