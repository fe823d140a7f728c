//! Everything that can go wrong with a request, and how callers are told.
//!
//! [`EdgeError`] says what happened, [`Fault`] what the caller reads: status, `error_type`, message, and whether asking again helps. An
//! error is made into a `Fault` once, where it stops travelling.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tidegate_quota::RefusalKind;
use tidegate_routing::{AttemptEnd, BlockReason, Next, NoRoute, Reason, Timestamp};
use tidegate_wire::{Availability, ErrorBody, ErrorType, Failure, FailureKind, PreviousError, RequestError};

use crate::attempt::AttemptFailure;
use crate::auth::{AuthFailure, WINDOW};
use crate::body::EdgeBody;
use crate::control_link::ManageError;
use crate::generation::Generation;
use crate::quota::{LimitHeaders, Refused};

/// Why a request was not answered as asked.
#[derive(Debug)]
pub(crate) enum EdgeError {
    /// No acceptable key.
    Auth(AuthFailure),
    /// Too many wrong keys from this address.
    Guessing,
    /// The head can be read in more than one way.
    BadHead {
        reason: &'static str,
    },
    FieldTooLarge {
        limit: usize,
    },
    /// The body does not say something we can work with.
    Request(RequestError),
    BodyTooLarge {
        limit: usize,
    },
    BodyTooSlow,
    BodyBroken {
        reason: String,
    },
    /// More in flight than the edge can carry, or it is shutting down.
    Saturated {
        retry_after: Duration,
    },
    NoSuchRoute {
        method: String,
        path: String,
    },
    MethodNotAllowed {
        allowed: &'static str,
    },
    NoModel,
    UnknownModel {
        model: String,
        similar: Vec<String>,
    },
    ModelNotAllowed {
        model: String,
    },
    ModelDeprecated {
        model: String,
        successor: String,
    },
    UnknownPreset {
        preset: String,
    },
    BadPreferences {
        reason: String,
    },
    /// A limit of the caller refuses, or its use cannot be counted.
    Quota(Box<Refused>),
    /// The ledger's sums cannot be read at the moment.
    SumsUnavailable,
    /// Nothing may serve the request.
    NoRoute {
        why: Box<NoRoute>,
        models: Vec<String>,
        /// Router metadata with the name of its field, for callers who asked for it.
        metadata: Option<(&'static str, String)>,
    },
    /// Everything that was tried failed.
    Attempts(Box<FailedAttempts>),
    UnknownGeneration {
        id: String,
    },
    MissingParameter {
        name: &'static str,
    },
    BadParameter {
        name: &'static str,
        reason: &'static str,
    },
    /// The control plane gives no answer to a management key.
    Management(ManageError),
    /// What a management key asks is refused.
    ManagementRefused {
        status: u16,
        message: String,
        retry_after: Option<Duration>,
    },
}

/// What became of the attempts of one request.
#[derive(Debug)]
pub(crate) struct FailedAttempts {
    /// Empty, hence without memory of its own, until something fails.
    tried: Vec<Tried>,
    why: Option<Reason>,
    blocked_by: Option<BlockReason>,
    /// When the first blocked account comes back.
    unblocked_in: Option<Duration>,
    models: Vec<String>,
    /// The stream had begun.
    midstream: bool,
    /// The caller's limit for a provider that refused, and has room again first.
    refused: Option<Box<Refused>>,
}

#[derive(Debug)]
struct Tried {
    end: AttemptEnd,
    provider: String,
    failure: Failure,
    param: Option<String>,
}

impl FailedAttempts {
    pub(crate) fn new() -> Self {
        Self { tried: Vec::new(), why: None, blocked_by: None, unblocked_in: None, models: Vec::new(), midstream: false, refused: None }
    }

    pub(crate) fn push(&mut self, provider: &str, failed: AttemptFailure) {
        if let Some(refused) = failed.refused {
            let wait = |refused: &Refused| refused.refusal.retry_after.unwrap_or(Duration::MAX);
            if self.refused.as_ref().is_none_or(|first| wait(&refused) < wait(first)) {
                self.refused = Some(refused);
            }
            return;
        }
        self.tried.push(Tried { end: failed.end, provider: provider.to_owned(), failure: failed.failure, param: failed.param });
    }

