//! From the file of a control node to what it is told to be.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use tidegate_consensus::{ConsensusConfig, Timing};
use tidegate_control::ControlConfig;
use tidegate_control::admin::{Access, Certificate, Role, Token};
use tidegate_runtime::logging::LogConfig;
use tidegate_runtime::mesh::IdentityFiles;
use tidegate_runtime::sealing::PublicKeyring;

use super::process::{log, same_port};
use super::{Lowering, Place, Sealed, Secrets};
use crate::config::file::control_node::{ControlFile, RoleName, TimingName};
use crate::config::problem::Report;
use crate::config::read::{Environment, ReadingOf, read_as};

/// What the process of a control node needs.
#[derive(Debug)]
pub(crate) struct ControlNode {
    pub(crate) node: ControlConfig,
    pub(crate) log: LogConfig,
}

/// Reads and checks the file of a control node; the report holds every problem.
pub(crate) fn control_node(name: &str, text: &str, environment: &Environment, secrets: Secrets) -> (Option<ControlNode>, Report) {
    let ReadingOf { report, file, tree, whole } = match read_as::<ControlFile>(name, text, environment) {
        Ok(reading) => reading,
        Err(report) => return (None, report),
    };
    let whole = Place::of(&whole);
    let mut lowering = Lowering { environment, secrets, sealed: Sealed::Nowhere, report, whole, dangling: HashMap::new() };
    let node = lowering.control_node(&file, Place::of(&tree));
    let mut report = lowering.report;
    report.tidy();
    let control = (!report.has_errors()).then(|| ControlNode { node, log: log(&file.log) });
    (control, report)
}

impl<'a> Lowering<'a> {
    fn control_node(&mut self, file: &ControlFile, root: Place<'a>) -> ControlConfig {
        let region = file.region.clone().unwrap_or_else(|| "local".to_owned());
        for (text, key, what) in [(&file.name, "name", "a node"), (&region, "region", "a region")] {
            if text.is_empty() || text.len() > 64 || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/') {
                self.error(root.get(key), format!("not a name for {what}"), "use a short word such as `control-1` or `eu-west-1`");
            }
        }
        let listeners = [
            ("raft", file.raft.listen.0, &file.raft.advertise),
            ("sync", file.sync.listen.0, &file.sync.advertise),
            ("admin", file.admin.listen.0, &file.admin.advertise),
        ];
        self.ports(&listeners, file.operations.enabled.then_some(file.operations.address.0), root);
        if file.identity.is_none() {
            for (section, address, _) in &listeners {
                if !address.ip().is_loopback() {
                    let place = root.get(section).get("listen");
                    let help = "give the node an `identity` (`tidegate certs dev` makes one), or listen on a loopback address";
                    self.error(place, "strangers could reach this plain listener and be taken for members of the mesh", help);
                }
            }
        }
        let [raft, sync, admin] =
            listeners.map(|(section, address, advertise)| self.advertised(address, advertise.as_deref(), root.get(section)));
        for (index, peer) in file.raft.peers.iter().enumerate() {
            self.host_and_port(peer, root.get("raft").get("peers").item(index), CONTROL_EXAMPLE);
        }
        let identity = file.identity.as_deref().map(IdentityFiles::in_dir);
        if let Some(files) = &identity {
            for path in [&files.pair.cert, &files.pair.key].into_iter().chain(&files.authorities) {
                self.file_exists(path, root.get("identity"));
            }
        }
        ControlConfig {
            consensus: ConsensusConfig {
                region,
                voter: file.raft.voter.unwrap_or(true),
                peers: file.raft.peers.clone(),
                timing: match file.raft.timing {
                    TimingName::Local => Timing::LOCAL,
                    TimingName::Continental => Timing::CONTINENTAL,
                    TimingName::Global => Timing::GLOBAL,
                },
                preferred_regions: file.raft.preferred_regions.clone(),
                ..ConsensusConfig::new(&file.data_dir, &file.name, raft)
            },
            raft_listen: file.raft.listen.0,
            sync_listen: file.sync.listen.0,
            admin_listen: file.admin.listen.0,
            operations: file.operations.enabled.then_some(file.operations.address.0),
            admin_address: admin,
            sync_address: sync,
            access: self.access(file, root.get("admin")),
            keyring: self.keyring(file, root.get("sealing").get("key_file")),
            pepper: file.keys_pepper.as_ref().and_then(|reference| self.secret(reference, root.get("keys_pepper"))),
            bake: file.rollout.bake.0,
            audit_archive: file.audit_archive.clone().unwrap_or_else(|| file.data_dir.join("audit")),
            identity,
        }
    }

    fn ports(&mut self, listeners: &[(&str, SocketAddr, &Option<String>)], operations: Option<SocketAddr>, root: Place<'a>) {
        let all: Vec<(&str, SocketAddr)> = listeners
            .iter()
            .map(|(section, address, _)| (*section, *address))
            .chain(operations.map(|address| ("operations", address)))
            .collect();
        for (position, (section, address)) in all.iter().enumerate() {
            if let Some((other, _)) = all[..position].iter().find(|(_, taken)| same_port(*taken, *address)) {
                self.error(root.get(section), format!("{address} is the address of `{other}` too"), "give one of them another port");
            }
        }
    }

    /// The address that others are told.
    fn advertised(&mut self, listen: SocketAddr, advertise: Option<&str>, place: Place<'a>) -> String {
        match advertise {
            Some(address) => {
                self.host_and_port(address, place.get("advertise"), CONTROL_EXAMPLE);
                address.to_owned()
            }
            None if listen.ip().is_unspecified() => {
                let help = "add `advertise: HOST:PORT`, the address under which others reach this node";
                self.error(place.get("listen"), "no other machine can call this address", help);
                String::new()
            }
            None => listen.to_string(),
        }
    }

    fn access(&mut self, file: &ControlFile, place: Place<'a>) -> Access {
        let mut access = Access::default();
        for (index, token) in file.admin.tokens.iter().enumerate() {
            let at = place.get("tokens").item(index);
            match tidegate_runtime::api_key::parse_digest(&token.digest) {
                Some(digest) => access.tokens.push(Token { name: token.name.clone(), digest, roles: roles(&token.roles) }),
                None => {
                    let help = "write `blake3:` and 64 hex digits, as printed by `tidegate key new`; never the token itself";
                    self.error(at.get("digest"), "not the digest of a token", help);
                }
            }
            if file.admin.tokens[..index].iter().any(|other| other.name == token.name) {
                self.error(at.get("name"), format!("a second token named `{}`", token.name), "names tell actors apart in the audit log");
            }
        }
        for certificate in &file.admin.certificates {
            access.certificates.push(Certificate { name: certificate.name.clone(), roles: roles(&certificate.roles) });
        }
        if file.admin.certificates.is_empty() {
            access.certificates.push(Certificate { name: "*".to_owned(), roles: Role::ALL.into_iter().collect() });
        }
        if file.identity.is_none() && file.admin.tokens.is_empty() {
            access.anyone = Role::ALL.into_iter().collect();
        }
        access
    }

    fn keyring(&mut self, file: &ControlFile, place: Place<'a>) -> Option<PublicKeyring> {
        let path = file.sealing.key_file.as_ref()?;
        if !path.is_file() {
            self.file_exists(path, place);
            return None;
        }
        match PublicKeyring::read(path) {
            Ok(keyring) => Some(keyring),
            Err(error) => {
                self.error(place, error.to_string(), "write what `tidegate kek public` prints; the private half stays with the edges");
                None
            }
        }
    }
}

