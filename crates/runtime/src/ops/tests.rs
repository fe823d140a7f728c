use std::net::Ipv4Addr;

use prometheus::IntCounter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

struct Served {
    address: SocketAddr,
    tasks: Tasks,
    readiness: Readiness,
}

fn serve(routes: Vec<OpsRoute>) -> Served {
    let registry = Registry::new();
    register_process_metrics(&registry).unwrap();
    let build = BuildInfo { version: "1.2.3", commit: "abc", rustc: "1.95.0" };
    register_build_info(&registry, &build).unwrap();
    let counter = IntCounter::new("tidegate_test_total", "A counter.").unwrap();
    registry.register(Box::new(counter)).unwrap();
    let readiness = Readiness::new();
    let server = OpsServer::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let served = Served { address: server.local_addr(), tasks: Tasks::new(), readiness: readiness.clone() };
    let operations = Operations { registry, readiness, routes };
    server.serve(operations, &served.tasks);
    served
}

impl Served {
    async fn ask(&self, method: &str, target: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {target} HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    async fn close(self) {
        self.tasks.close(Duration::from_secs(10)).await.unwrap();
    }
}

#[tokio::test]
async fn probes_and_metrics_answer() {
    let served = serve(Vec::new());
    assert_eq!(served.ask("GET", "/livez").await, (200, "alive\n".to_owned()));
    let (status, metrics) = served.ask("GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains(r#"tidegate_build_info{commit="abc",rustc="1.95.0",version="1.2.3"} 1"#));
    assert!(metrics.contains("tidegate_test_total 0"));
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
        assert!(metrics.contains(&format!("\n{name} ")), "{name} is missing");
    }
    served.close().await;
}

#[tokio::test]
async fn readiness_lists_what_is_missing() {
    let served = serve(Vec::new());
    let snapshot = served.readiness.condition("snapshot");
    assert_eq!(served.ask("GET", "/readyz").await, (503, "not ready\nsnapshot: not reached yet\n".to_owned()));
    snapshot.met();
    assert_eq!(served.ask("GET", "/readyz").await, (200, "ready\n".to_owned()));
    served.close().await;
}

#[tokio::test]
async fn roles_add_routes_and_the_root_lists_them() {
    let refusing = OpsRoute::new("/debug", "nothing", |_| None);
    let echoing =
        OpsRoute::new("/debug/echo", "says it again", |request| Some(OpsResponse::json(200, request.parameter("word")?.to_owned())));
    let served = serve(vec![refusing, echoing]);
    assert_eq!(served.ask("GET", "/debug/echo?a&word=hi").await, (200, "hi".to_owned()));
    assert_eq!(served.ask("GET", "/debug/other").await.0, 404);
    assert_eq!(served.ask("POST", "/metrics").await.0, 405);
    let (_, list) = served.ask("GET", "/").await;
    assert!(list.contains("/metrics  metrics") && list.contains("/debug/echo  says it again"));
    served.close().await;
}

#[tokio::test]
async fn a_kept_alive_connection_does_not_hold_up_the_stop() {
    let served = serve(Vec::new());
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: ops\r\n\r\n").await.unwrap();
    let mut first = [0; 16];
    idle.read_exact(&mut first).await.unwrap();
    served.close().await;
}
