//! Organisations, workspaces, and limits.

use tidegate_edge::config::{OrganisationConfig, WorkspaceConfig};
use tidegate_ledger::{Fee, Money};
use tidegate_quota::{Dimension, Funding, Limit, Scope, StoreDown, TokenKind, Window};

use super::{Lowering, Names, Place};
use crate::config::file::{self, Organisation, StoreDownName, Workspace};
use crate::config::scalar::{Decimal, Named};
use crate::config::suggest;

impl<'a> Lowering<'a> {
    pub(super) fn organisations(&mut self, raw: &Named<Organisation>, names: &Names, place: Place<'a>) -> Vec<OrganisationConfig> {
        let mut configs = Vec::with_capacity(raw.0.len());
        for (name, organisation) in &raw.0 {
            self.owner_name(name, "an organisation", place);
            let place = place.get(name);
            let (limits, credits) = self.organisation_limits(organisation, Some(names), place);
            let fee = Fee {
                markup_ppm: self.percent(organisation.fee.markup_percent.as_ref(), place.get("fee").get("markup_percent")),
                own_key_ppm: self.percent(organisation.fee.own_key_percent.as_ref(), place.get("fee").get("own_key_percent")),
            };
            configs.push(OrganisationConfig { name: name.clone(), fee, limits, credits });
        }
        configs
    }

    /// The limits of an organisation, that of its credits among them.
    pub(super) fn organisation_limits(
        &mut self,
        organisation: &Organisation,
        names: Option<&Names>,
        place: Place<'a>,
    ) -> (Vec<Limit>, Option<u64>) {
        let mut limits = self.owner_limits(&organisation.limits, Scope::Organisation, names, place.get("limits"));
        let credits = organisation.credits.as_ref().and_then(|credits| self.dollars(credits, place.get("credits")));
        if let Some(credits) = credits {
            if limits.iter().any(is_whole_total) {
                self.error(place.get("credits"), "credits beside a `spend_total` limit count the same", "keep one of them");
            }
            let total = Limit::new(Scope::Organisation, Dimension::Spend(Window::Total), credits);
            // Nothing is lent twice: regions that share limits share what was paid.
            limits.push(Limit { funding: Funding::Prepaid, global: true, ..total });
        }
        (limits, credits)
    }

    pub(super) fn workspaces(
        &mut self,
        raw: &Named<Workspace>,
        organisations: &Named<Organisation>,
        names: &Names,
        place: Place<'a>,
    ) -> Vec<WorkspaceConfig> {
        let mut configs = Vec::with_capacity(raw.0.len());
        for (name, workspace) in &raw.0 {
            self.owner_name(name, "a workspace", place);
            let place = place.get(name);
            let known: Vec<&str> = organisations.0.iter().map(|(name, _)| name.as_str()).collect();
            if !known.contains(&workspace.organisation.as_str()) && !self.is_dangling("organisations", &workspace.organisation) {
                let help = match suggest::nearest(&workspace.organisation, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "declare it under `organisations`".to_owned(),
                };
                self.error(place.get("organisation"), format!("no organisation `{}`", workspace.organisation), help);
            }
            let limits = self.owner_limits(&workspace.limits, Scope::Workspace, Some(names), place.get("limits"));
            configs.push(WorkspaceConfig { name: name.clone(), organisation: workspace.organisation.clone(), limits });
        }
        configs
    }

    /// The limits of one scope. What is wrong with one is reported, and it is left out. Without `names`, models are not looked up.
    pub(super) fn owner_limits(&mut self, raw: &[file::Limit], scope: Scope, names: Option<&Names>, place: Place<'a>) -> Vec<Limit> {
        let mut limits = Vec::with_capacity(raw.len());
        for (index, limit) in raw.iter().enumerate() {
            limits.extend(self.owner_limit(limit, scope, names, place.item(index)));
        }
        limits
    }

