//! Writes the body of `POST /v1/messages`.

use bytes::BytesMut;
use http::{HeaderName, HeaderValue};
use smallvec::{SmallVec, smallvec};

use super::{
    content::{self, Conversation},
    model::Generation,
    structured::Output,
    system,
    thinking::{Mode, Plan},
};
use crate::{
    call::ChatCall,
    canonical::{Json, Parameters, Request, Tool, ToolChoice},
    error::RequestError,
    provider::ReasoningStyle,
    reasoning::Effort,
    target::{Target, UpstreamRequest},
};

/// Version of the API unless the provider's fixed headers name one; the oldest that every host understands.
const DEFAULT_VERSION: &str = "2023-06-01";

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

/// The API version that the provider's entry fixes.
pub(super) fn fixed_version<'t>(target: &Target<'t>) -> Option<&'t str> {
    let mut headers = target.provider.extra_headers.iter();
    headers.find(|(name, _)| name.eq_ignore_ascii_case("anthropic-version")).map(|(_, version)| version.as_str())
}

/// One request on its way, with everything decided before the first byte is written.
pub(super) struct Encoder<'r, 'a> {
    pub(super) request: &'r Request<'a>,
    pub(super) target: &'r Target<'r>,
    pub(super) parameters: Parameters<'r>,
    pub(super) generation: Generation,
    pub(super) plan: Plan,
    pub(super) tools: &'r [Tool<'a>],
    pub(super) tool_choice: Option<ToolChoice<'a>>,
    pub(super) output: Output<'r, 'a>,
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
        let output = Output::choose(request, &mut parameters, tools.is_empty() && !plan.thinks())?;
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
        let instruction = self.output.instruction();
        if instruction.is_none() && !self.request.has_system() {
            return Ok(());
        }
        json.array_at("system");
        system::write(self.request, json)?;
        if let Some(instruction) = instruction {
            json.open_object();
            json.string_at("type", "text");
            json.string_at("text", &instruction);
            json.close_object();
        }
        json.close_array();
        Ok(())
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
                if hidden && self.generation.can_omit_thoughts() {
                    json.string_at("display", "omitted");
                }
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
        let effort = self.plan.effort.or_else(|| self.effort_of_verbosity());
        if self.plan.effort.is_some() {
            self.parameters.drop_given("verbosity", &self.request.verbosity);
        }
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

    /// Where nothing was said about reasoning, the API's effort does what verbosity asks for.
    fn effort_of_verbosity(&mut self) -> Option<Effort> {
        let verbosity = self.parameters.take("verbosity", self.request.verbosity.as_deref())?;
        let effort = Effort::parse(verbosity).filter(|_| self.generation.takes_effort());
        if effort.is_none() {
            self.parameters.drop("verbosity");
        }
        effort?.nearest(self.generation.efforts())
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
        parameters.drop_given("image_config", &request.image_config);
        parameters.drop_given("n", &request.n.filter(|&n| n > 1));
        let media = request.modalities.iter().flatten().find(|modality| &***modality != "text");
        parameters.drop_given("modalities", &media);
    }
}
