use std::convert::Infallible;
use std::net::SocketAddr;

use http::{Request, Response};
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::server::{Grpc as GrpcServer, UnaryService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::*;
use crate::Tasks;
use crate::mesh::{PlainDialer, PlainListener, Role};

const LONG: Duration = Duration::from_secs(30);

/// Answers every call with who called and what was said.
#[derive(Clone)]
struct Echo;

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = std::future::Ready<Result<tonic::Response<String>, Status>>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        let answer = match request.extensions().get::<Peer>() {
            Some(peer) => Ok(tonic::Response::new(format!("{peer} said {}", request.get_ref()))),
            None => Err(Status::internal("no peer")),
        };
        std::future::ready(answer)
    }
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async { Ok(GrpcServer::new(ProstCodec::<String, String>::default()).unary(Echo, request).await) })
    }
}

pub(in crate::mesh) async fn call(channel: &Channel, text: &str) -> Result<String, Status> {
    let mut client = Client::new(channel.clone());
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let path = PathAndQuery::from_static("/test.Echo/Echo");
    let codec = ProstCodec::<String, String>::default();
    Ok(client.unary(tonic::Request::new(text.to_owned()), path, codec).await?.into_inner())
}

pub(in crate::mesh) fn serve(accept: Arc<dyn Accept>, tasks: &Tasks) {
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("echo", async move {
        let stop = async move { shutdown.requested().await };
        server().serve_with_incoming_shutdown(Echo, incoming(accept), stop).await.unwrap();
    });
}

async fn listen() -> (PlainListener, SocketAddr) {
    let listener = PlainListener::new(tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap());
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_call_arrives_with_its_peer_and_is_answered() {
    let tasks = Tasks::new();
    let (listener, address) = listen().await;
    serve(Arc::new(listener), &tasks);
    let channel = channel(Arc::new(PlainDialer::default()), address.to_string(), Expect::role(Role::Control), ChannelOptions::default());
    let answer = call(&channel, "hello").await.unwrap();
    assert!(answer.starts_with("127.0.0.1:") && answer.ends_with(" said hello"), "{answer}");
    drop(channel);
    tasks.close(LONG).await.unwrap();
}

#[tokio::test]
async fn a_channel_outlives_its_server_and_says_why_nobody_answers() {
    let tasks = Tasks::new();
    let (listener, address) = listen().await;
    serve(Arc::new(listener), &tasks);
    let channel = channel(Arc::new(PlainDialer::default()), address.to_string(), Expect::role(Role::Control), ChannelOptions::default());
    call(&channel, "one").await.unwrap();
    tasks.close(LONG).await.unwrap();

    // The first call may meet the connection while it ends; those after that must dial.
    let status = loop {
        let status = call(&channel, "two").await.unwrap_err();
        if dial_error(&status).is_some() {
            break status;
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    let error = dial_error(&status).unwrap();
    assert!(matches!(error, DialError::Connect { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    let again = Tasks::new();
    serve(Arc::new(PlainListener::new(tokio::net::TcpListener::bind(address).await.unwrap())), &again);
    let answer = tokio::time::timeout(LONG, async {
        loop {
            if let Ok(answer) = call(&channel, "three").await {
                return answer;
            }
        }
    });
    assert!(answer.await.unwrap().ends_with("said three"));
    drop(channel);
    again.close(LONG).await.unwrap();
}

#[tokio::test]
async fn the_stream_ends_when_the_listener_is_closed() {
    struct Closed;
    impl Accept for Closed {
        fn accept(&self) -> BoxFuture<'_, Result<(Io, Peer), io::Error>> {
            Box::pin(async { Err(io::ErrorKind::NotConnected.into()) })
        }
    }
    let mut stream = incoming(Arc::new(Closed));
    let next = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await;
    assert!(next.is_none());
    let next = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await;
    assert!(next.is_none());
}
