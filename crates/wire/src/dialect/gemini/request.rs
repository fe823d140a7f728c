//! Writes the body of `generateContent`.

use bytes::BytesMut;
use smallvec::{SmallVec, smallvec};

use super::{
    content::{self, Conversation},
    model::{Model, ThinkingConfig},
};
use crate::{
    call::ChatCall,
    canonical::{Json, OutputShape, Parameters, Request, Tool, ToolChoice},
    error::RequestError,
    provider::ReasoningStyle,
    target::{Target, UpstreamRequest},
};

/// Translates the caller's request.
pub(crate) fn encode(call: &ChatCall, target: &Target<'_>) -> Result<UpstreamRequest, RequestError> {
    let request = Request::parse(call)?;
    let mut body = BytesMut::with_capacity(call.body().len() + 512);
    let mut encoder = Encoder::new(&request, target);
    encoder.write(&mut Json::new(&mut body))?;
    Ok(UpstreamRequest {
        path: path(target),
        body: smallvec![body.freeze()],
        headers: SmallVec::new(),
        dropped: encoder.parameters.into_dropped(),
    })
}

/// `/models/{model}:method`; a name with a slash already says which collection it is in.
fn path(target: &Target<'_>) -> String {
    let mut path = String::with_capacity(target.model.len() + 48);
    path.push_str(if target.model.contains('/') { "/" } else { "/models/" });
    for byte in target.model.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b'@') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path.push_str(if target.stream { ":streamGenerateContent?alt=sse" } else { ":generateContent" });
    path
}

struct Encoder<'r, 'a> {
    request: &'r Request<'a>,
    target: &'r Target<'r>,
    parameters: Parameters<'r>,
    model: Model<'r>,
    tools: &'r [Tool<'a>],
}

impl<'r, 'a> Encoder<'r, 'a> {
    fn new(request: &'r Request<'a>, target: &'r Target<'r>) -> Encoder<'r, 'a> {
        let mut parameters = Parameters::new(target);
        let tools = parameters.take("tools", request.tools.as_deref()).unwrap_or_default();
        Encoder { request, target, parameters, model: Model::of(target.model), tools }
    }

    fn write(&mut self, json: &mut Json<'_>) -> Result<(), RequestError> {
        json.open_object();
        if self.request.has_system() {
            json.object_at("systemInstruction");
            json.array_at("parts");
            content::write_system(self.request, json)?;
            json.close_array();
            json.close_object();
        }
        json.array_at("contents");
        Conversation::new(json, self.model.is_third_generation()).write(self.request)?;
        json.close_array();
        self.write_tools(json)?;
        self.write_tool_choice(json)?;
        self.write_generation_config(json)?;
        if let Some(settings) = self.request.safety_settings {
            json.key("safetySettings");
            json.raw(settings.get());
        }
        if let Some(entry) = self.request.cached_content {
            json.literal_at("cachedContent", entry);
        }
        json.close_object();
        self.note_what_has_no_word();
        Ok(())
    }

    fn write_tools(&mut self, json: &mut Json<'_>) -> Result<(), RequestError> {
        // Before the third generation, search and functions exclude each other.
        let crowded = !self.tools.is_empty() && !self.model.is_third_generation();
        let search = self.parameters.take_unless(crowded, "web_search_options", self.request.web_search_options);
        if self.tools.is_empty() && search.is_none() {
            return Ok(());
        }
        json.array_at("tools");
        if !self.tools.is_empty() {
            json.open_object();
            json.array_at("functionDeclarations");
            for (index, tool) in self.tools.iter().enumerate() {
                let function = tool.function(index)?;
                json.open_object();
                json.literal_at("name", function.name);
                if let Some(description) = function.description {
                    json.literal_at("description", description);
                }
                if let Some(parameters) = function.parameters {
                    json.key("parametersJsonSchema");
                    json.raw(parameters.get());
                }
                json.close_object();
            }
            json.close_array();
            json.close_object();
        }
        if search.is_some() {
            json.open_object();
            json.object_at("googleSearch");
            json.close_object();
            json.close_object();
        }
        json.close_array();
        Ok(())
    }

    fn write_tool_choice(&mut self, json: &mut Json<'_>) -> Result<(), RequestError> {
        let choice = self.request.tool_choice()?.filter(|_| !self.tools.is_empty());
        let Some(choice) = self.parameters.take("tool_choice", choice) else { return Ok(()) };
        json.object_at("toolConfig");
        json.object_at("functionCallingConfig");
        json.string_at(
            "mode",
            match choice {
                ToolChoice::Auto => "AUTO",
                ToolChoice::None => "NONE",
                ToolChoice::Required | ToolChoice::Function(_) => "ANY",
            },
        );
        if let ToolChoice::Function(name) = choice {
            json.array_at("allowedFunctionNames");
            json.literal(name);
            json.close_array();
        }
        json.close_object();
        json.close_object();
        Ok(())
    }

