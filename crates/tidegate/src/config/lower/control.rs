//! How an edge follows the control plane.

use std::time::Duration;

use tidegate_edge::config::{ControlEndpoint, ControlLinkConfig};
use tidegate_runtime::mesh::IdentityFiles;
use tidegate_runtime::sealing::KekSource;
use tidegate_runtime::tls::CertificateFiles;

use super::{Lowering, Place};
use crate::config::file::{Control, File};

/// Files that an edge needs to follow the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlFiles {
    /// `None` connects without TLS.
    pub(crate) identity: Option<IdentityFiles>,
    /// Opens sealed credentials.
    pub(crate) kek: Option<KekSource>,
}

/// Sections that the control plane says instead.
const FROM_CONTROL: [&str; 10] =
    ["catalog", "providers", "models", "endpoints", "keys", "presets", "defaults", "routing", "organisations", "workspaces"];

impl<'a> Lowering<'a> {
    pub(super) fn control(&mut self, file: &File, root: Place<'a>) -> (Option<ControlLinkConfig>, Option<ControlFiles>) {
        let Some(raw) = &file.control else { return (None, None) };
        let place = root.get("control");
        for section in FROM_CONTROL {
            if root.has(section) {
                let help = "declare it there with `tidegate apply`, or leave `control` out";
                self.warning(root.get(section), "not used: this edge follows the control plane", help);
            }
        }
        if raw.endpoints.is_empty() {
            self.error(place.get("endpoints"), "no control node", "add `- https://control-1.example:7420`");
        }
        let mut secured = Vec::new();
        let mut endpoints = Vec::new();
        let near = raw.endpoints.iter().enumerate().map(|(at, address)| (address, None, place.get("endpoints").item(at)));
        let far = raw.elsewhere.0.iter().flat_map(|(region, addresses)| {
            let place = place.get("elsewhere").get(region);
            addresses.iter().enumerate().map(move |(at, address)| (address, Some(region.clone()), place.item(at)))
        });
        for (address, region, place) in near.chain(far).collect::<Vec<_>>() {
            match split(address) {
                Some((tls, address)) => {
                    secured.push(tls);
                    endpoints.push(ControlEndpoint { address: address.to_owned(), region });
                }
                None => {
                    let help = "write `https://host:port`, or `http://host:port` on a network that encrypts by itself";
                    self.error(place, format!("`{address}` is not the address of a control node"), help);
                }
            }
        }
        let tls = secured.first().copied().unwrap_or_default();
        if secured.iter().any(|one| *one != tls) {
            self.error(place.get("endpoints"), "some with TLS and some without", "use `https://` for all of them");
        }
        if tls && raw.identity.is_none() {
            let help = "add `identity: {cert: tls.crt, key: tls.key, ca: ca.crt}`; `tidegate certs` makes them";
            self.error(place, "`https://` control nodes want a certificate of this edge", help);
        }
        let files = self.control_files(raw, tls, place);
        let mut link = ControlLinkConfig { state_dir: raw.state_dir.clone(), ..ControlLinkConfig::new(self.edge_name(raw), endpoints) };
        set(&mut link.key_grace, raw.key_grace);
        set(&mut link.max_boot_staleness, raw.max_boot_staleness);
        set(&mut link.bake, raw.bake);
        (Some(link), Some(files))
    }

    fn control_files(&mut self, raw: &Control, tls: bool, place: Place<'a>) -> ControlFiles {
        if let Some(identity) = &raw.identity {
            let place = place.get("identity");
            for (name, path) in [("cert", &identity.cert), ("key", &identity.key), ("ca", &identity.ca)] {
                self.file_exists(path, place.get(name));
            }
        }
        if let Some(path) = &raw.kek {
            self.file_exists(path, place.get("kek"));
        }
        let identity = raw.identity.as_ref().filter(|_| tls).map(|identity| IdentityFiles {
            pair: CertificateFiles { cert: identity.cert.clone(), key: identity.key.clone() },
            authorities: vec![identity.ca.clone()],
        });
        ControlFiles { identity, kek: self.kek(raw, place) }
    }

    fn kek(&mut self, raw: &Control, place: Place<'a>) -> Option<KekSource> {
        let Some(command) = &raw.kek_command else { return raw.kek.clone().map(KekSource::File) };
        let place = place.get("kek_command");
        if raw.kek.is_some() {
            self.error(place, "`kek` is given too", "the keys come from one place: leave one of them out");
        }
        if command.first().is_none_or(String::is_empty) {
            self.error(place, "no program", "write the program and its arguments: `[/opt/unwrap, --key, mesh]`");
        }
        let patience = raw.kek_patience.map_or(KEK_PATIENCE, |span| span.0);
        if patience.is_zero() {
            self.error(place, "`kek_patience` leaves it no time", "some seconds, such as `10s`");
        }
        Some(KekSource::Command { command: command.clone(), patience })
    }

    fn edge_name(&self, raw: &Control) -> String {
        let named = raw.name.clone().or_else(|| self.environment.get("HOSTNAME").map(str::to_owned));
        named.filter(|name| !name.is_empty()).unwrap_or_else(|| "edge".to_owned())
    }
}

/// A call to another network, with its retries.
const KEK_PATIENCE: Duration = Duration::from_secs(10);

/// Whether TLS is wanted, and `host:port`.
fn split(address: &str) -> Option<(bool, &str)> {
    let (tls, rest) = match address.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, address.strip_prefix("http://")?),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':')?;
    let plain = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
    (plain && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some((tls, rest))
}

fn set(value: &mut Duration, raw: Option<crate::config::scalar::Span>) {
    if let Some(span) = raw {
        *value = span.0;
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn addresses_have_a_scheme_a_host_and_a_port() {
        assert_eq!(split("https://control-1:7420"), Some((true, "control-1:7420")));
        assert_eq!(split("http://127.0.0.1:7420/"), Some((false, "127.0.0.1:7420")));
        assert_eq!(split("https://[::1]:7420"), Some((true, "[::1]:7420")));
        for wrong in
            ["control-1:7420", "https://control-1", "https://control-1:0", "https://a/b:1", "https://:1", "ftp://a:1", "https://u@a:1"]
        {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
