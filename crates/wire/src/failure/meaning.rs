//! From a vendor's words to one meaning.

use super::{FailureKind, said::Said};
use crate::{dialect::Dialect, error::ErrorType};

pub(super) struct Meaning {
    pub(super) kind: FailureKind,
    /// Where it is more precise than the kind.
    pub(super) error_type: Option<ErrorType>,
}

/// One rule: any of the codes, or any of the phrases in the message, means this. Codes are compared in lower case and whole,
/// phrases anywhere.
struct Rule {
    kind: FailureKind,
    error_type: Option<ErrorType>,
    codes: &'static [&'static str],
    phrases: &'static [&'static str],
}

/// In order of precedence: what is most specific, and most often hidden behind a misleading status, first.
const RULES: &[Rule] = &[
    Rule {
        kind: FailureKind::CreditExhausted,
        error_type: None,
        codes: &[
            "insufficient_quota",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
            "insufficient_balance",
            "insufficient_credits",
            "payment_required",
            "exceeded_current_quota_error",
            "arrearage",
            "account_deactivated",
            "spend_limit_exceeded",
            "credits_exhausted",
        ],
        phrases: &["credit balance is too low", "insufficient balance", "insufficient credit", "out of credits", "insufficient funds"],
    },
    Rule {
        kind: FailureKind::ContextLength,
        error_type: None,
        codes: &["context_length_exceeded", "context_window_exceeded", "prompt_too_long", "input_too_long"],
        phrases: &[
            "maximum context length",
            "context length exceeded",
            "exceeds the context",
            "context window",
            "prompt is too long",
            "input is too long",
            "input token count",
            "too many input tokens",
            "reduce the length of the messages",
            "exceeds the maximum number of tokens",
            "maximum prompt length",
            "exceeds the model's context",
            "range of input length",
            "exceed context limit",
            "too large for model with",
        ],
    },
    Rule {
        kind: FailureKind::InvalidRequest,
        error_type: Some(ErrorType::StringTooLong),
        codes: &["string_above_max_length"],
        phrases: &["string too long"],
    },
    Rule {
        kind: FailureKind::InvalidRequest,
        error_type: Some(ErrorType::MaxTokensExceeded),
        codes: &["max_tokens_exceeded"],
        phrases: &["max_tokens is too large", "max_completion_tokens is too large", "max_tokens: "],
    },
    Rule {
        kind: FailureKind::ContentPolicy,
        error_type: None,
        codes: &[
            "content_filter",
            "content_policy_violation",
            "responsibleaipolicyviolation",
            "moderation_blocked",
            "data_inspection_failed",
            "prohibited_content",
            "image_content_policy_violation",
            "cyber_policy_violation",
        ],
        phrases: &[
            "content management policy",
            "content policy",
            "safety system",
            "content exists risk",
            "usage policies",
            "violates our usage",
            "flagged as potentially violating",
            "inappropriate content",
        ],
    },
    Rule {
        kind: FailureKind::InvalidRequest,
        error_type: Some(ErrorType::ImageTooLarge),
        codes: &["image_too_large", "image_file_too_large"],
        phrases: &["image exceeds"],
    },
    Rule { kind: FailureKind::InvalidRequest, error_type: Some(ErrorType::ImageTooSmall), codes: &["image_too_small"], phrases: &[] },
    Rule {
        kind: FailureKind::InvalidRequest,
        error_type: Some(ErrorType::UnsupportedImageFormat),
        codes: &["unsupported_image_media_type", "unsupported_image_format", "invalid_image_format"],
        phrases: &["unsupported image"],
    },
    Rule {
        kind: FailureKind::InvalidRequest,
        error_type: Some(ErrorType::ImageDownloadFailed),
        codes: &["failed_to_download_image", "image_download_failed", "invalid_image_url"],
        phrases: &["while downloading"],
    },
    Rule {
        kind: FailureKind::InvalidRequest,
        error_type: Some(ErrorType::InvalidImage),
        codes: &["invalid_image", "invalid_base64_image", "image_parse_error"],
        phrases: &["could not process image"],
    },
    Rule {
        kind: FailureKind::Unauthorized,
        error_type: None,
        codes: &[
            "invalid_api_key",
            "authentication_error",
            "api_key_invalid",
            "unauthenticated",
            "unrecognizedclientexception",
            "expiredtokenexception",
            "invalidsignatureexception",
            "invalid_authentication",
            "invalid_authentication_error",
        ],
        phrases: &["api key not valid", "incorrect api key", "invalid api key"],
    },
    Rule {
        kind: FailureKind::ModelNotFound,
        error_type: None,
        codes: &["model_not_found", "invalid_model", "model_not_available", "deploymentnotfound", "not_found_error", "model_not_exist"],
        phrases: &["model not found", "model does not exist", "no such model", "unknown model", "model_not_found"],
    },
    Rule {
        kind: FailureKind::Overloaded,
        error_type: None,
        codes: &[
            "overloaded_error",
            "overloaded",
            "engine_overloaded_error",
            "engine_overloaded",
            "server_overloaded",
            "unavailable",
            "serviceunavailableexception",
            "modelnotreadyexception",
            "capacity_exceeded",
            "provider_overloaded",
            "queue_exceeded",
            "service_unavailable",
        ],
        phrases: &["overloaded", "over capacity", "no available capacity", "too busy"],
    },
    Rule {
        kind: FailureKind::RateLimited,
        error_type: None,
        codes: &[
            "rate_limit_exceeded",
            "rate_limit_error",
            "rate_limited",
            "ratelimitreached",
            "resource_exhausted",
            "throttlingexception",
            "too_many_requests",
            "requests",
            "tokens",
            "rate_limit_reached_error",
            "throttling",
            "toomanyrequestsexception",
            "request_rate_limit_exceeded",
            "token_rate_limit_exceeded",
        ],
        phrases: &["rate limit reached", "too many requests"],
    },
    Rule {
        kind: FailureKind::Timeout,
        error_type: None,
        codes: &["timeout", "timeout_error", "deadline_exceeded", "request_timeout", "modeltimeoutexception", "gateway_timeout"],
        phrases: &[],
    },
    Rule {
        kind: FailureKind::Server,
        error_type: None,
        codes: &[
            "server_error",
            "api_error",
            "internal_error",
            "internal",
            "internal_server_error",
            "internalserverexception",
            "internalservererror",
            "modelstreamerrorexception",
        ],
        phrases: &[],
    },
    Rule {
        kind: FailureKind::Forbidden,
        error_type: None,
        codes: &["permission_error", "permission_denied", "accessdeniedexception", "unsupported_country_region_territory"],
        phrases: &[],
    },
    Rule { kind: FailureKind::PayloadTooLarge, error_type: None, codes: &["request_too_large", "payload_too_large"], phrases: &[] },
    Rule {
        kind: FailureKind::InvalidRequest,
        error_type: None,
        codes: &["invalid_request_error", "invalid_argument", "failed_precondition", "validationexception", "bad_request_error"],
        phrases: &[],
    },
];

