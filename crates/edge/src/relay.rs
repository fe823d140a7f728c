//! Handing a stream on, piece by piece, as the provider sends it.
//!
//! [`Relay`] is polled by the connection itself: no task, no channel, no buffer between the two legs. A caller who reads slowly therefore
//! slows the provider down, and a caller who leaves drops the relay, which closes the upstream connection. A piece that came in one
//! network read goes out in one write.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidegate_ledger::Ending;
use tidegate_routing::{AttemptEnd, RateHint, Timestamp};
use tidegate_wire::{Closing, Facts, Failure, FailureKind, KEEP_ALIVE, Stamp, StreamReader, write_stream_error};
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::attempt::{Answer, OpenStream, seen};
use crate::auth::AuthFailure;
use crate::error::{EdgeError, Fault};
use crate::explain;
use crate::generation::{AttemptDetails, End, Generation};
use crate::money::CostText;
use crate::pipeline::Committed;
use crate::upstream::ResponseBody;

/// A response stream.
pub(crate) struct Relay {
    phase: Phase,
    timer: Option<Pin<Box<Sleep>>>,
    keep_alive: Duration,
}

/// The attempts that have not committed yet.
pub(crate) type Attempts = Pin<Box<dyn Future<Output = Result<Committed, (Box<Generation>, EdgeError)>> + Send>>;

enum Phase {
    /// The caller has the head already, because the first token takes long; failing over is still possible.
    Waiting(Attempts),
    Relaying(Box<Relaying>),
    /// The caller has everything; the upstream's last bytes are read so that its connection can be used again.
    Lingering(ResponseBody),
    Done,
}

struct Relaying {
    generation: Box<Generation>,
    /// Taken when the stream has ended well.
    body: Option<ResponseBody>,
    reader: StreamReader,
    /// What is ready to be sent.
    out: BytesMut,
    idle_timeout: Duration,
    rate: Option<RateHint>,
    /// The dialect's end came together with the first token.
    finished: bool,
    /// When the provider last sent anything.
    last: Timestamp,
    /// How often in a row this batch was held back in vain for more that may be on its way; nothing is held back at 0.
    held: u8,
    /// See [`crate::auth::Cuts::includes`].
    cuts_seen: u64,
}

impl Relay {
    /// Relays a stream whose first token is here.
    pub(crate) fn of(generation: Box<Generation>, stream: OpenStream, keep_alive: Duration) -> Self {
        Self { phase: Phase::Relaying(Box::new(Relaying::new(generation, stream))), timer: None, keep_alive }
    }

