//! Writes the body of `POST /v1/messages`.

use bytes::BytesMut;
use http::{HeaderName, HeaderValue};
use smallvec::{SmallVec, smallvec};

use super::{
    ANSWER_TOOL,
    content::{self, Conversation},
    model::Generation,
    thinking::{Mode, Plan},
};
use crate::{
    call::ChatCall,
    canonical::{Json, NamedSchema, OutputShape, Parameters, Request, Tool, ToolChoice},
    error::RequestError,
    provider::ReasoningStyle,
    reasoning::Effort,
    target::{Target, UpstreamRequest},
};

/// Version of the API unless the provider's fixed headers name one; the oldest that every host understands.
const DEFAULT_VERSION: &str = "2023-06-01";

/// From this version on the API answers sampling parameters with 400. Versions are dates, so they compare as text.
const VERSION_WITHOUT_SAMPLING: &str = "2026-10-21";

/// Needed to refer to files stored at the upstream.
const FILES_BETA: HeaderValue = HeaderValue::from_static("files-api-2025-04-14");

const VERSION_HEADER: HeaderName = HeaderName::from_static("anthropic-version");
const BETA_HEADER: HeaderName = HeaderName::from_static("anthropic-beta");

/// Translates the caller's request.
pub(crate) fn encode(call: &ChatCall, target: &Target<'_>) -> Result<UpstreamRequest, RequestError> {
    let request = Request::parse(call)?;
    let mut body = BytesMut::with_capacity(call.body().len() + 512);
    let mut encoder = Encoder::new(&request, target)?;
    let uses_files = encoder.write(&mut Json::new(&mut body))?;

    let mut headers = SmallVec::new();
    if fixed_version(target).is_none() {
        headers.push((VERSION_HEADER, HeaderValue::from_static(DEFAULT_VERSION)));
    }
    if uses_files {
        headers.push((BETA_HEADER, FILES_BETA));
    }
    Ok(UpstreamRequest {
        path: target.provider.chat_path.clone().unwrap_or_else(|| "/v1/messages".to_owned()),
        body: smallvec![body.freeze()],
        headers,
        dropped: encoder.parameters.into_dropped(),
    })
}

fn fixed_version<'t>(target: &Target<'t>) -> Option<&'t str> {
    let mut headers = target.provider.extra_headers.iter();
    headers.find(|(name, _)| name.eq_ignore_ascii_case("anthropic-version")).map(|(_, version)| version.as_str())
}

/// One request on its way, with everything decided before the first byte is written.
struct Encoder<'r, 'a> {
    request: &'r Request<'a>,
    target: &'r Target<'r>,
    parameters: Parameters<'r>,
    generation: Generation,
    plan: Plan,
    tools: &'r [Tool<'a>],
    tool_choice: Option<ToolChoice<'a>>,
    output: Output<'r, 'a>,
}

/// How the wanted shape of the answer is obtained.
#[derive(Clone, Copy)]
enum Output<'r, 'a> {
    /// No shape was asked for.
    Free,
    /// The API's own constraint.
    Native(&'r NamedSchema<'a>),
    /// One forced tool; its schema, and what it is for.
    Tool(Option<&'r NamedSchema<'a>>),
    /// A sentence in the system prompt.
    Instruction(Option<&'r NamedSchema<'a>>),
}

impl<'r, 'a> Encoder<'r, 'a> {
    fn new(request: &'r Request<'a>, target: &'r Target<'r>) -> Result<Encoder<'r, 'a>, RequestError> {
        let mut parameters = Parameters::new(target);
        let generation = Generation::of(target.model);
        let tools = parameters.take("tools", request.tools.as_deref()).unwrap_or_default();
        let tool_choice = request.tool_choice()?.filter(|_| !tools.is_empty());
        let tool_choice = parameters.take("tool_choice", tool_choice);
        let forced = matches!(tool_choice, Some(ToolChoice::Required | ToolChoice::Function(_)));

        let able = parameters.supports("reasoning") && target.provider.quirks.reasoning != ReasoningStyle::None;
        let plan = Plan::new(request, request.thinking()?, generation, target.max_output, able, forced);
        if plan.dropped {
            parameters.drop("reasoning");
        }
        let output = choose_output(request, &mut parameters, tools.is_empty() && !plan.thinks())?;
        Ok(Encoder { request, target, parameters, generation, plan, tools, tool_choice, output })
    }