    fn owner_limit(&mut self, raw: &file::Limit, scope: Scope, names: Option<&Names>, place: Place<'a>) -> Option<Limit> {
        let counts = [
            ("requests_per_minute", raw.requests_per_minute, Dimension::RequestsPerMinute),
            ("tokens_per_minute", raw.tokens_per_minute, Dimension::TokensPerMinute(TokenKind::Both)),
            ("input_tokens_per_minute", raw.input_tokens_per_minute, Dimension::TokensPerMinute(TokenKind::Input)),
            ("output_tokens_per_minute", raw.output_tokens_per_minute, Dimension::TokensPerMinute(TokenKind::Output)),
            ("concurrent_requests", raw.concurrent_requests, Dimension::Concurrent),
            ("free_requests_per_day", raw.free_requests_per_day, Dimension::FreeRequestsPerDay),
        ];
        let money = [
            ("spend_per_day", &raw.spend_per_day, Dimension::Spend(Window::Day)),
            ("spend_per_week", &raw.spend_per_week, Dimension::Spend(Window::Week)),
            ("spend_per_month", &raw.spend_per_month, Dimension::Spend(Window::Month)),
            ("spend_total", &raw.spend_total, Dimension::Spend(Window::Total)),
        ];
        let mut given: Vec<(Dimension, Option<u64>)> = Vec::new();
        given.extend(counts.into_iter().filter_map(|(_, amount, dimension)| Some((dimension, Some(amount?)))));
        for (name, amount, dimension) in money {
            if let Some(amount) = amount {
                given.push((dimension, self.dollars(amount, place.get(name))));
            }
        }
        let [(dimension, amount)] = given[..] else {
            let message = if given.is_empty() { "a limit without an amount" } else { "a limit with more than one amount" };
            self.error(place, message, "give exactly one, such as `{requests_per_minute: 60}`; each limit is an item of its own");
            return None;
        };
        let model = raw.model.as_ref().map(|slug| match names {
            Some(names) => {
                self.known_model(slug, names, place.get("model"));
                names.models.get(slug).unwrap_or(slug).as_str().into()
            }
            None => slug.as_str().into(),
        });
        if let (Some(provider), Some(names)) = (&raw.provider, names) {
            self.known_provider(provider, names, place.get("provider"));
        }
        Some(Limit {
            model,
            provider: raw.provider.as_deref().map(Into::into),
            burst: raw.burst,
            shadow: raw.shadow,
            warn_at: raw.warn_at,
            global: raw.global,
            utc_offset_minutes: raw.utc_offset_minutes.unwrap_or(0),
            ..Limit::new(scope, dimension, amount?)
        })
    }

    fn known_provider(&mut self, name: &str, names: &Names, place: Place<'a>) {
        if !names.providers.contains(name) && !self.is_dangling("providers", name) {
            let near = suggest::nearest(name, names.providers.iter().map(String::as_str));
            let help = near.map_or("declare it under `providers`".to_owned(), |near| format!("did you mean `{near}`?"));
            self.error(place, format!("no provider `{name}`"), help);
        }
    }

    /// US dollars as micro-dollars.
    fn dollars(&mut self, text: &Decimal, place: Place<'a>) -> Option<u64> {
        let micro = Money::parse_usd(&text.0).ok().filter(|amount| amount.picodollars() % 1_000_000 == 0);
        let micro = micro.and_then(|amount| u64::try_from(amount.picodollars() / 1_000_000).ok());
        if micro.is_none() {
            self.error(
                place,
                format!("`{}` is not an amount of US dollars", text.0),
                "write a number with at most six decimals, such as `12.50`",
            );
        }
        micro
    }

    /// Per cent as parts per million; 0 when absent.
    fn percent(&mut self, text: Option<&Decimal>, place: Place<'a>) -> u32 {
        let Some(text) = text else { return 0 };
        let scaled = Money::parse_usd(&text.0).ok().map(Money::picodollars).filter(|picodollars| picodollars % 100_000_000 == 0);
        let ppm = scaled.and_then(|picodollars| u32::try_from(picodollars / 100_000_000).ok()).filter(|ppm| *ppm <= MOST_PPM);
        if ppm.is_none() {
            self.error(place, format!("`{}` is not a percentage", text.0), "write 0 to 1000 with at most four decimals, such as `5.5`");
        }
        ppm.unwrap_or(0)
    }

    fn owner_name(&mut self, name: &str, what: &str, place: Place<'a>) {
        if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
            let help = "use 1 to 100 printable characters; it appears in records";
            self.error_of_key(place, name, format!("not a name for {what}"), help);
        }
    }
}

/// It counts what credits count.
fn is_whole_total(limit: &Limit) -> bool {
    limit.dimension == Dimension::Spend(Window::Total) && limit.model.is_none() && limit.provider.is_none()
}

impl StoreDownName {
    pub(super) fn lower(self) -> StoreDown {
        match self {
            Self::Local => StoreDown::Local,
            Self::Open => StoreDown::Open,
            Self::Closed => StoreDown::Closed,
        }
    }
}

/// Ten times the price on top: more is a slip of the decimal point.
const MOST_PPM: u32 = 10_000_000;
