//! Targets on this machine only. A load generator that can be pointed at the world is a weapon.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};

/// Where to send requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// A loopback address.
    pub(crate) address: SocketAddr,
    /// Value of the `Host` header and the TLS server name.
    pub(crate) host: String,
    /// Speak TLS.
    pub(crate) tls: bool,
    /// Path before `/chat/completions`, without a trailing slash; empty for a bare origin.
    pub(crate) path: String,
}

impl Target {
    /// Reads `http://host:port/path` or `https://…`. Every address the host resolves to must be loopback.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => bail!("`{url}` is not a URL: it must start with http:// or https://"),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let with_port = if has_port(authority) { authority.to_owned() } else { format!("{authority}:{}", if tls { 443 } else { 80 }) };
        let addresses: Vec<_> = with_port.to_socket_addrs().with_context(|| format!("resolve `{authority}` of target `{url}`"))?.collect();
        let address = loopback_only(&addresses).with_context(|| format!("target `{url}` refused"))?;
        let host = with_port.rsplit_once(':').map_or(authority, |(host, _)| host).to_owned();
        Ok(Self { address, host, tls, path: path.trim_end_matches('/').to_owned() })
    }
}

/// Reads `ip:port` of a loopback address, for command-line options: the relays must not become open ones.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "not an address such as 127.0.0.1:9100".to_owned())?;
    loopback_only(&[address]).map_err(|error| error.to_string())
}

/// The first address, when all of them are loopback.
fn loopback_only(addresses: &[SocketAddr]) -> Result<SocketAddr> {
    if let Some(foreign) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        bail!("{} is not a loopback address; this tool only loads processes on its own machine", foreign.ip());
    }
    addresses.first().copied().context("the host has no address")
}

fn has_port(authority: &str) -> bool {
    match authority.rsplit_once(':') {
        Some((_, port)) => !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_urls_are_accepted() {
        let target = Target::parse("http://127.0.0.1:8080/v1/").unwrap();
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(target.path, "/v1");
        assert!(!target.tls);
        let target = Target::parse("https://[::1]:8443").unwrap();
        assert!(target.tls);
        assert_eq!(target.address.port(), 8443);
        assert_eq!(Target::parse("http://127.8.9.10").unwrap().address.port(), 80);
    }

    #[test]
    fn other_machines_are_refused_with_the_reason() {
        for url in ["http://192.0.2.1:80/v1", "http://0.0.0.0:8080", "https://[2001:db8::1]/v1"] {
            let error = format!("{:#}", Target::parse(url).unwrap_err());
            assert!(error.contains("not a loopback address"), "{url}: {error}");
        }
    }

    #[test]
    fn relays_neither_listen_nor_forward_beyond_this_machine() {
        assert!(address("127.0.0.1:0").is_ok() && address("[::1]:9").is_ok());
        assert!(address("0.0.0.0:80").is_err() && address("192.0.2.1:80").is_err() && address("x").is_err());
    }

    #[test]
    fn what_is_not_a_url_is_refused() {
        for url in ["", "127.0.0.1:80", "ftp://127.0.0.1", "http://"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