    /// Writes the body; returns whether it refers to stored files.
    fn write(&mut self, json: &mut Json<'_>) -> Result<bool, RequestError> {
        json.open_object();
        json.string_at("model", self.target.model);
        json.key("max_tokens");
        json.integer(self.plan.max_tokens);
        if self.target.stream {
            json.key("stream");
            json.boolean(true);
        }
        self.write_system(json)?;
        json.array_at("messages");
        let mut conversation = Conversation::new(json);
        conversation.write(self.request)?;
        let uses_files = conversation.uses_files;
        json.close_array();
        self.write_tools(json)?;
        self.write_tool_choice(json);
        self.write_thinking(json);
        self.write_output_config(json);
        self.write_sampling(json)?;
        self.write_account(json);
        content::write_cache(json, self.request.cache_control.as_ref())?;
        json.close_object();
        self.note_what_has_no_word();
        Ok(uses_files)
    }

    fn write_system(&self, json: &mut Json<'_>) -> Result<(), RequestError> {
        let instruction = match self.output {
            Output::Instruction(None) => Some("Answer with one JSON object and nothing else: no prose, no code fence.".to_owned()),
            Output::Instruction(Some(schema)) => Some(format!(
                "Answer with JSON that is valid under this JSON Schema and nothing else: no prose, no code fence.\n{}",
                schema.schema()
            )),
            Output::Free | Output::Native(_) | Output::Tool(_) => None,
        };
        if instruction.is_none() && !content::has_system(self.request) {
            return Ok(());
        }
        json.array_at("system");
        content::write_system(self.request, json)?;
        if let Some(instruction) = instruction {
            json.open_object();
            json.string_at("type", "text");
            json.string_at("text", &instruction);
            json.close_object();
        }
        json.close_array();
        Ok(())
    }

    fn write_tools(&mut self, json: &mut Json<'_>) -> Result<(), RequestError> {
        let search = self.parameters.take("web_search_options", self.request.web_search_options).is_some();
        let answer = match self.output {
            Output::Tool(schema) => Some(schema),
            Output::Free | Output::Native(_) | Output::Instruction(_) => None,
        };
        if self.tools.is_empty() && !search && answer.is_none() {
            return Ok(());
        }
        json.array_at("tools");
        for (index, tool) in self.tools.iter().enumerate() {
            let function = tool.function(index)?;
            json.open_object();
            json.literal_at("name", function.name);
            if let Some(description) = function.description {
                json.literal_at("description", description);
            }
            json.key("input_schema");
            write_object_schema(json, function.parameters.map(serde_json::value::RawValue::get));
            if function.strict == Some(true) && self.parameters.supports("structured_outputs") {
                json.key("strict");
                json.boolean(true);
            }
            content::write_cache(json, tool.cache_control.as_ref())?;
            json.close_object();
        }
        if search {
            json.open_object();
            json.string_at("type", "web_search_20250305");
            json.string_at("name", "web_search");
            json.close_object();
        }
        if let Some(schema) = answer {
            json.open_object();
            json.string_at("name", ANSWER_TOOL);
            json.key("description");
            match schema.and_then(|schema| schema.description) {
                Some(description) => json.literal(description),
                None => json.string("Gives the whole answer to the user as structured data."),
            }
            json.key("input_schema");
            write_object_schema(json, schema.map(NamedSchema::schema));
            json.close_object();
        }
        json.close_array();
        Ok(())
    }