    /// Keeps the caller company until the attempts come to something.
    pub(crate) fn waiting(attempts: Attempts, keep_alive: Duration) -> Self {
        Self { phase: Phase::Waiting(attempts), timer: None, keep_alive }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// The next bytes for the caller; `None` at the end.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match &mut self.phase {
                Phase::Done => return Poll::Ready(None),
                Phase::Lingering(body) => {
                    // Whatever else comes is not for the caller.
                    while let Poll::Ready(data) = body.poll_data(context) {
                        if !matches!(data, Some(Ok(_))) {
                            self.phase = Phase::Done;
                            return Poll::Ready(None);
                        }
                    }
                    let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + LINGER)));
                    if timer.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    self.phase = Phase::Done;
                }
                Phase::Waiting(attempts) => match attempts.as_mut().poll(context) {
                    Poll::Ready(outcome) => {
                        self.timer = None;
                        if let Some(bytes) = self.begin(outcome) {
                            return Poll::Ready(Some(bytes));
                        }
                    }
                    Poll::Pending => return self.poll_keep_alive(context),
                },
                Phase::Relaying(relaying) => match relaying.poll_step(context) {
                    Poll::Ready(Step::More(bytes)) => return Poll::Ready(Some(bytes)),
                    Poll::Ready(Step::Last(bytes)) => {
                        self.timer = None;
                        self.phase = relaying.body.take().map_or(Phase::Done, Phase::Lingering);
                        return Poll::Ready(Some(bytes));
                    }
                    Poll::Ready(Step::Broken(bytes)) => {
                        self.phase = Phase::Done;
                        return Poll::Ready(Some(bytes));
                    }
                    Poll::Ready(Step::Yield) => {
                        // Polled once and dropped: it has asked to be woken after the sockets were looked at.
                        let _ = pin!(yield_now()).poll(context);
                        return Poll::Pending;
                    }
                    Poll::Pending => match self.poll_silence(context) {
                        Poll::Ready(Some(bytes)) => return Poll::Ready(Some(bytes)),
                        Poll::Ready(None) => {}
                        Poll::Pending => return Poll::Pending,
                    },
                },
            }
        }
    }

    /// The attempts came to something after the caller got the head: a stream to relay, or the error as an event.
    fn begin(&mut self, outcome: Result<Committed, (Box<Generation>, EdgeError)>) -> Option<Bytes> {
        match outcome {
            Ok(Committed { generation, answer: Answer::Stream(stream) }) => {
                self.phase = Phase::Relaying(Box::new(Relaying::new(generation, *stream)));
                None
            }
            Ok(Committed { .. }) => {
                // A request for a stream is never answered by a whole.
                self.phase = Phase::Done;
                None
            }
            Err((mut generation, error)) => {
                self.phase = Phase::Done;
                Some(error_event(&mut generation, &error))
            }
        }
    }

    fn poll_keep_alive(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let every = self.keep_alive;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now())));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        timer.as_mut().reset(Instant::now() + every);
        Poll::Ready(Some(Bytes::from_static(KEEP_ALIVE)))
    }

    /// Nothing came from upstream. One timer serves both the comment and the idle limit; it is looked at when it fires, so that a
    /// stream that flows never touches it. `Ready(None)` means: look again.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Phase::Relaying(relaying) = &mut self.phase else { return Poll::Ready(None) };
        let step = self.keep_alive.min(relaying.idle_timeout);
        let generation = &relaying.generation;
        let timer =
            self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + step.min(generation.deadline - generation.now()))));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let now = relaying.generation.now();
        if now >= relaying.generation.deadline {
            let bytes = relaying.out_of_time();
            self.phase = Phase::Done;
            return Poll::Ready(Some(bytes));
        }
        let silent = now - relaying.last;
        if silent >= relaying.idle_timeout {
            let bytes = relaying.fail(seen(FailureKind::Timeout, "the provider fell silent"), AttemptEnd::IdleTimeout);
            self.phase = Phase::Done;
            return Poll::Ready(Some(bytes));
        }
        let next = if silent >= self.keep_alive { self.keep_alive } else { step - silent.min(step) };
        let next = next.min(relaying.generation.deadline - now);
        timer.as_mut().reset(Instant::now() + next.max(Duration::from_millis(1)));
        if silent >= self.keep_alive { Poll::Ready(Some(Bytes::from_static(KEEP_ALIVE))) } else { Poll::Ready(None) }
    }
}

enum Step {
    More(Bytes),
    /// The sockets are looked at first: there may be more that can go out with what is here.
    Yield,
    /// The last bytes; the upstream may have a few more that nobody needs.
    Last(Bytes),
    /// The last bytes, after which the upstream connection is closed.
    Broken(Bytes),
}