    /// No attempt is left.
    pub(crate) fn exhausted(mut self, why: Option<Next>, models: Vec<String>, now: Timestamp) -> EdgeError {
        if let Some(Next::Exhausted(why)) = why {
            self.why = Some(why.reason);
            self.blocked_by = why.blocked_by;
            self.unblocked_in = match why.reason {
                Reason::Blocked { until } => Some(until - now),
                _ => None,
            };
        }
        // Who was asked and failed says more than who could not be asked.
        if self.tried.is_empty()
            && let Some(refused) = self.refused
        {
            return EdgeError::Quota(refused);
        }
        self.models = models;
        EdgeError::Attempts(Box::new(self))
    }
}

impl From<RequestError> for EdgeError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// What the caller reads.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    pub(crate) status: u16,
    error_type: Option<ErrorType>,
    message: String,
    param: Option<String>,
    provider_name: Option<String>,
    provider_code: Option<String>,
    raw: Option<String>,
    previous: Vec<PreviousError>,
    availability: Option<Availability>,
    retry_after: Option<Duration>,
    /// Allowed methods of a 405.
    allow: Option<&'static str>,
    /// The rest of what the caller sends is not going to be read.
    close: bool,
    metadata: Option<String>,
    metadata_field: &'static str,
    /// The retry budget ended the attempts.
    budget: bool,
    reason: Option<&'static str>,
    limit_source: Option<&'static str>,
    remedy: Option<&'static str>,
    /// About the limit that refused.
    limit_headers: LimitHeaders,
}

impl Fault {
    fn of(error_type: ErrorType, message: impl Into<String>) -> Self {
        Self { status: error_type.status(), error_type: Some(error_type), message: message.into(), ..Self::default() }
    }