    fn write_tool_choice(&mut self, json: &mut Json<'_>) {
        if let Output::Tool(_) = self.output {
            json.object_at("tool_choice");
            json.string_at("type", "tool");
            json.string_at("name", ANSWER_TOOL);
            json.close_object();
            return;
        }
        let parallel = self.request.parallel_tool_calls.filter(|_| !self.tools.is_empty());
        let serial = self.parameters.take("parallel_tool_calls", parallel) == Some(false);
        let kind = match (&self.tool_choice, serial) {
            (None, false) => return,
            (None | Some(ToolChoice::Auto), _) => "auto",
            (Some(ToolChoice::None), _) => "none",
            (Some(ToolChoice::Required), _) => "any",
            (Some(ToolChoice::Function(_)), _) => "tool",
        };
        json.object_at("tool_choice");
        json.string_at("type", kind);
        if let Some(ToolChoice::Function(name)) = self.tool_choice {
            json.literal_at("name", name);
        }
        if serial && kind != "none" {
            json.key("disable_parallel_tool_use");
            json.boolean(true);
        }
        json.close_object();
    }

    fn write_thinking(&self, json: &mut Json<'_>) {
        let hidden = self.request.hides_reasoning();
        match self.plan.mode {
            Mode::Absent => {}
            Mode::Disabled => {
                json.object_at("thinking");
                json.string_at("type", "disabled");
                json.close_object();
            }
            Mode::Enabled { budget } => {
                json.object_at("thinking");
                json.string_at("type", "enabled");
                json.key("budget_tokens");
                json.integer(budget);
                json.close_object();
            }
            Mode::Adaptive => {
                json.object_at("thinking");
                json.string_at("type", "adaptive");
                // Said each time: the default differs between the generations.
                json.string_at("display", if hidden { "omitted" } else { "summarized" });
                json.close_object();
            }
        }
    }

    /// Effort and output format share one object.
    fn write_output_config(&mut self, json: &mut Json<'_>) {
        let verbosity = self.parameters.take("verbosity", self.request.verbosity.as_deref());
        let effort = self.plan.effort.or_else(|| {
            let verbosity = verbosity?;
            let effort = Effort::parse(verbosity).filter(|_| self.generation.takes_effort());
            if effort.is_none() {
                self.parameters.drop("verbosity");
            }
            effort?.nearest(self.generation.efforts())
        });
        let schema = match self.output {
            Output::Native(schema) => Some(schema),
            Output::Free | Output::Tool(_) | Output::Instruction(_) => None,
        };
        if effort.is_none() && schema.is_none() {
            return;
        }
        json.object_at("output_config");
        if let Some(effort) = effort {
            json.string_at("effort", effort.as_str());
        }
        if let Some(schema) = schema {
            json.object_at("format");
            json.string_at("type", "json_schema");
            json.key("schema");
            json.raw(schema.schema());
            json.close_object();
        }
        json.close_object();
    }

    fn write_sampling(&mut self, json: &mut Json<'_>) -> Result<(), RequestError> {
        let request = self.request;
        let refused =
            self.generation.refuses_sampling() || fixed_version(self.target).is_some_and(|version| version >= VERSION_WITHOUT_SAMPLING);
        // With thinking, the API takes neither of these.
        let fixed = refused || self.plan.thinks();
        let temperature = self.parameters.take_unless(fixed, "temperature", request.temperature);
        let top_k = self.parameters.take_unless(fixed, "top_k", request.top_k);
        let crowded = temperature.is_some() && self.generation.wants_one_sampler();
        let narrow = self.plan.thinks() && request.top_p.is_some_and(|top_p| top_p < LEAST_TOP_P_WHEN_THINKING);
        let top_p = self.parameters.take_unless(refused || crowded || narrow, "top_p", request.top_p);
        if let Some(temperature) = temperature {
            json.key("temperature");
            json.float(temperature.clamp(0.0, 1.0));
        }
        if let Some(top_p) = top_p {
            json.key("top_p");
            json.float(top_p);
        }
        if let Some(top_k) = top_k {
            json.key("top_k");
            json.integer(top_k);
        }

        let mut stop = request.stop()?;
        if stop.iter().any(|sequence| sequence.is_blank()) {
            // The API refuses sequences of white space only.
            self.parameters.drop("stop");
            stop.retain(|sequence| !sequence.is_blank());
        }
        if let Some(stop) = self.parameters.take("stop", (!stop.is_empty()).then_some(stop)) {
            json.array_at("stop_sequences");
            stop.into_iter().for_each(|sequence| json.literal(sequence));
            json.close_array();
        }
        Ok(())
    }

