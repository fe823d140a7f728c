//! Reads and writes the wire dialects of LLM providers: the few facts a router needs from bytes, and bytes back.
//!
//! The caller always speaks the OpenAI chat dialect (with OpenRouter's extensions); the upstream speaks any [`Dialect`].
//! When both speak the same one, the caller's bytes are forwarded and only what must change is spliced; when they differ, the
//! request goes through one canonical form. Nothing here does I/O, waits, or asks the time: a request is a function of bytes to
//! bytes, and a stream is a state machine that is fed chunks. What a failure *means for routing* is not decided here either,
//! only what the provider said ([`Failure`]).

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod call;
mod canonical;
mod completion;
mod dialect;
mod error;
mod facts;
mod failure;
mod field;
mod json;
mod provider;
mod rate_limit;
mod reasoning;
pub mod scan;
mod splice;
pub mod sse;
mod stream;
mod target;
mod time;
mod usage;

pub use call::{ChatCall, Inputs, ReadLimits, ResponseFormat};
pub use completion::Completion;
pub use dialect::{Dialect, encode, read_completion};
pub use error::{Availability, ErrorBody, ErrorType, PreviousError, RequestError, write_stream_error};
pub use facts::{Closing, Cost, Facts, FinishReason, Stamp};
pub use failure::{Failure, FailureKind, classify, retry_after};
pub use provider::{AuthScheme, MaxTokensField, ProviderCatalog, ProviderError, ProviderInfo, Quirks, ReasoningStyle, providers};
pub use rate_limit::{RateLimitScheme, RateLimits, rate_limits};
pub use stream::{KEEP_ALIVE, Progress, StreamReader, write_echo};
pub use target::{Target, UpstreamRequest};
pub use usage::Usage;
