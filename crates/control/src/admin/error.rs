//! What the admin API answers when it cannot do what was asked.

use http::StatusCode;
use serde_json::{Value, json};
use tidegate_proto::Problem;
use tidegate_proto::v1::{RefusalCode, Refused};

use crate::proposer::SubmitError;

/// An answer that says what is wrong, where, and what to do.
#[derive(Debug)]
pub(crate) struct AdminError {
    pub(crate) status: StatusCode,
    /// For machines; stays the same when the message gets better.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// What is wrong with what, one by one.
    pub(crate) problems: Vec<Problem>,
    /// What was found instead of what was expected.
    pub(crate) revision: Option<u64>,
    /// Seconds after which trying again may help.
    pub(crate) retry_after: Option<u32>,
}

impl AdminError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> AdminError {
        AdminError { status, code, message: message.into(), problems: Vec::new(), revision: None, retry_after: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> AdminError {
        AdminError::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> AdminError {
        AdminError::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>) -> AdminError {
        AdminError { retry_after: Some(1), ..AdminError::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }

    pub(crate) fn invalid(problems: Vec<Problem>) -> AdminError {
        let message = match problems.as_slice() {
            [problem] => problem.to_string(),
            problems => format!("{} problems; nothing was changed", problems.len()),
        };
        AdminError { problems, ..AdminError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message) }
    }

    pub(crate) fn body(&self) -> Value {
        let problems: Vec<Value> = self.problems.iter().map(problem).collect();
        let mut error = json!({ "code": self.code, "message": self.message });
        if !problems.is_empty() {
            error["problems"] = problems.into();
        }
        if let Some(revision) = self.revision {
            error["revision"] = revision.into();
        }
        json!({ "error": error })
    }
}

pub(crate) fn problem(problem: &Problem) -> Value {
    json!({
        "kind": problem.resource.as_ref().map(|id| &id.kind),
        "name": problem.resource.as_ref().map(|id| &id.name),
        "path": problem.path,
        "message": problem.message,
        "help": problem.help,
    })
}

impl From<SubmitError> for AdminError {
    fn from(error: SubmitError) -> AdminError {
        let message = error.to_string();
        match error {
            SubmitError::Refused(refused) => refused.into(),
            SubmitError::NoLeader(_) => AdminError::unavailable("no_leader", message),
            SubmitError::Unknown(_) => {
                let message = format!("{message}; send the same request with the same `Idempotency-Key` again to learn it");
                AdminError::unavailable("outcome_unknown", message)
            }
            SubmitError::Outdated(_) => AdminError::new(StatusCode::SERVICE_UNAVAILABLE, "upgrade_needed", message),
            SubmitError::Stopped(_) => AdminError::unavailable("not_running", message),
        }
    }
}

impl From<Refused> for AdminError {
    fn from(refused: Refused) -> AdminError {
        let (status, code) = match refused.code() {
            RefusalCode::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            RefusalCode::Exists => (StatusCode::CONFLICT, "exists"),
            RefusalCode::Conflict => (StatusCode::CONFLICT, "conflict"),
            RefusalCode::Limit => (StatusCode::UNPROCESSABLE_ENTITY, "limit"),
            RefusalCode::RequestReused => (StatusCode::UNPROCESSABLE_ENTITY, "request_reused"),
            RefusalCode::StaleTerm => (StatusCode::CONFLICT, "stale_term"),
            RefusalCode::TooOld => (StatusCode::UNPROCESSABLE_ENTITY, "too_old"),
            RefusalCode::Malformed | RefusalCode::Unspecified => (StatusCode::BAD_REQUEST, "malformed"),
        };
        let revision = (refused.code() == RefusalCode::Conflict).then_some(refused.revision);
        AdminError { revision, ..AdminError::new(status, code, refused.message) }
    }
}