    fn write_account(&mut self, json: &mut Json<'_>) {
        if let Some(user) = self.target.user {
            json.object_at("metadata");
            json.string_at("user_id", user);
            json.close_object();
        }
        match self.request.service_tier.as_deref() {
            Some("auto" | "priority") => json.string_at("service_tier", "auto"),
            Some("default" | "standard") => json.string_at("service_tier", "standard_only"),
            Some(_) => self.parameters.drop("service_tier"),
            None => {}
        }
    }

    fn note_what_has_no_word(&mut self) {
        let (request, parameters) = (self.request, &mut self.parameters);
        parameters.drop_given("min_p", &request.min_p);
        parameters.drop_given("top_a", &request.top_a);
        parameters.drop_given("frequency_penalty", &request.frequency_penalty);
        parameters.drop_given("presence_penalty", &request.presence_penalty);
        parameters.drop_given("repetition_penalty", &request.repetition_penalty);
        parameters.drop_given("seed", &request.seed);
        parameters.drop_given("logit_bias", &request.logit_bias);
        parameters.drop_given("logprobs", &request.logprobs.filter(|&asked| asked));
        parameters.drop_given("top_logprobs", &request.top_logprobs);
        parameters.drop_given("prediction", &request.prediction);
        parameters.drop_given("n", &request.n.filter(|&n| n > 1));
        let media = request.modalities.iter().flatten().find(|modality| &***modality != "text");
        parameters.drop_given("modalities", &media);
    }
}

/// While thinking, a smaller nucleus is refused.
const LEAST_TOP_P_WHEN_THINKING: f64 = 0.95;

/// `can_force` is true where a forced tool would neither hide the caller's own tools nor meet thinking, which excludes it.
fn choose_output<'r, 'a>(
    request: &'r Request<'a>,
    parameters: &mut Parameters<'_>,
    can_force: bool,
) -> Result<Output<'r, 'a>, RequestError> {
    let Some(format) = &request.response_format else {
        return Ok(Output::Free);
    };
    let native = parameters.supports("structured_outputs");
    let fallback = |schema| {
        if can_force { Output::Tool(schema) } else { Output::Instruction(schema) }
    };
    let shape = format.shape()?;
    if matches!(shape, OutputShape::Text) {
        return Ok(Output::Free);
    }
    if !native && !parameters.supports("response_format") {
        parameters.drop("response_format");
        return Ok(Output::Free);
    }
    Ok(match shape {
        // The API's constraint demands closed objects throughout, which only strict schemas promise.
        OutputShape::Schema(schema) if native && (schema.strict == Some(true) || !can_force) => Output::Native(schema),
        OutputShape::Schema(schema) => fallback(Some(schema)),
        OutputShape::Object => fallback(None),
        OutputShape::Text | OutputShape::Other => {
            parameters.drop("response_format");
            Output::Free
        }
    })
}

/// The API insists on `"type": "object"` at the top of a tool's schema, which callers often leave out.
fn write_object_schema(json: &mut Json<'_>, schema: Option<&str>) {
    #[derive(serde::Deserialize)]
    struct Probe {
        #[serde(rename = "type")]
        kind: Option<serde::de::IgnoredAny>,
    }

    const ANY_OBJECT: &str = "{\"type\":\"object\",\"properties\":{}}";
    let Some(schema) = schema.filter(|schema| schema.starts_with('{')) else {
        return json.raw(ANY_OBJECT);
    };
    match serde_json::from_str::<Probe>(schema) {
        Ok(Probe { kind: None }) => {
            let members = schema[1..].trim_start();
            if members.starts_with('}') {
                return json.raw(ANY_OBJECT);
            }
            json.open_object();
            json.string_at("type", "object");
            json.raw(members);
        }
        Ok(Probe { kind: Some(_) }) | Err(_) => json.raw(schema),
    }
}