    /// Metric label and log field.
    pub(crate) fn label(&self) -> &'static str {
        self.error_type.map_or("server", ErrorType::as_str)
    }

    fn available(mut self, code: &'static str, retryable: bool, models: Vec<String>) -> Self {
        self.availability = Some(Availability {
            code,
            retryable,
            requested_models: models,
            docs_url: DOCS.to_owned(),
            retry_after: self.retry_after,
            ..Availability::default()
        });
        self
    }

    fn adjust(mut self, change: impl FnOnce(&mut Availability)) -> Self {
        if let Some(availability) = &mut self.availability {
            change(availability);
        }
        self
    }

    /// Gives the wire's error body to `write`.
    pub(crate) fn with_body<T>(&self, write: impl FnOnce(&ErrorBody<'_>) -> T) -> T {
        write(&ErrorBody {
            code: self.status,
            message: &self.message,
            error_type: self.error_type.filter(|error_type| *error_type != ErrorType::Server),
            param: self.param.as_deref(),
            provider_name: self.provider_name.as_deref(),
            provider_code: self.provider_code.as_deref(),
            raw: self.raw.as_deref(),
            previous_errors: &self.previous,
            availability: self.availability.clone(),
            retry_after: self.retry_after,
            router_metadata: self.metadata.as_deref(),
            metadata_field: self.metadata_field,
            reason: self.reason,
            limit_source: self.limit_source,
            remedy_hint: self.remedy,
            ..ErrorBody::default()
        })
    }

    /// The answer before any byte was sent.
    pub(crate) fn into_response(self) -> Response<EdgeBody> {
        let mut response = Response::new(EdgeBody::full(self.with_body(|body| body.to_json())));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.retry_after {
            Some(wait) => {
                // A limit's own time is told as it is; nobody should block for as long as a budget lasts.
                let ours = self.limit_source.is_some();
                if ours && wait > LONGEST_WAIT {
                    headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
                }
                let wait = if ours { wait } else { wait.min(LONGEST_WAIT) };
                let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000)));
                headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(millis));
            }
            // Our own attempts are spent: another try at once would only multiply the load.
            None => {
                headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
            }
        }
        headers.extend(self.limit_headers);
        if let Some(allow) = self.allow {
            headers.insert(http::header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.budget {
            headers.insert(HeaderName::from_static("x-tidegate-retry"), HeaderValue::from_static("budget"));
        }
        if self.close {
            headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl EdgeError {
    /// A stream that failed after its first byte.
    pub(crate) fn midstream(generation: &Generation, mut failure: Failure) -> Self {
        if let Some(last) = generation.attempts().last() {
            generation.state.redact(last.plan.credential, &mut failure);
        }
        let provider = generation.target().map_or("", |target| target.provider.name.as_ref()).to_owned();
        let end = crate::attempt::end_of(&failure);
        let tried = vec![Tried { end, provider, failure, param: None }];
        Self::Attempts(Box::new(FailedAttempts {
            tried,
            why: None,
            blocked_by: None,
            unblocked_in: None,
            models: Vec::new(),
            midstream: true,
            refused: None,
        }))
    }

    /// What the caller of this generation reads: with the provider's own words and router metadata where they are wanted.
    pub(crate) fn fault(&self, generation: &Generation) -> Fault {
        let mut fault = self.plain_fault(generation.caller.raw_errors());
        if let Some(field) = generation.context.metadata_field
            && fault.error_type != Some(ErrorType::Server)
        {
            fault.metadata = Some(crate::explain::metadata(generation, Some(fault.status)));
            fault.metadata_field = field;
        }
        fault
    }

    /// What a caller without a generation reads.
    pub(crate) fn plain_fault(&self, raw: bool) -> Fault {
        match self {
            Self::Auth(failure @ AuthFailure::Undecided) => {
                Fault { retry_after: Some(UNDECIDED_WAIT), ..Fault::of(ErrorType::ProviderOverloaded, failure.message()) }
            }
            Self::Auth(failure @ (AuthFailure::Management | AuthFailure::Inference)) => {
                Fault::of(ErrorType::PermissionDenied, failure.message())
            }
            Self::Auth(failure) => Fault::of(ErrorType::Authentication, failure.message()),
            Self::Guessing => Fault {
                retry_after: Some(WINDOW),
                ..Fault::of(ErrorType::RateLimitExceeded, "Too many requests with wrong API keys from this address. Wait a minute.")
            },
            Self::BadHead { reason } => {
                Fault { close: true, ..Fault::of(ErrorType::InvalidRequest, format!("The head of this request is refused: {reason}.")) }
            }
            Self::FieldTooLarge { limit } => Fault {
                status: 431,
                close: true,
                ..Fault::of(ErrorType::InvalidRequest, format!("A header of this request is longer than {limit} bytes."))
            },
            Self::Request(error) => {
                Fault { status: error.status, param: error.param.clone(), ..Fault::of(error.error_type, error.message.clone()) }
            }
            Self::BodyTooLarge { limit } => Fault {
                close: true,
                ..Fault::of(ErrorType::PayloadTooLarge, format!("The request body is larger than the {limit} bytes allowed here."))
            },
            Self::BodyTooSlow => Fault {
                status: 408,
                close: true,
                ..Fault::of(ErrorType::Timeout, "The request body came too slowly. Send it faster, or in smaller parts.")
            },
            Self::BodyBroken { reason } => {
                Fault::of(ErrorType::InvalidRequest, format!("The request body could not be read to its end: {reason}."))
            }
            Self::Saturated { retry_after } => Fault {
                retry_after: Some(*retry_after),
                ..Fault::of(ErrorType::ProviderOverloaded, "This edge has as many requests as it can carry. Try again shortly.")
            },
            Self::NoSuchRoute { method, path } => {
                Fault::of(ErrorType::NotFound, format!("There is nothing at {method} {path}. GET /openapi.json lists every route."))
            }
            Self::MethodNotAllowed { allowed } => Fault {
                status: 405,
                allow: Some(allowed),
                ..Fault::of(ErrorType::InvalidRequest, format!("This path answers {allowed} only."))
            },
            Self::NoModel => Fault {
                param: Some("model".to_owned()),
                ..Fault::of(ErrorType::InvalidRequest, "`model` is missing, and no default model is configured.")
            },
            Self::UnknownModel { model, similar } => {
                Fault { param: Some("model".to_owned()), ..Fault::of(ErrorType::InvalidRequest, unknown_model(model, similar)) }
                    .available("model_not_found", false, vec![model.clone()])
                    .adjust(|availability| availability.fallback_models.clone_from(similar))
            }
            Self::ModelNotAllowed { model } => Fault::of(ErrorType::PermissionDenied, format!("This API key may not use `{model}`.")),
            Self::ModelDeprecated { model, successor } => {
                Fault::of(ErrorType::NotFound, format!("`{model}` has been retired. Use `{successor}` instead."))
                    .available("model_deprecated", false, vec![model.clone()])
                    .adjust(|availability| availability.fallback_models.push(successor.clone()))
            }
            Self::UnknownPreset { preset } => Fault {
                param: Some("preset".to_owned()),
                ..Fault::of(ErrorType::InvalidRequest, format!("There is no preset `{preset}`."))
            },
            Self::BadPreferences { reason } => {
                Fault { param: Some("provider".to_owned()), ..Fault::of(ErrorType::InvalidRequest, format!("`provider`: {reason}.")) }
            }
            Self::Quota(refused) => quota(refused),
            Self::SumsUnavailable => Fault {
                retry_after: Some(SUMS_WAIT),
                ..Fault::of(ErrorType::ProviderOverloaded, "What was used cannot be read at the moment. Try again shortly.")
            },
            Self::NoRoute { why, models, metadata } => {
                let fault = no_route(why, models);
                match metadata {
                    Some((field, text)) => Fault { metadata: Some(text.clone()), metadata_field: field, ..fault },
                    None => fault,
                }
            }
            Self::Attempts(attempts) => attempts.fault(raw),
            Self::UnknownGeneration { id } => Fault::of(
                ErrorType::NotFound,
                format!(
                    "There is no generation `{id}` here. Records are kept for a limited time, on the edge that served them or in its region."
                ),
            ),
            Self::MissingParameter { name } => Fault {
                param: Some((*name).to_owned()),
                ..Fault::of(ErrorType::InvalidRequest, format!("The query parameter `{name}` is missing."))
            },
            Self::Management(error) => management(*error),
            Self::ManagementRefused { status, message, retry_after } => {
                let error_type = match status {
                    401 => ErrorType::Authentication,
                    403 => ErrorType::PermissionDenied,
                    404 => ErrorType::NotFound,
                    400..500 => ErrorType::InvalidRequest,
                    _ => ErrorType::ProviderOverloaded,
                };
                Fault { status: *status, retry_after: *retry_after, ..Fault::of(error_type, message.clone()) }
            }
            Self::BadParameter { name, reason } => Fault {
                param: Some((*name).to_owned()),
                ..Fault::of(ErrorType::InvalidRequest, format!("The query parameter `{name}` cannot be used: {reason}."))
            },
        }
    }
}

fn management(error: ManageError) -> Fault {
    let message = error.to_string();
    match error {
        // Not 501: these paths do not exist without a control plane, and clients repeat what ends in 5xx.
        ManageError::NoControlPlane | ManageError::TooOld => Fault { status: 404, ..Fault::of(ErrorType::NotFound, message) },
        ManageError::Away => Fault { retry_after: Some(UNDECIDED_WAIT), ..Fault::of(ErrorType::ProviderOverloaded, message) },
        // Without a time: what may have been done is not to be done again by itself.
        ManageError::Unknown => Fault::of(ErrorType::ProviderOverloaded, message),
    }
}

fn quota(refused: &Refused) -> Fault {
    let told = refused.told();
    let error_type = match refused.refusal.kind {
        RefusalKind::Funds => ErrorType::PaymentRequired,
        RefusalKind::Rate => ErrorType::RateLimitExceeded,
        RefusalKind::Unavailable => ErrorType::ProviderOverloaded,
    };
    Fault {
        retry_after: refused.refusal.retry_after,
        reason: Some(told.reason),
        limit_source: Some(told.limit_source),
        remedy: Some(told.remedy),
        limit_headers: refused.headers(),
        ..Fault::of(error_type, told.message)
    }
}

fn unknown_model(model: &str, similar: &[String]) -> String {
    let mut text = format!("`{model}` is not a model of this gateway.");
    match similar {
        [] => text.push_str(" GET /v1/models lists them."),
        _ => {
            // Writing to a String cannot fail.
            let _ = write!(text, " Did you mean `{}`?", similar.join("` or `"));
        }
    }
    text
}

fn no_route(why: &NoRoute, models: &[String]) -> Fault {
    let excluded: Vec<String> = why.excluded_by.iter().map(ToString::to_string).collect();
    let message = match excluded.as_slice() {
        [] => format!("No endpoint serves {}.", listed(models)),
        _ => format!("No endpoint of {} satisfies this request; removed by: {}.", listed(models), excluded.join(", ")),
    };
    let fault = Fault { status: why.code.status(), ..Fault::of(ErrorType::NotFound, message) };
    fault.available(why.code.as_str(), false, models.to_vec()).adjust(|availability| {
        availability.excluded_by = excluded;
        availability.constraint = why.constraint.as_ref().map(|constraint| (constraint.field.to_owned(), constraint.detail.clone()));
    })
}

fn listed(models: &[String]) -> String {
    format!("`{}`", models.join("`, `"))
}

impl FailedAttempts {
    fn fault(&self, raw: bool) -> Fault {
        let Some(last) = self.tried.last() else { return self.nothing_tried() };
        let previous: Vec<PreviousError> = self.tried.iter().map(Tried::as_previous).collect();
        let retry_after = self.tried.iter().filter_map(|tried| tried.failure.retry_after).min();
        let all = |is: fn(AttemptEnd) -> bool| self.tried.iter().all(|tried| is(tried.end));
        let mut fault = if let AttemptEnd::Rejected(status) = last.end {
            Fault { status, param: last.param.clone(), ..Fault::of(last.failure.error_type, last.failure.public_message()) }
        } else if self.midstream {
            // What an upstream says about its own inside is not for callers.
            Fault::of(broken_type(&last.failure), last.failure.public_message())
        } else if all(|end| end == AttemptEnd::RateLimited) {
            self.rate_limited(retry_after)
        } else if all(|end| end == AttemptEnd::ModelNotFound) {
            Fault::of(ErrorType::NotFound, "No provider of this model serves it at the moment.").available(
                "model_unavailable_upstream",
                false,
                self.models.clone(),
            )
        } else if all(is_outage) {
            Fault { retry_after, ..Fault::of(ErrorType::ProviderOverloaded, "Every provider of this model that was tried failed.") }
                .available("temporarily_unavailable", true, self.models.clone())
        } else {
            Fault { retry_after, ..Fault::of(ErrorType::ProviderUnavailable, "No provider gave a usable answer.") }
        };
        fault = fault.adjust(|availability| {
            for tried in &self.tried {
                if !availability.affected_providers.contains(&tried.provider) {
                    availability.affected_providers.push(tried.provider.clone());
                }
            }
        });
        fault.provider_name = Some(last.provider.clone());
        fault.provider_code.clone_from(&last.failure.provider_code);
        if raw {
            fault.raw.clone_from(&last.failure.raw);
        }
        fault.budget = self.why == Some(Reason::Budget);
        fault.previous = previous;
        fault
    }

    fn rate_limited(&self, retry_after: Option<Duration>) -> Fault {
        let message = "Every provider of this model is limiting the rate of requests.";
        Fault { retry_after, ..Fault::of(ErrorType::RateLimitExceeded, message) }.available("capacity_exhausted", true, self.models.clone())
    }

    /// Everything is blocked, or the time was up before the first try.
    fn nothing_tried(&self) -> Fault {
        let retry_after = self.unblocked_in;
        match self.why {
            Some(Reason::Deadline) => {
                Fault::of(ErrorType::Timeout, "The time granted for this request was up before a provider could be asked.")
            }
            // Nobody was asked, because the answer is known: it is the one that the last request got.
            _ if self.blocked_by == Some(BlockReason::RateLimited) => self.rate_limited(retry_after),
            _ => Fault {
                retry_after,
                ..Fault::of(ErrorType::ProviderOverloaded, "Every provider of this model is unavailable at the moment.")
            }
            .available("temporarily_unavailable", true, self.models.clone()),
        }
    }
}

impl Tried {
    fn as_previous(&self) -> PreviousError {
        PreviousError {
            provider: self.provider.clone(),
            code: self.failure.provider_code.clone().unwrap_or_else(|| self.end.label().to_owned()),
            status: self.failure.status.unwrap_or(0),
        }
    }
}

/// Five-hundreds and silence: waiting may help.
fn is_outage(end: AttemptEnd) -> bool {
    matches!(
        end,
        AttemptEnd::Connect | AttemptEnd::FirstTokenTimeout | AttemptEnd::Server(_) | AttemptEnd::Overloaded | AttemptEnd::IdleTimeout
    )
}

fn broken_type(failure: &Failure) -> ErrorType {
    match failure.kind {
        FailureKind::Cut | FailureKind::Malformed | FailureKind::Empty => ErrorType::ProviderUnavailable,
        _ => failure.error_type,
    }
}

/// SDKs that honour `Retry-After` may block for as long as it says.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// An edge that lost the control plane tries to find it again every few seconds.
const UNDECIDED_WAIT: Duration = Duration::from_secs(5);
/// The store of sums is usually back by then.
const SUMS_WAIT: Duration = Duration::from_secs(2);
/// Where the vocabulary is explained.
const DOCS: &str = crate::handler::ERRORS_PATH;
