//! The OpenAI chat dialect: the caller's own, so requests and answers are spliced and never rebuilt.

mod answer;
mod choices;
mod completion;
mod reasoning;
mod request;
mod stream;

pub(crate) use self::{choices::Reasoning, completion::read_completion, request::encode, stream::StreamDecoder};
