//! What one try sends. A request can be made of it more than once, because a kept-alive connection may turn out to be closed.

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use smallvec::SmallVec;

use super::body::SegmentBody;
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
    pub(super) fn http1(&self, origin: &Origin) -> Request<SegmentBody> {
        let mut request = self.without_host();
        request.headers_mut().insert(HOST, origin.authority.clone());
        request
    }

    /// HTTP/2 carries scheme and authority as pseudo-headers.
    pub(super) fn http2(&self, origin: &Origin) -> Request<SegmentBody> {
        let mut request = self.without_host();
        let mut parts = self.uri.clone().into_parts();
        parts.scheme = Some(if origin.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(origin.uri_authority.clone());
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_2;
        request
    }

    fn without_host(&self) -> Request<SegmentBody> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.reserve(self.headers.len() + 1);
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        request
    }
}
