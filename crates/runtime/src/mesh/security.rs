//! The one choice a process makes about its connections: mutual TLS, or plain TCP where that is meant.

use std::io;
use std::sync::Arc;

use prometheus::Registry;
use tokio::net::TcpListener;

use super::{
    Accept, Admit, Dial, Identity, IdentityFiles, MeshMetrics, MeshName, MtlsDialer, MtlsListener, MtlsOptions, PlainDialer, PlainListener,
};
use crate::clock::Clock;
use crate::tasks::Tasks;
use crate::tls::{Reloader, TlsError};

/// How a process talks to the rest of its mesh; makes its diallers and listeners. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Security {
    /// Nobody proves who they are: one machine, or a network that sees to it.
    Plain,
    /// Everybody does.
    Mtls {
        /// Ours.
        identity: Arc<Identity>,
        /// Shared by all connections of the process.
        metrics: MeshMetrics,
        /// Bounds of the connections.
        options: MtlsOptions,
    },
}

/// Why a process cannot prove who it is.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// The files are not usable.
    #[error("the identity of this process: {0}")]
    Identity(#[from] TlsError),
    /// The metrics are registered already.
    #[error("metrics of the mesh's connections: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Security {
    /// Mutual TLS with the identity in `files`, which is renewed until the stop of `tasks`. Once per process. The expiry of the
    /// certificate is measured by [`crate::tls::register_certificate_metrics`], together with those of the listeners.
    pub fn mtls(files: IdentityFiles, registry: &Registry, clock: Clock, tasks: &Tasks) -> Result<Self, SecurityError> {
        let identity = Identity::load(files, Identity::DEFAULT_OVERLAP, clock.unix_seconds())?;
        let metrics = MeshMetrics::register(registry)?;
        identity.start(Reloader::DEFAULT_INTERVAL, clock, tasks);
        Ok(Self::Mtls { identity, metrics, options: MtlsOptions::default() })
    }

    /// Who we are; `None` when nobody asks.
    pub fn name(&self) -> Option<&MeshName> {
        match self {
            Self::Plain => None,
            Self::Mtls { identity, .. } => Some(identity.name()),
        }
    }

    /// The identity, for its metrics.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match self {
            Self::Plain => None,
            Self::Mtls { identity, .. } => Some(identity),
        }
    }

    /// Makes connections to others.
    pub fn dialer(&self) -> Arc<dyn Dial> {
        match self {
            Self::Plain => Arc::new(PlainDialer::default()),
            Self::Mtls { identity, metrics, options } => Arc::new(MtlsDialer::new(Arc::clone(identity), metrics.clone(), *options)),
        }
    }

    /// Takes connections on `listener` until the stop of `tasks`. `admit` counts where callers prove who they are.
    pub fn listener(&self, listener: TcpListener, admit: Admit, tasks: &Tasks) -> io::Result<Arc<dyn Accept>> {
        match self {
            Self::Plain => Ok(Arc::new(PlainListener::new(listener))),
            Self::Mtls { identity, metrics, options } => {
                let listener = MtlsListener::start(listener, Arc::clone(identity), admit, metrics.clone(), *options, tasks)?;
                Ok(Arc::new(listener))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dev_ca::{LeafOptions, MeshCa};
    use crate::mesh::{Expect, Role};

    const LONG: Duration = Duration::from_secs(30);

    async fn talk(server: &Security, client: &Security, tasks: &Tasks) -> Option<MeshName> {
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let listener = server.listener(socket, Admit::roles([Role::Edge]), tasks).unwrap();
        let dialer = client.dialer();
        let (dialled, accepted) = tokio::join!(dialer.dial(&address, Expect::role(Role::Control)), listener.accept());
        dialled.unwrap();
        accepted.unwrap().1.name
    }

    #[tokio::test]
    async fn both_choices_make_connections() {
        let tasks = Tasks::new();
        assert_eq!(talk(&Security::Plain, &Security::Plain, &tasks).await, None);

        let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::start());
        let authority = MeshCa::create(dir.path(), "mesh.test", false, clock.unix_seconds()).unwrap();
        let secured = |role: Role| {
            let name = MeshName::new("mesh.test", "eu", role, role.as_str()).unwrap();
            let options = LeafOptions { dns: Vec::new(), ips: Vec::new(), life: Duration::from_secs(3_600) };
            let issued = authority.issue(&dir.path().join(role.as_str()), &name, &options, clock.unix_seconds()).unwrap();
            Security::mtls(issued.files, &Registry::new(), clock, &tasks).unwrap()
        };
        let (control, edge) = (secured(Role::Control), secured(Role::Edge));
        assert_eq!(talk(&control, &edge, &tasks).await.as_ref(), edge.name());
        tasks.close(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_identity_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Security::mtls(IdentityFiles::in_dir(dir.path()), &Registry::new(), Clock::start(), &Tasks::new()).unwrap_err();
        assert!(error.to_string().contains("the identity of this process: read "), "{error}");
    }
}