impl Relaying {
    fn new(mut generation: Box<Generation>, stream: OpenStream) -> Self {
        generation.committed();
        generation.shared.metrics.streams.inc();
        let OpenStream { body, reader, first, idle_timeout, rate, finished } = stream;
        let last = generation.now();
        generation.delivered(reader.facts(), &first);
        let out = match generation.take_echoes() {
            echoes if echoes.is_empty() => first,
            echoes => with_echoes(&generation, &echoes, &first),
        };
        Self { generation, body: Some(body), reader, out, idle_timeout, rate, finished, last, held: 0, cuts_seen: 0 }
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if self.generation.shared.cuts.includes(&self.generation.caller.public_id, &mut self.cuts_seen) {
            // Nobody's fault, so health does not hear of it.
            let details = self.details();
            self.generation.end_attempt(AttemptEnd::Cancelled, details);
            return Poll::Ready(Step::Broken(self.close(&EdgeError::Auth(AuthFailure::Revoked))));
        }
        if self.finished {
            return Poll::Ready(self.finish());
        }
        // What came with the first token goes out at once, as does the first piece after a pause.
        if !self.out.is_empty() && self.held == 0 {
            return Poll::Ready(Step::More(self.take_out()));
        }
        let mut now = None;
        let mut burst = self.held > 0;
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(Step::Broken(self.take_out())) };
            let data = match body.poll_data(context) {
                Poll::Pending if self.out.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    // A read hands over what has come so far. In a burst the sockets are looked at again for as long as they have more, so
                    // that one write carries many events.
                    let waiting = burst && self.held < HELD_IN_VAIN;
                    return Poll::Ready(if waiting { self.hold() } else { Step::More(self.take_out()) });
                }
                Poll::Ready(Some(Ok(data))) => data,
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, generation = %self.generation.context.id, "the stream broke");
                    let failure = seen(FailureKind::Cut, "the provider broke the stream off");
                    return Poll::Ready(Step::Broken(self.fail(failure, AttemptEnd::Cut)));
                }
                Poll::Ready(None) => {
                    return Poll::Ready(match self.reader.end_into(&mut self.out) {
                        Ok(()) => self.finish(),
                        Err(failure) => Step::Broken(self.fail(failure, AttemptEnd::Cut)),
                    });
                }
            };
            if now.is_none() {
                let at = self.generation.now();
                now = Some(at);
                let gap = at - std::mem::replace(&mut self.last, at);
                burst |= gap < BURST_GAP;
                if let Some(target) = self.generation.target() {
                    target.metrics.inter_chunk.observe(gap.as_secs_f64());
                }
                if at >= self.generation.deadline {
                    return Poll::Ready(Step::Broken(self.out_of_time()));
                }
            }
            let pushed = self.reader.push(data, &mut self.out);
            self.generation.delivered(self.reader.facts(), &self.out);
            match pushed {
                Ok(progress) if progress.finished => return Poll::Ready(self.finish()),
                Ok(_) if self.out.len() >= BATCH => return Poll::Ready(Step::More(self.take_out())),
                Ok(_) => self.held = u8::from(burst && !self.out.is_empty()),
                Err(failure) => return Poll::Ready(Step::Broken(self.fail(failure, AttemptEnd::Cut))),
            }
        }
    }

    fn hold(&mut self) -> Step {
        self.held += 1;
        Step::Yield
    }

    fn take_out(&mut self) -> Bytes {
        self.held = 0;
        let bytes = self.out.split().freeze();
        self.generation.shared.metrics.response_bytes.inc_by(bytes.len() as u64);
        bytes
    }

    /// The stream ended well: usage, cost, metadata and the end mark, in one piece with whatever is left.
    fn finish(&mut self) -> Step {
        let details = self.details();
        self.generation.end_attempt(AttemptEnd::Success, details);
        let bill = self.generation.bill(Ending::Completed, self.reader.facts());
        if bill.estimated {
            self.reader.assume_usage(crate::money::wire_usage(&bill.usage));
        }
        let cost = CostText::of(&bill);
        let metadata = self.generation.context.metadata_field.map(|_| explain::metadata(&self.generation, None));
        let closing = Closing {
            cost: Some(cost.as_cost()),
            metadata: metadata.as_deref(),
            metadata_field: self.generation.context.metadata_field.unwrap_or_default(),
        };
        self.reader.close(&closing, &mut self.out);
        let end = End { ending: Ending::Completed, status: 200, error_type: "" };
        self.generation.settle(end, self.reader.facts(), &bill);
        Step::Last(self.take_out())
    }

    /// The stream failed after its first byte: the status cannot change any more, so the error goes out as an event.
    fn fail(&mut self, failure: Failure, end: AttemptEnd) -> Bytes {
        let details = AttemptDetails { retry_after: failure.retry_after, ..self.details() };
        self.generation.end_attempt(end, details);
        let error = EdgeError::midstream(&self.generation, failure);
        self.close(&error)
    }

    /// Ends the stream with an error event.
    fn close(&mut self, error: &EdgeError) -> Bytes {
        let bill = self.generation.bill(Ending::Cut, self.reader.facts());
        let fault = error.fault(&self.generation);
        write_event(&mut self.out, &self.generation, &fault);
        let end = End { ending: Ending::Cut, status: 200, error_type: fault.label() };
        self.generation.settle(end, self.reader.facts(), &bill);
        self.take_out()
    }

    /// The time that the caller granted is up in the middle of the answer: nobody's fault, so health does not hear of it.
    fn out_of_time(&mut self) -> Bytes {
        self.fail(seen(FailureKind::Timeout, "the time granted for this request is up"), AttemptEnd::Cancelled)
    }

    fn details(&self) -> AttemptDetails {
        let facts = self.reader.facts();
        AttemptDetails {
            status: Some(200),
            retry_after: None,
            rate: self.rate,
            output_tokens: facts.usage.as_ref().and_then(|usage| u32::try_from(usage.completion_tokens).ok()),
            upstream_id: facts.upstream_id.clone(),
        }
    }
}

