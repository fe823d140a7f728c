//! Heads that two readers could understand differently are refused, whoever the other reader is.
//!
//! hyper already refuses what breaks the grammar, and reads a body by its chunks and then closes where a length stands beside them
//! (RFC 9112, 6.3). What is left to check here is meaning: for which host, in which coding, and how much of it.

use http::header::{HOST, TRANSFER_ENCODING};
use http::{Request, Version};

use crate::error::EdgeError;

/// Refuses a request whose head is ambiguous or has an oversized field.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), EdgeError> {
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(EdgeError::BadHead { reason: "it names more than one host" });
    }
    match (request.uri().authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            return Err(EdgeError::BadHead { reason: "its URL and its Host header name different hosts" });
        }
        (None, None) if request.version() == Version::HTTP_11 => {
            return Err(EdgeError::BadHead { reason: "it names no host" });
        }
        _ => {}
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(EdgeError::BadHead { reason: "its transfer coding is not plain `chunked`" });
    }
    if headers.values().any(|value| value.len() > FIELD_BYTES) {
        return Err(EdgeError::FieldTooLarge { limit: FIELD_BYTES });
    }
    Ok(())
}

/// Longest value of one header field, bytes: four times the longest honest one, a chain of cookies.
const FIELD_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request of this test")
    }

    #[test]
    fn one_host_and_plain_chunks_are_fine() {
        for (uri, headers) in [
            ("/", &[("host", "a")][..]),
            ("http://a/", &[("host", "A")]),
            ("http://a/", &[]),
            ("/", &[("host", "a"), ("transfer-encoding", "Chunked")]),
        ] {
            assert!(check(&request(uri, headers)).is_ok(), "{uri} {headers:?}");
        }
    }

    #[test]
    fn two_meanings_are_refused() {
        for (uri, headers) in [
            ("/", &[][..]),
            ("/", &[("host", "a"), ("host", "a")]),
            ("http://a/", &[("host", "b")]),
            ("/", &[("host", "a"), ("transfer-encoding", "gzip, chunked")]),
            ("/", &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "identity")]),
        ] {
            assert!(matches!(check(&request(uri, headers)), Err(EdgeError::BadHead { .. })), "{uri} {headers:?}");
        }
        let long = "x".repeat(FIELD_BYTES + 1);
        assert!(matches!(check(&request("/", &[("host", "a"), ("x", &long)])), Err(EdgeError::FieldTooLarge { .. })));
    }
}
