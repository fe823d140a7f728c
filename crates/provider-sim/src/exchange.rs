//! One request on its way to an answer: what is asked, what is to go wrong, and who is let in.

use std::io;
use std::sync::Arc;

use http::Response;
use serde_json::Value;

use crate::answer::{Answer, Words};
use crate::ask::Ask;
use crate::body::SimBody;
use crate::dialect::{Dialect, Trouble};
use crate::fault::{Fault, Misfortune};
use crate::prompt_cache::Cached;
use crate::recorded::RecordedRequest;
use crate::script::{Script, ScriptError};
use crate::socket::ResetSwitch;
use crate::spec::{Answering, Timing};
use crate::state::{Serving, Settings, State};

/// One request on its way to an answer.
pub(crate) struct Exchange {
    pub(crate) state: Arc<State>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) dialect: Dialect,
    pub(crate) arrived: RecordedRequest,
    pub(crate) timing: Timing,
    /// Chances of this request alone.
    pub(crate) random: fastrand::Rng,
    pub(crate) serving: Serving,
}

impl Exchange {
    /// Answers, breaks the connection, or does not answer at all.
    pub(crate) async fn answer(
        mut self,
        path_model: Option<String>,
        path_stream: bool,
        reset: &ResetSwitch,
    ) -> io::Result<Response<SimBody>> {
        let script = match self.script() {
            Ok(script) => script,
            Err(trouble) => return Ok(self.refuse(&trouble, None, None)),
        };
        let body = self.parse();
        let model = path_model.or_else(|| Some(body.as_ref()?.get("model")?.as_str()?.to_owned()));
        let fate = self.fate(script.as_ref(), model.as_deref().unwrap_or_default());
        match &fate.fault {
            Some(Fault::Reset | Fault::Refuse) => {
                reset.turn();
                self.serving.finished();
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            // Ends when the caller leaves, and then counts as a disconnect.
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Status { status, retry_after }) => {
                let trouble = Trouble::of_status(*status);
                return Ok(self.refuse(&trouble, *retry_after, None));
            }
            _ => {}
        }
        if let Answering::Fixed(fixed) = &self.settings.answering {
            let fixed = Arc::clone(fixed);
            return self.answer_fixed(fixed, path_stream, fate.fault).await;
        }
        let mut ask = match self.admit(body.as_ref()) {
            Ok(ask) => ask,
            Err(trouble) => return Ok(self.refuse(&trouble, None, None)),
        };
        if self.dialect == Dialect::Gemini {
            ask.model = model.unwrap_or_default();
            ask.stream = path_stream;
        }
        if let Err(trouble) = self.check_limits(&ask) {
            return Ok(self.refuse(&trouble, None, None));
        }
        let standing = self.state.take_rate(ask.prompt_tokens());
        if let Some(exceeded) = standing.filter(|standing| standing.exceeded) {
            let trouble = Trouble::of_status(429);
            return Ok(self.refuse(&trouble, Some(exceeded.reset), Some(&exceeded)));
        }
        let answer = self.compose(&ask, script, fate.fault.as_ref());
        if ask.stream {
            Ok(self.stream(&ask, &answer, fate.fault.as_ref(), standing.as_ref()))
        } else {
            self.whole(&ask, &answer, fate.fault.as_ref(), standing.as_ref()).await
        }
    }

    /// The header's script comes before the queue's; a request with one does not use up the other.
    fn script(&self) -> Result<Option<Script>, Trouble> {
        let Some(header) = self.arrived.headers.get(SCRIPT_HEADER) else {
            return Ok(self.state.next_script());
        };
        let text = String::from_utf8_lossy(header.as_bytes());
        text.parse().map(Some).map_err(|error: ScriptError| Trouble::invalid(error.to_string(), None))
    }

    /// A fixed answer needs nothing of the body.
    fn parse(&self) -> Option<Value> {
        match self.settings.answering {
            Answering::Fixed(_) => None,
            Answering::Written | Answering::Echo => serde_json::from_slice(&self.arrived.body).ok(),
        }
    }

    fn fate(&mut self, script: Option<&Script>, model: &str) -> Misfortune {
        let fate = match script {
            None => Misfortune::draw(&self.settings.faults, self.state.since_start(), model, &mut self.random),
            Some(script) => {
                let mut fate = Misfortune { fault: None, slowness: 1.0 };
                let slow = script.slowness.map(|factor| Fault::Slow { factor });
                slow.iter().chain(&script.fault).for_each(|fault| fate.add(fault));
                self.timing.first_token = script.first_token.unwrap_or(self.timing.first_token);
                self.timing.tokens_per_second = script.tokens_per_second.unwrap_or(self.timing.tokens_per_second);
                fate
            }
        };
        self.timing = self.timing.slowed(fate.slowness);
        fate
    }

    fn admit(&self, body: Option<&Value>) -> Result<Ask, Trouble> {
        let keys = &self.settings.keys;
        if !keys.is_empty() && !self.arrived.presented_key().is_some_and(|key| keys.contains(&key)) {
            return Err(Trouble::of_status(401));
        }
        let body = body.ok_or_else(|| Trouble::invalid("We could not parse the JSON body of your request.", None))?;
        self.dialect.read(body, &self.arrived.headers)
    }

    fn check_limits(&self, ask: &Ask) -> Result<(), Trouble> {
        let models = &self.settings.models;
        if !models.is_empty() && !models.contains(&ask.model) {
            return Err(Trouble::unknown_model(&ask.model));
        }
        match self.state.context_length {
            Some(limit) if ask.prompt_tokens() > limit => Err(Trouble::context_length(limit, ask.prompt_tokens())),
            _ => Ok(()),
        }
    }

    fn compose(&self, ask: &Ask, script: Option<Script>, fault: Option<&Fault>) -> Answer {
        let script = script.unwrap_or_default();
        let echo = script.echo || matches!(self.settings.answering, Answering::Echo);
        let words = match (fault, script.text) {
            (Some(Fault::Empty), _) => Words::None,
            (_, Some(text)) => Words::Given(text),
            (_, None) if echo => Words::Given(self.arrived.echo()),
            (_, None) => Words::Written,
        };
        // Anthropic caches what is marked, the others what they please.
        let caches = self.dialect != Dialect::AnthropicMessages || ask.cache_marked;
        let cached = if caches { self.state.read_cache(&ask.prompt) } else { Cached::default() };
        Answer::compose(ask, words, cached, self.state.seed)
    }
}

/// Tells the fate of the request that carries it; see [`crate::Script`].
const SCRIPT_HEADER: &str = "x-sim-script";
