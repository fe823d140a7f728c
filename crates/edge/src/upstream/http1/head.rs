//! The head of an answer: what is read of it, and how long its body is (RFC 9112, section 6.3).

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::framing::Framing;

/// Status and headers of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// Head, framing of the body, whether the connection stays open, and the head's length in bytes; `None` while it is not complete.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, Framing, bool, usize)>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err("its head has too many fields"),
        Err(_) => return Err("its head cannot be understood"),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("its status is no status")?;
    let modern = response.version == Some(1);
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    let mut length_said: Option<u64> = None;
    let (mut chunked, mut coded, mut close, mut stay) = (false, false, false, false);
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "a field of its head has no name")?;
        if name == CONTENT_LENGTH {
            let said = length_of(field.value).ok_or("its length is no length")?;
            if length_said.replace(said).is_some_and(|before| before != said) {
                return Err("it gives two lengths");
            }
        } else if name == TRANSFER_ENCODING {
            coded = true;
            // Only the last coding says where the body ends.
            chunked = tokens(field.value).last().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
        } else if name == CONNECTION {
            close |= tokens(field.value).any(|token| token.eq_ignore_ascii_case(b"close"));
            stay |= tokens(field.value).any(|token| token.eq_ignore_ascii_case(b"keep-alive"));
        } else {
            let value = HeaderValue::from_bytes(field.value).map_err(|_| "a field of its head has no value")?;
            headers.append(name, value);
        }
    }
    let framing = match (coded, length_said) {
        _ if status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => Framing::length(0),
        (true, _) if chunked => Framing::chunked(),
        (true, _) | (false, None) => Framing::until_close(),
        (false, Some(length)) => Framing::length(length),
    };
    // A length beside chunks is what smuggling is made of: what is behind such an answer is not trusted.
    let doubtful = coded && length_said.is_some();
    let keep_alive = !close && !doubtful && (modern || stay);
    Ok(Some((Head { status, headers }, framing, keep_alive, length)))
}

/// Digits alone; the same length several times in one field is one length.
fn length_of(value: &[u8]) -> Option<u64> {
    let mut found = None;
    for token in tokens(value) {
        if token.is_empty() || !token.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let length: u64 = std::str::from_utf8(token).ok()?.parse().ok()?;
        if found.replace(length).is_some_and(|before| before != length) {
            return None;
        }
    }
    found
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Most fields of a head: the busiest providers send forty.
const FIELDS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> (Head, Framing, bool, usize) {
        parse(head.as_bytes()).expect("a good head").expect("a whole head")
    }

    #[test]
    fn length_chunks_and_the_end_of_the_connection_frame_a_body() {
        let cases = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Framing::length(5), true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n", Framing::length(5), true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::chunked(), true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n", Framing::chunked(), false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x, Close\r\n\r\n", Framing::chunked(), false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", Framing::until_close(), true),
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::until_close(), true),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", Framing::length(0), false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", Framing::length(0), true),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", Framing::length(0), true),
            ("HTTP/1.1 100 Continue\r\n\r\n", Framing::length(0), true),
        ];
        for (head, framing, keep_alive) in cases {
            let (_, found, stays, length) = read(head);
            assert_eq!((found, stays, length), (framing, keep_alive, head.len()), "{head}");
        }
    }

    #[test]
    fn what_is_read_of_a_head_is_its_status_and_its_fields() {
        let (head, ..) = read("HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nx-a: 1\r\nx-a: 2\r\n\r\nbody");
        assert_eq!(head.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(head.headers["retry-after"], "7");
        assert_eq!(head.headers.get_all("x-a").iter().count(), 2);
    }

    #[test]
    fn heads_that_are_not_there_yet_and_heads_that_are_none() {
        for part in ["", "HTTP/1.1", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"] {
            assert!(matches!(parse(part.as_bytes()), Ok(None)), "{part}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1));
        for wrong in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
            many.as_str(),
        ] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
