//! The way back: an answer at once or event by event, in the time it takes, and broken where it is to break.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::answer::Answer;
use crate::ask::Ask;
use crate::body::{Due, End, Events, SimBody};
use crate::dialect::{Dialect, Event, Reply, Trouble};
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::rate_limit::Standing;
use crate::server::respond;
use crate::spec::FixedAnswer;

impl Exchange {
    fn reply<'r>(&self, ask: &'r Ask, answer: &'r Answer) -> Reply<'r> {
        Reply {
            ask,
            answer,
            number: self.serving.number,
            created: self.state.clock.unix_seconds(),
            tokens_per_chunk: usize::try_from(self.timing.tokens_per_chunk).unwrap_or(1),
        }
    }

    /// Sends the head at once and then each event when the tokens before it would have been made.
    pub(crate) fn stream(mut self, ask: &Ask, answer: &Answer, fault: Option<&Fault>, standing: Option<&Standing>) -> Response<SimBody> {
        let mut events = self.dialect.events(&self.reply(ask, answer));
        let end = misfortune_of_stream(self.dialect, fault, &mut events);
        let first_token = self.timing.draw_first_token(&mut self.random);
        let mut tokens_before = 0;
        let events = events
            .into_iter()
            .map(|event| {
                let after = first_token + self.timing.span(tokens_before);
                tokens_before += event.tokens;
                Due { event, after }
            })
            .collect();
        let mut headers = self.head(200, "text/event-stream; charset=utf-8", standing);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        respond(200, headers, SimBody::stream(Events::Made(events), end, self.serving))
    }

    /// Waits for the whole answer to be made, and sends it.
    pub(crate) async fn whole(
        mut self,
        ask: &Ask,
        answer: &Answer,
        fault: Option<&Fault>,
        standing: Option<&Standing>,
    ) -> io::Result<Response<SimBody>> {
        let time = self.timing.draw_first_token(&mut self.random) + self.timing.span(answer.usage.completion);
        pause(time).await;
        if let Some(Fault::ErrorEvent { .. }) = fault {
            return Ok(self.refuse(&Trouble::of_status(500), None, standing));
        }
        let text = Bytes::from(self.dialect.whole(&self.reply(ask, answer)).to_string());
        let headers = self.head(200, "application/json", standing);
        Ok(self.send_whole(text, answer.usage.completion, headers, fault))
    }

    /// Sends what everyone gets; of the request only the form matters.
    pub(crate) async fn answer_fixed(
        mut self,
        fixed: Arc<FixedAnswer>,
        path_stream: bool,
        fault: Option<Fault>,
    ) -> io::Result<Response<SimBody>> {
        let streams = path_stream || self.arrived.asks_for_stream();
        let delay = self.timing.draw_first_token(&mut self.random);
        if streams {
            let headers = self.head(200, "text/event-stream; charset=utf-8", None);
            let (events, end) = match fault {
                None => (Events::Fixed { answer: fixed, delay }, End::Regular),
                Some(_) => self.broken_fixed(&fixed, delay, fault.as_ref()),
            };
            return Ok(respond(200, headers, SimBody::stream(events, end, self.serving)));
        }
        pause(delay).await;
        let headers = self.head(200, "application/json", None);
        Ok(self.send_whole(fixed.json.clone(), 0, headers, fault.as_ref()))
    }

    /// An answer at once, or the part of it that the fault leaves.
    fn send_whole(mut self, text: Bytes, tokens: u32, mut headers: HeaderMap, fault: Option<&Fault>) -> Response<SimBody> {
        let half = text.slice(..text.len() / 2);
        let end = match fault {
            Some(Fault::Cut { .. }) => End::Break,
            Some(Fault::Stall { .. }) => End::Silence,
            Some(Fault::Malformed) => {
                return respond(200, headers, SimBody::whole(half, self.serving));
            }
            _ => {
                self.serving.sent(tokens);
                return respond(200, headers, SimBody::whole(text, self.serving));
            }
        };
        // The full length is announced, so the caller knows that something is missing.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        let first = Due { event: Event { bytes: half, tokens: 0 }, after: Duration::ZERO };
        let body = SimBody::stream(Events::Made(vec![first]), end, self.serving);
        respond(200, headers, body)
    }

    fn broken_fixed(&self, fixed: &FixedAnswer, delay: Duration, fault: Option<&Fault>) -> (Events, End) {
        let mut events: Vec<Event> = fixed.events.iter().map(|bytes| Event { bytes: bytes.clone(), tokens: 1 }).collect();
        let end = misfortune_of_stream(self.dialect, fault, &mut events);
        let due = (0_u32..).zip(events).map(|(step, event)| Due { event, after: delay + fixed.pace.saturating_mul(step) });
        (Events::Made(due.collect()), end)
    }

    /// Answers with an error of the dialect.
    pub(crate) fn refuse(mut self, trouble: &Trouble, retry_after: Option<Duration>, standing: Option<&Standing>) -> Response<SimBody> {
        let text = Bytes::from(self.dialect.error(trouble).to_string());
        let mut headers = self.head(trouble.status, "application/json", standing);
        if let Some(after) = retry_after {
            // Whole seconds, rounded up: coming back too early is what the header is to prevent.
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1_000) as u64));
        }
        respond(trouble.status, headers, SimBody::whole(text, self.serving))
    }

    /// Counts the answer and makes its headers.
    fn head(&mut self, status: u16, content_type: &'static str, standing: Option<&Standing>) -> HeaderMap {
        self.serving.answered(status);
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Ok(id) = HeaderValue::try_from(format!("req_{:016x}", self.serving.number)) {
            headers.insert(HeaderName::from_static(self.dialect.request_id_header()), id);
        }
        if let Some(standing) = standing {
            self.dialect.rate_headers(standing, self.state.clock.unix_seconds(), &mut headers);
        }
        headers
    }
}

/// Changes the events as the fault wants it, and says how they end.
fn misfortune_of_stream(dialect: Dialect, fault: Option<&Fault>, events: &mut Vec<Event>) -> End {
    match fault {
        Some(Fault::Stall { after }) => {
            events.truncate(*after);
            End::Silence
        }
        Some(Fault::Cut { after }) => {
            events.truncate(*after);
            End::Break
        }
        Some(Fault::ErrorEvent { after }) => {
            events.truncate(*after);
            let status = if dialect == Dialect::AnthropicMessages { 529 } else { 500 };
            events.push(dialect.error_event(&Trouble::of_status(status)));
            End::Regular
        }
        Some(Fault::Malformed) => {
            events.insert(0, dialect.broken_event());
            End::Regular
        }
        None | Some(Fault::Status { .. } | Fault::Refuse | Fault::Reset | Fault::Hang | Fault::Empty | Fault::Slow { .. }) => End::Regular,
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}