    fn write_generation_config(&mut self, json: &mut Json<'_>) -> Result<(), RequestError> {
        json.object_at("generationConfig");
        if let Some(limit) = self.request.max_output {
            json.key("maxOutputTokens");
            json.integer(limit.min(self.target.max_output.unwrap_or(u32::MAX)));
        }
        self.write_sampling(json)?;
        self.write_output(json)?;
        self.write_modalities(json);
        self.write_thinking(json)?;
        json.close_object();
        Ok(())
    }

    fn write_sampling(&mut self, json: &mut Json<'_>) -> Result<(), RequestError> {
        let request = self.request;
        for (name, key, value) in [
            ("temperature", "temperature", request.temperature),
            ("top_p", "topP", request.top_p),
            ("frequency_penalty", "frequencyPenalty", request.frequency_penalty),
            ("presence_penalty", "presencePenalty", request.presence_penalty),
        ] {
            if let Some(value) = self.parameters.take(name, value) {
                json.key(key);
                json.float(value);
            }
        }
        if let Some(top_k) = self.parameters.take("top_k", request.top_k) {
            json.key("topK");
            json.integer(top_k);
        }
        if let Some(seed) = self.parameters.take("seed", request.seed) {
            json.key("seed");
            // The API's seeds have 32 bits; a longer one still gives the same answer twice.
            json.integer(i32::try_from(seed).map_or(seed & i64::from(i32::MAX), i64::from));
        }
        let stop = request.stop()?;
        if let Some(stop) = self.parameters.take("stop", (!stop.is_empty()).then_some(stop)) {
            json.array_at("stopSequences");
            stop.into_iter().for_each(|sequence| json.literal(sequence));
            json.close_array();
        }
        if let Some(n) = request.n.filter(|&n| n > 1) {
            json.key("candidateCount");
            json.integer(n);
        }
        if self.parameters.take("logprobs", request.logprobs.filter(|&asked| asked)).is_some() {
            json.key("responseLogprobs");
            json.boolean(true);
            if let Some(top) = self.parameters.take("top_logprobs", request.top_logprobs) {
                json.key("logprobs");
                json.integer(top);
            }
        }
        Ok(())
    }

    fn write_output(&mut self, json: &mut Json<'_>) -> Result<(), RequestError> {
        let Some(format) = &self.request.response_format else { return Ok(()) };
        let shape = format.shape()?;
        if matches!(shape, OutputShape::Text) {
            return Ok(());
        }
        let structured = self.parameters.supports("structured_outputs");
        // Before the third generation, functions and a fixed output type exclude each other.
        let crowded = !self.tools.is_empty() && !self.model.is_third_generation();
        let able = structured || self.parameters.supports("response_format");
        if crowded || !able || matches!(shape, OutputShape::Other) {
            self.parameters.drop("response_format");
            return Ok(());
        }
        json.string_at("responseMimeType", "application/json");
        if let OutputShape::Schema(schema) = shape {
            if structured {
                json.key("responseJsonSchema");
                json.raw(schema.schema());
            } else {
                self.parameters.drop("structured_outputs");
            }
        }
        Ok(())
    }

    fn write_modalities(&mut self, json: &mut Json<'_>) {
        if let Some(modalities) = self.parameters.take("modalities", self.request.modalities.as_deref()) {
            json.array_at("responseModalities");
            modalities.iter().for_each(|modality| json.string(&modality.to_ascii_uppercase()));
            json.close_array();
        }
        let Some(image) = &self.request.image_config else { return };
        json.object_at("imageConfig");
        if let Some(ratio) = image.aspect_ratio {
            json.literal_at("aspectRatio", ratio);
        }
        if let Some(size) = image.image_size {
            json.literal_at("imageSize", size);
        }
        json.close_object();
    }

    fn write_thinking(&mut self, json: &mut Json<'_>) -> Result<(), RequestError> {
        let able = self.parameters.supports("reasoning") && self.target.provider.quirks.reasoning != ReasoningStyle::None;
        let wish = self.request.thinking()?;
        let Ok(config) = self.model.thinking(self.request, wish, self.target.max_output, able) else {
            self.parameters.drop("reasoning");
            return Ok(());
        };
        if config == ThinkingConfig::default() {
            return Ok(());
        }
        json.object_at("thinkingConfig");
        if let Some(budget) = config.budget {
            json.key("thinkingBudget");
            json.integer(budget);
        }
        if let Some(level) = config.level {
            json.string_at("thinkingLevel", level.as_str());
        }
        if config.include_thoughts {
            json.key("includeThoughts");
            json.boolean(true);
        }
        json.close_object();
        Ok(())
    }

    fn note_what_has_no_word(&mut self) {
        let (request, parameters) = (self.request, &mut self.parameters);
        parameters.drop_given("min_p", &request.min_p);
        parameters.drop_given("top_a", &request.top_a);
        parameters.drop_given("repetition_penalty", &request.repetition_penalty);
        parameters.drop_given("logit_bias", &request.logit_bias);
        parameters.drop_given("prediction", &request.prediction);
        parameters.drop_given("verbosity", &request.verbosity);
        parameters.drop_given("service_tier", &request.service_tier);
        let serial = request.parallel_tool_calls.filter(|parallel| !parallel && !self.tools.is_empty());
        parameters.drop_given("parallel_tool_calls", &serial);
    }
}
