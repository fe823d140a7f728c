//! What one try sends. A request can be made of it more than once, because a kept-alive connection may turn out to be closed.

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use smallvec::SmallVec;

use super::body::SegmentBody;
use super::http1::Message;
use super::origin::Origin;

/// A POST to a provider, without its host.
pub(crate) struct Outgoing {
    /// Path and query.
    pub(crate) uri: Uri,
    pub(crate) body: SegmentBody,
    /// Everything but `Host`; a later header of the same name is added to an earlier one.
    pub(crate) headers: SmallVec<[(HeaderName, HeaderValue); 8]>,
}

impl Outgoing {
    /// Head and body as HTTP/1.1 writes them.
    pub(super) fn http1(&self, origin: &Origin) -> Message {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(b"POST ");
        let path = self.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        head.extend_from_slice(path.as_bytes());
        head.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        head.extend_from_slice(origin.authority.as_bytes());
        for (name, value) in &self.headers {
            head.extend_from_slice(b"\r\n");
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
        }
        head.extend_from_slice(b"\r\ncontent-length: ");
        head.extend_from_slice(itoa::Buffer::new().format(self.body.len()).as_bytes());
        head.extend_from_slice(b"\r\n\r\n");
        Message::new(head, self.body.segments())
    }

    /// HTTP/2 carries scheme and authority as pseudo-headers.
    pub(super) fn http2(&self, origin: &Origin) -> Request<SegmentBody> {
        let mut request = self.request();
        let mut parts = self.uri.clone().into_parts();
        parts.scheme = Some(if origin.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(origin.uri_authority.clone());
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_2;
        request
    }

    fn request(&self) -> Request<SegmentBody> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.reserve(self.headers.len());
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        request
    }
}

/// Room for a usual head.
const HEAD_BYTES: usize = 512;
