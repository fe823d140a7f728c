//! Where use is counted.

use std::path::Path;

use secrecy::SecretString;
use tidegate_edge::config::{QuotaConfig, StoreConfig};
use tidegate_quota::{RedisAuth, RedisOptions, RedisTls, RedisTopology};

use super::{Lowering, Place};
use crate::config::file;
use crate::config::scalar::SecretRef;

impl<'a> Lowering<'a> {
    pub(super) fn quota(&mut self, raw: &file::Quota, place: Place<'a>) -> QuotaConfig {
        let store = match &raw.redis {
            None => StoreConfig::Memory,
            Some(redis) => match self.redis(redis, place.get("redis")) {
                Some(options) => StoreConfig::Redis(Box::new(options)),
                // Reported: the configuration is not used.
                None => StoreConfig::Memory,
            },
        };
        QuotaConfig { store }
    }

    fn redis(&mut self, raw: &file::Redis, place: Place<'a>) -> Option<RedisOptions> {
        let topology = match (&raw.address, raw.sentinels.as_slice(), raw.cluster.as_slice()) {
            (Some(address), [], []) => {
                self.host_and_port(address, place.get("address"), REDIS_EXAMPLE);
                RedisTopology::Single(address.clone())
            }
            (None, [_, ..], []) => {
                self.hosts_and_ports(&raw.sentinels, place.get("sentinels"));
                let primary = raw.primary.clone().unwrap_or_else(|| "mymaster".to_owned());
                RedisTopology::Sentinel { sentinels: raw.sentinels.clone(), primary }
            }
            (None, [], [_, ..]) => {
                self.hosts_and_ports(&raw.cluster, place.get("cluster"));
                RedisTopology::Cluster(raw.cluster.clone())
            }
            _ => {
                self.error(place, "which Redis?", "give exactly one of `address`, `sentinels` and `cluster`");
                return None;
            }
        };
        if matches!(topology, RedisTopology::Cluster(_)) && raw.database != 0 {
            self.error(place.get("database"), "a cluster has database 0 only", "leave it out");
        }
        let mut options = RedisOptions::new(topology);
        options.auth = self.redis_auth(raw.username.as_ref(), raw.password.as_ref(), "password", place);
        options.sentinel_auth = self.redis_auth(raw.sentinel_username.as_ref(), raw.sentinel_password.as_ref(), "sentinel_password", place);
        options.tls = raw.tls.as_ref().map(|tls| self.redis_tls(tls, place.get("tls")));
        options.database = raw.database;
        options.connections = raw.connections.unwrap_or(options.connections);
        options.call_timeout = raw.call_timeout.map_or(options.call_timeout, |span| span.0);
        options.connect_timeout = raw.connect_timeout.map_or(options.connect_timeout, |span| span.0);
        for (name, nothing) in [
            ("connections", options.connections == 0),
            ("call_timeout", options.call_timeout.is_zero()),
            ("connect_timeout", options.connect_timeout.is_zero()),
        ] {
            if nothing {
                self.error(place.get(name), format!("with `{name}` at 0 nothing could be counted"), "leave it out for the default");
            }
        }
        Some(options)
    }

    fn redis_auth(&mut self, username: Option<&String>, password: Option<&SecretRef>, name: &str, place: Place<'a>) -> Option<RedisAuth> {
        let Some(password) = password else {
            if username.is_some() {
                self.error(place, format!("a user without `{name}`"), "Redis users have passwords: refer to one with `env:NAME`");
            }
            return None;
        };
        let password = self.secret(password, place.get(name))?;
        Some(RedisAuth { username: username.cloned(), password })
    }

    fn redis_tls(&mut self, raw: &file::RedisTls, place: Place<'a>) -> RedisTls {
        let roots = raw.ca.as_ref().and_then(|path| self.pem(path, place.get("ca")));
        let client = match (&raw.cert, &raw.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                let (cert, key) = (self.pem(cert, place.get("cert")), self.pem(key, place.get("key")));
                cert.zip(key.and_then(|key| String::from_utf8(key).ok()).map(SecretString::from))
            }
            _ => {
                self.error(place, "a certificate needs its key, and a key its certificate", "give both `cert` and `key`");
                None
            }
        };
        RedisTls { roots, client }
    }

    /// Reads a PEM file; a missing one is reported as seriously as secrets are.
    fn pem(&mut self, path: &Path, place: Place<'a>) -> Option<Vec<u8>> {
        self.file_exists(path, place);
        std::fs::read(path).ok()
    }

    fn hosts_and_ports(&mut self, addresses: &[String], place: Place<'a>) {
        for (index, address) in addresses.iter().enumerate() {
            self.host_and_port(address, place.item(index), REDIS_EXAMPLE);
        }
    }
}

const REDIS_EXAMPLE: &str = "write `redis.internal:6379`; TLS is switched on by `tls: {}`";
