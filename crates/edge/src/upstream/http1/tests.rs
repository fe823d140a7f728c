//! Against a socket that says what it is told to.

#![expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Both ends of a connection.
async fn pair() -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (Connection::new(Socket::Plain(near)), far)
}

fn message(body: &[&'static [u8]]) -> Message {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let head = format!("POST / HTTP/1.1\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    Message::new(head, body.iter().map(|part| Bytes::from_static(part)).collect())
}

/// The whole body, and the connection if it can be used again.
async fn read(mut body: Body) -> Result<(Vec<u8>, Option<Connection>), Broken> {
    let mut all = Vec::new();
    while let Some(data) = poll_fn(|context| body.poll_data(context)).await {
        all.extend_from_slice(&data?);
    }
    Ok((all, body.into_connection()))
}

/// Reads a request with its body of this length.
async fn hear(far: &mut TcpStream, body: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    loop {
        let end = heard.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        if end.is_some_and(|end| heard.len() >= end + body) {
            return heard;
        }
        assert!(far.read_buf(&mut heard).await.unwrap() > 0, "the request broke off: {}", String::from_utf8_lossy(&heard));
    }
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let (mut connection, mut far) = pair().await;
    let provider = tokio::spawn(async move {
        for number in 0..3 {
            let heard = hear(&mut far, 5).await;
            assert!(heard.ends_with(b"\r\n\r\nhello"));
            // In two parts that cut the head, and with interim answers before it.
            let interim = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
            far.write_all(interim.as_bytes()).await.unwrap();
            far.write_all(b"HTTP/1.1 200 OK\r\ntransfer-enc").await.unwrap();
            far.flush().await.unwrap();
            tokio::task::yield_now().await;
            far.write_all(format!("oding: chunked\r\n\r\n3\r\nabc\r\n1\r\n{number}\r\n0\r\n\r\n").as_bytes()).await.unwrap();
        }
    });
    for number in 0..3 {
        assert!(connection.is_alive());
        let (head, body) = connection.send(message(&[b"he", b"", b"llo"])).await.unwrap();
        assert_eq!(head.status, StatusCode::OK);
        let (bytes, again) = read(body).await.unwrap();
        assert_eq!(bytes, format!("abc{number}").into_bytes());
        connection = again.expect("it stays open");
    }
    provider.await.unwrap();
    // Its socket is closed by now, which is seen without being told.
    let closed = async {
        while connection.is_alive() {
            tokio::time::sleep(Duration::from_millis(1)).await
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("a closed connection is noticed");
}

#[tokio::test]
async fn a_connection_that_cannot_be_used_again_is_not_given_back() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nok",
    ] {
        let (connection, mut far) = pair().await;
        let provider = tokio::spawn(async move {
            hear(&mut far, 1).await;
            far.write_all(answer.as_bytes()).await.unwrap();
        });
        let (_, body) = connection.send(message(&[b"x"])).await.unwrap();
        let (bytes, again) = read(body).await.unwrap();
        assert_eq!((bytes.as_slice(), again.is_none()), (&b"ok"[..], true), "{answer}");
        provider.await.unwrap();
    }
}

#[tokio::test]
async fn what_breaks_is_told_with_whether_anything_was_heard() {
    for (answer, heard) in
        [("", false), ("HTTP/1.1 2", true), ("nonsense\r\n\r\n", true), ("HTTP/1.1 101 Switching Protocols\r\n\r\n", true)]
    {
        let (connection, mut far) = pair().await;
        let provider = tokio::spawn(async move {
            hear(&mut far, 1).await;
            far.write_all(answer.as_bytes()).await.unwrap();
        });
        let unanswered = connection.send(message(&[b"x"])).await.expect_err("there is no answer");
        assert_eq!(unanswered.heard, heard, "{answer}: {}", unanswered.error);
        provider.await.unwrap();
    }
    for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nsh"] {
        let (connection, mut far) = pair().await;
        let provider = tokio::spawn(async move {
            hear(&mut far, 1).await;
            far.write_all(answer.as_bytes()).await.unwrap();
        });
        let (_, body) = connection.send(message(&[b"x"])).await.unwrap();
        assert!(matches!(read(body).await, Err(Broken::Closed)), "{answer}");
        provider.await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_is_sent_is_read() {
    static LARGE: [u8; 8 << 20] = [b'x'; 8 << 20];
    // Refused in the middle; the provider reads no further.
    let (connection, mut far) = pair().await;
    let provider = tokio::spawn(async move {
        let mut some = [0; 1000];
        far.read_exact(&mut some).await.unwrap();
        far.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nmuch").await.unwrap();
        far
    });
    let (head, body) = connection.send(message(&[&LARGE])).await.unwrap();
    assert_eq!(head.status, StatusCode::PAYLOAD_TOO_LARGE);
    let (bytes, again) = read(body).await.unwrap();
    assert_eq!((bytes.as_slice(), again.is_none()), (&b"much"[..], true));
    drop(provider.await.unwrap());
    // Begun early, but finished only with the whole request at hand.
    let (connection, mut far) = pair().await;
    let provider = tokio::spawn(async move {
        let mut some = [0; 1000];
        far.read_exact(&mut some).await.unwrap();
        far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await.unwrap();
        let mut heard = some.to_vec();
        while !heard.ends_with(b"end") {
            assert!(far.read_buf(&mut heard).await.unwrap() > 0, "the request broke off");
        }
        far.write_all(b"done").await.unwrap();
    });
    let (_, body) = connection.send(message(&[&LARGE, b"end"])).await.unwrap();
    let (bytes, again) = read(body).await.unwrap();
    assert_eq!((bytes.as_slice(), again.is_some()), (&b"done"[..], true));
    provider.await.unwrap();
}
