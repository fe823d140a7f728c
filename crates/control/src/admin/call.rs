//! One request as handlers see it: who, why, and what.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::access::Principal;
use super::error::AdminError;

/// A request whose caller is known.
pub(crate) struct Call {
    pub(crate) principal: Principal,
    /// Why, in the caller's words; empty for reads.
    pub(crate) reason: String,
    /// Name under which the request can be sent again; drawn here when the caller gave none.
    pub(crate) request_id: String,
    /// BLAKE3 of what was sent.
    pub(crate) digest: Bytes,
    /// What the `{…}` of the route matched, decoded.
    pub(crate) segments: Vec<String>,
    pub(crate) body: Bytes,
    query: Vec<(String, String)>,
    min_index: Option<String>,
}

/// What a request is made of.
pub(crate) struct Received<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) segments: Vec<String>,
    pub(crate) random: u128,
}

impl Call {
    pub(crate) fn new(principal: Principal, received: Received<'_>) -> Result<Call, AdminError> {
        let Received { method, path, query, headers, body, segments, random } = received;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let query = parse_query(query)?;
        let changes = !matches!(*method, Method::GET | Method::HEAD);
        let asked = query.iter().find(|(key, _)| key == "reason").map(|(_, value)| value.clone());
        let reason = text("x-reason").or(asked).or_else(|| reason_in(&body)).unwrap_or_default();
        let mut hasher = blake3::Hasher::new();
        for part in [method.as_str().as_bytes(), path.as_bytes(), &body] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        // Names of one caller cannot meet those of another.
        let request_id = match text("idempotency-key") {
            Some(key) if key.is_empty() || key.len() > MAX_KEY => {
                return Err(AdminError::bad_request(format!("`Idempotency-Key` has 1 to {MAX_KEY} characters")));
            }
            Some(key) => format!("{}/{key}", principal.name),
            None if changes => format!("auto/{random:032x}"),
            None => String::new(),
        };
        let digest = Bytes::copy_from_slice(hasher.finalize().as_bytes());
        Ok(Call { principal, reason, request_id, digest, segments, body, query, min_index: text("x-min-index") })
    }

    /// The body as JSON of a shape.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, AdminError> {
        let body: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
        serde_json::from_slice(body).map_err(|error| AdminError::bad_request(format!("the body cannot be read: {error}")))
    }

    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is a whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, AdminError> {
        self.parameter(name).map(|text| parse_number(name, text)).transpose()
    }

    /// A parameter that is true or false; false when absent.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, AdminError> {
        match self.parameter(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(other) => Err(AdminError::bad_request(format!("`{name}={other}`: use `true` or `false`"))),
        }
    }

    pub(crate) fn min_index(&self) -> Result<Option<u64>, AdminError> {
        self.min_index.as_deref().map(|text| parse_number("x-min-index", text)).transpose()
    }

    /// A change without a reason is refused: the audit log is there to be read.
    pub(crate) fn needs_reason(&self) -> Result<(), AdminError> {
        if self.reason.trim().is_empty() {
            let help = "say why: a `reason` in the body or the query, or the header `x-reason`";
            return Err(AdminError::bad_request(format!("a change without a reason; {help}")));
        }
        Ok(())
    }
}

/// Longest `Idempotency-Key`.
const MAX_KEY: usize = 200;

fn reason_in(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Reason {
        reason: Option<String>,
    }
    // Bodies that are no JSON (backups) have none.
    if body.first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice::<Reason>(body).ok()?.reason
}

fn parse_number(name: &str, text: &str) -> Result<u64, AdminError> {
    text.parse().map_err(|_| AdminError::bad_request(format!("`{name}: {text}` is not a whole number")))
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, AdminError> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(&value.replace('+', " "))?))
        })
        .collect()
}

/// Percent-decoding (RFC 3986, 2.1).
pub(crate) fn decode(text: &str) -> Result<String, AdminError> {
    let bad = || AdminError::bad_request(format!("`{text}` is not percent-encoded text"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2).ok_or_else(bad)?;
        let digits = str::from_utf8(digits).map_err(|_| bad())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

/// JSON with sorted keys, so that the same thing always has the same bytes.
pub(crate) fn canonical(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().map(|(key, value)| (key, canonical(value))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => items.into_iter().map(canonical).collect(),
        scalar => scalar,
    }
}
