//! This dialect is not translated yet: every operation refuses.

use bytes::{Bytes, BytesMut};

use crate::{
    call::ChatCall,
    completion::Completion,
    error::{ErrorType, RequestError},
    facts::{Facts, Stamp},
    failure::{Failure, FailureKind},
    sse,
    target::{Target, UpstreamRequest},
};

pub(crate) fn encode(_call: &ChatCall, _target: &Target<'_>) -> Result<UpstreamRequest, RequestError> {
    Err(RequestError::of(ErrorType::Server, "this dialect is not served"))
}

pub(crate) fn read_completion(_body: Bytes, _stamp: Stamp) -> Result<Completion, Failure> {
    Err(Failure::seen(FailureKind::Malformed, "this dialect is not served"))
}

#[derive(Debug, Default)]
pub(crate) struct StreamDecoder;

impl StreamDecoder {
    pub(crate) fn push_event(
        &mut self,
        _event: sse::Event<'_>,
        _stamp: &Stamp,
        _facts: &mut Facts,
        _out: &mut BytesMut,
    ) -> Result<(), Failure> {
        Err(Failure::seen(FailureKind::Malformed, "this dialect is not served"))
    }

    pub(crate) fn finished(&self) -> bool {
        false
    }
}
