//! Several gRPC services on one listener, told apart by the first part of the path.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tidegate_proto::v1::relay_server::RelayServer;
use tidegate_proto::v1::shares_server::SharesServer;
use tidegate_proto::v1::sync_server::SyncServer;
use tidegate_runtime::Shutdown;
use tidegate_runtime::mesh::{Accept, BoxFuture, incoming, server};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use crate::api::sync::SyncService;
use crate::fleet::FleetService;
use crate::relay::RelayService;
use crate::shares::ShareService;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// What other control nodes call.
#[derive(Clone)]
pub(super) struct Mounted {
    pub(super) raft: tidegate_consensus::RaftService,
    pub(super) relay: RelayServer<RelayService>,
    pub(super) sync: SyncServer<SyncService>,
    pub(super) shares: SharesServer<ShareService>,
    /// Empty until the node has a place in a cluster.
    pub(super) fleet: Arc<OnceLock<FleetService>>,
}

impl Service<Request> for Mounted {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // All of them are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let name = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        if name == tidegate_consensus::RaftService::NAME {
            return self.raft.call(request);
        }
        if name == RelayServer::<RelayService>::NAME {
            return self.relay.call(request);
        }
        if name == SyncServer::<SyncService>::NAME {
            return self.sync.call(request);
        }
        if name == SharesServer::<ShareService>::NAME {
            return self.shares.call(request);
        }
        match self.fleet.get() {
            Some(fleet) if name == tidegate_proto::v1::fleet_server::FleetServer::<FleetService>::NAME => fleet.grpc().call(request),
            Some(_) | None => Box::pin(async { Ok(tonic::Status::unimplemented("not served here").into_http()) }),
        }
    }
}

/// Serves until the stop is requested or the listener is closed.
pub(super) async fn serve<S>(service: S, door: Arc<dyn Accept>, shutdown: Shutdown)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let stop = async move { shutdown.requested().await };
    if let Err(error) = server().serve_with_incoming_shutdown(service, incoming(door), stop).await {
        tracing::error!(%error, "serve the mesh");
    }
}
