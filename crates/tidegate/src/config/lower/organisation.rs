//! Organisations and workspaces: names that keys refer to.

use super::{Lowering, Place, SLUG_HELP, is_slug};
use crate::config::file::{Organisation, Workspace};
use crate::config::scalar::Named;
use crate::config::suggest;

impl<'a> Lowering<'a> {
    pub(super) fn organisations(&mut self, organisations: &Named<Organisation>, place: Place<'a>) {
        for (slug, _) in &organisations.0 {
            if !is_slug(slug) {
                self.error_of_key(place, slug, format!("`{slug}` cannot be the slug of an organisation"), SLUG_HELP);
            }
        }
    }

    pub(super) fn workspaces(&mut self, workspaces: &Named<Workspace>, organisations: &Named<Organisation>, place: Place<'a>) {
        for (slug, raw) in &workspaces.0 {
            if !is_slug(slug) {
                self.error_of_key(place, slug, format!("`{slug}` cannot be the slug of a workspace"), SLUG_HELP);
            }
            let known: Vec<&str> = organisations.0.iter().map(|(slug, _)| slug.as_str()).collect();
            if !known.contains(&raw.organisation.as_str()) && !self.is_dangling("organisations", &raw.organisation) {
                let help = match suggest::nearest(&raw.organisation, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "declare it under `organisations`".to_owned(),
                };
                self.error(place.get(slug).get("organisation"), format!("no organisation `{}`", raw.organisation), help);
            }
        }
    }
}