fn roles(names: &[RoleName]) -> BTreeSet<Role> {
    names
        .iter()
        .map(|name| match name {
            RoleName::Viewer => Role::Viewer,
            RoleName::Operator => Role::Operator,
            RoleName::KeyAdmin => Role::KeyAdmin,
            RoleName::SecretAdmin => Role::SecretAdmin,
        })
        .collect()
}

const CONTROL_EXAMPLE: &str = "write `control-1.example.org:7201`";

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(String, String)> {
        let (_, report) = control_node("control.yaml", text, &Environment::default(), Secrets::Required);
        report.problems.into_iter().map(|problem| (problem.path, problem.message)).collect()
    }

    const GOOD: &str = "name: c1\ndata_dir: data\nraft: { listen: 127.0.0.1:7201 }\n";

    #[test]
    fn three_lines_are_enough_on_one_machine() {
        let (control, report) = control_node("control.yaml", GOOD, &Environment::default(), Secrets::Required);
        let node = control.unwrap_or_else(|| panic!("{}", report.render(false))).node;
        assert_eq!((node.consensus.address.as_str(), node.admin_address.as_str()), ("127.0.0.1:7201", "127.0.0.1:7203"));
        assert_eq!(node.access.anyone.len(), 4);
        assert_eq!(node.audit_archive, std::path::Path::new("data/audit"));
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let text = "name: a b\ndata_dir: data\nraft: { listen: 0.0.0.0:7202, peers: [nowhere] }\nadmin: { tokens: [{ name: x, digest: secret, \
                    roles: [king] }] }\nsealing: { key_file: /nowhere/kek }\n";
        let found = problems(text);
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        for path in ["name", "raft.listen", "raft.peers[0]", "admin.tokens[0].roles[0]", "sealing.key_file"] {
            assert!(paths.contains(&path), "{path}: {found:?}");
        }
        assert!(found.iter().any(|(_, message)| message.contains("is the address of `raft` too")), "{found:?}");
    }

    #[test]
    fn with_tokens_nobody_is_let_in_without_one() {
        let digest = "a".repeat(64);
        let text = format!("{GOOD}admin: {{ tokens: [{{ name: ci, digest: 'blake3:{digest}', roles: [operator, key-admin] }}] }}\n");
        let (control, report) = control_node("control.yaml", &text, &Environment::default(), Secrets::Required);
        let access = control.unwrap_or_else(|| panic!("{}", report.render(false))).node.access;
        assert!(access.anyone.is_empty());
        assert_eq!(access.tokens[0].roles, [Role::Operator, Role::KeyAdmin].into());
    }

    #[test]
    fn a_misspelt_key_is_named() {
        assert_eq!(problems(&format!("{GOOD}regoin: eu\n")), [("regoin".to_owned(), "unknown key `regoin`".to_owned())]);
    }
}