impl Drop for Relaying {
    fn drop(&mut self) {
        self.generation.shared.metrics.streams.dec();
        // Already settled unless the caller left: then what was delivered until now is what counts.
        let details = self.details();
        self.generation.end_attempt(AttemptEnd::Cancelled, details);
        let bill = self.generation.bill(Ending::Cancelled, self.reader.facts());
        let end = End { ending: Ending::Cancelled, status: 200, error_type: "cancelled" };
        self.generation.settle(end, self.reader.facts(), &bill);
    }
}

/// What was sent upstream, before the answer: one chunk per attempt.
fn with_echoes(generation: &Generation, echoes: &[Bytes], first: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    if let Some(target) = generation.target() {
        for body in echoes {
            tidegate_wire::write_echo(&generation.stamp(target), body, &mut out);
        }
    }
    out.extend_from_slice(first);
    out
}

/// A failed request as the one event of a stream that has nothing else.
fn error_event(generation: &mut Generation, error: &EdgeError) -> Bytes {
    let fault = error.fault(generation);
    let mut out = BytesMut::new();
    write_event(&mut out, generation, &fault);
    let facts = Facts::default();
    let bill = generation.bill(Ending::Failed, &facts);
    generation.settle(End { ending: Ending::Failed, status: 200, error_type: fault.label() }, &facts, &bill);
    out.freeze()
}

fn write_event(out: &mut BytesMut, generation: &Generation, fault: &Fault) {
    let stamp = match generation.target() {
        Some(target) => generation.stamp(target),
        None => Stamp {
            generation_id: generation.context.id.clone(),
            model: generation.state.model(generation.context.model).slug.clone(),
            provider: generation.context.nothing.clone(),
            created: generation.context.created_ms / 1000,
        },
    };
    fault.with_body(|body| write_stream_error(&stamp, body, out));
}

/// Pieces that come faster than this are a burst. Models write a token in milliseconds, so a paced stream never looks like one.
const BURST_GAP: Duration = Duration::from_micros(250);
/// How often a batch is asked for in vain before it goes out: hyper asks twice in one turn of the caller's connection, so that the
/// third time is after a look at the sockets.
const HELD_IN_VAIN: u8 = 3;
/// Bytes that go out without looking for more: what a caller's socket takes in one write.
const BATCH: usize = 16 * 1024;
/// Time for the last bytes of a finished upstream to come in; after it the connection is closed instead of used again.
const LINGER: Duration = Duration::from_millis(100);