impl Meaning {
    /// Says more than that something was wrong with the request.
    fn is_telling(&self) -> bool {
        self.kind != FailureKind::InvalidRequest || self.error_type.is_some()
    }
}

pub(super) fn of(dialect: Dialect, status: Option<u16>, said: &Said) -> Meaning {
    let codes: Vec<String> = said.codes.iter().map(|code| code.to_ascii_lowercase()).collect();
    let message = said.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    let by_rule = RULES.iter().find(|rule| rule.applies(dialect, status, &codes, &message));
    let by_status = status.map(by_status);
    match (by_rule, by_status) {
        (Some(rule), Some(status)) if rule.is_vague() && status.is_telling() => status,
        (Some(rule), _) => Meaning { kind: rule.kind, error_type: rule.error_type },
        (None, Some(status)) => status,
        (None, None) => Meaning { kind: FailureKind::Server, error_type: None },
    }
}

impl Rule {
    fn applies(&self, dialect: Dialect, status: Option<u16>, codes: &[String], message: &str) -> bool {
        let coded = self.codes.iter().any(|known| codes.iter().any(|code| code == known));
        // Texts are believed only where the vendor does not blame itself: a stack trace may hold any phrase.
        let blames_itself = status.is_some_and(|status| status >= 500) && self.kind != FailureKind::Overloaded;
        let worded = !blames_itself && self.phrases.iter().any(|phrase| message.contains(phrase));
        // Google calls every quota, the one per minute too, a matter of "plan and billing".
        let google_quota = dialect == Dialect::Gemini && self.kind == FailureKind::CreditExhausted && status == Some(429);
        (coded || worded) && !google_quota
    }

    /// Codes that vendors attach to everything; a telling status knows better.
    fn is_vague(&self) -> bool {
        matches!(self.kind, FailureKind::InvalidRequest | FailureKind::Server | FailureKind::Forbidden) && self.error_type.is_none()
    }
}

fn by_status(status: u16) -> Meaning {
    let kind = match status {
        401 => FailureKind::Unauthorized,
        402 => FailureKind::CreditExhausted,
        403 => FailureKind::Forbidden,
        404 | 410 => FailureKind::ModelNotFound,
        408 | 504 | 522 | 524 => FailureKind::Timeout,
        413 => FailureKind::PayloadTooLarge,
        422 => FailureKind::Unprocessable,
        429 => FailureKind::RateLimited,
        // 498 is Groq's word for "no flex capacity", 529 Anthropic's for overload.
        498 | 503 | 529 => FailureKind::Overloaded,
        400..500 => FailureKind::InvalidRequest,
        _ => FailureKind::Server,
    };
    Meaning { kind, error_type: (status == 412).then_some(ErrorType::PreconditionFailed) }
}
