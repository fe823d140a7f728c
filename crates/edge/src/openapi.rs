//! The OpenAPI document, generated from the route table.
//!
//! Every row of [`crate::handler::ROUTES`] names its [`Operation`], so a route without a description does not compile.

mod schemas;

use serde_json::{Map, Value, json};

use crate::handler::{PREFIXES, ROUTES};

/// What the document says about one route.
pub(crate) struct Operation {
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    /// Whether a key is needed.
    key: bool,
    parameters: fn() -> Value,
    /// Name of the request body's schema.
    request: Option<&'static str>,
    /// Name of the answer's schema.
    answer: &'static str,
    /// The answer may also be a stream of server-sent events.
    streams: bool,
    /// Status of a good answer.
    success: u16,
    /// Statuses of errors.
    errors: &'static [u16],
}

pub(crate) static CHAT: Operation = Operation {
    id: "createChatCompletion",
    summary: "Create a chat completion",
    description: "Answers with JSON, or with server-sent events when `stream` is true. The last event before `[DONE]` carries `usage` with \
                  the exact cost. Lines that begin with a colon are comments and keep the connection alive. Fields that are not listed are \
                  passed on to the provider untouched.",
    key: true,
    parameters: schemas::chat_headers,
    request: Some("ChatRequest"),
    answer: "ChatCompletion",
    streams: true,
    success: 200,
    errors: &[400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504],
};

pub(crate) static MODELS: Operation = Operation {
    id: "listModels",
    summary: "List models",
    description: "Every model of this gateway, with filters. Paging happens when `offset` or `limit` is given.",
    key: false,
    parameters: schemas::model_filters,
    request: None,
    answer: "ModelList",
    streams: false,
    success: 200,
    errors: &[],
};

pub(crate) static ENDPOINTS: Operation = Operation {
    id: "listEndpoints",
    summary: "List the endpoints of a model",
    description: "Who serves a model, for how much and how well. Latency and throughput are shown when a valid key is sent.",
    key: false,
    parameters: schemas::model_path,
    request: None,
    answer: "EndpointList",
    streams: false,
    success: 200,
    errors: &[400],
};

pub(crate) static PROVIDERS: Operation = Operation {
    id: "listProviders",
    summary: "List providers",
    description: "The providers that are configured here.",
    key: false,
    parameters: schemas::nothing,
    request: None,
    answer: "ProviderList",
    streams: false,
    success: 200,
    errors: &[],
};

pub(crate) static GENERATION: Operation = Operation {
    id: "getGeneration",
    summary: "Look up a generation",
    description: "What one generation was, where it went and what it cost. A key sees its own generations only.",
    key: true,
    parameters: schemas::generation_id,
    request: None,
    answer: "GenerationAnswer",
    streams: false,
    success: 200,
    errors: &[400, 401, 404, 429],
};

pub(crate) static KEY: Operation = Operation {
    id: "getCurrentKey",
    summary: "Describe the calling key",
    description: "Name, limits and restrictions of the key that is sent.",
    key: true,
    parameters: schemas::nothing,
    request: None,
    answer: "KeyAnswer",
    streams: false,
    success: 200,
    errors: &[401, 429, 503],
};

pub(crate) static LIST_KEYS: Operation = Operation {
    id: "listKeys",
    summary: "List keys",
    description: "Keys that the calling management key reaches, newest first, 100 at a time.",
    key: true,
    parameters: schemas::keys_query,
    request: None,
    answer: "ManagedKeyList",
    streams: false,
    success: 200,
    errors: &[400, 401, 403, 404, 429, 503],
};

pub(crate) static CREATE_KEY: Operation = Operation {
    id: "createKey",
    summary: "Make a key",
    description: "A key for calling models. Its text is in this answer and nowhere else.",
    key: true,
    parameters: schemas::idempotency,
    request: Some("NewKey"),
    answer: "CreatedKey",
    streams: false,
    success: 201,
    errors: &[400, 401, 403, 404, 413, 422, 429, 503],
};

pub(crate) static GET_KEY: Operation = Operation {
    id: "getKey",
    summary: "One key",
    description: "What a key may do and has used.",
    key: true,
    parameters: schemas::key_hash,
    request: None,
    answer: "ManagedKeyAnswer",
    streams: false,
    success: 200,
    errors: &[401, 403, 404, 429, 503],
};

pub(crate) static EDIT_KEY: Operation = Operation {
    id: "editKey",
    summary: "Change a key",
    description: "What is absent stays as it is. A disabled key is refused, and can be enabled again.",
    key: true,
    parameters: schemas::key_hash_idempotency,
    request: Some("EditedKey"),
    answer: "ManagedKeyAnswer",
    streams: false,
    success: 200,
    errors: &[400, 401, 403, 404, 413, 422, 429, 503],
};

pub(crate) static DELETE_KEY: Operation = Operation {
    id: "deleteKey",
    summary: "Revoke a key for good",
    description: "Running answers go on; nothing new is served.",
    key: true,
    parameters: schemas::key_hash_idempotency,
    request: None,
    answer: "DeletedKey",
    streams: false,
    success: 200,
    errors: &[401, 403, 404, 422, 429, 503],
};

pub(crate) static CREDITS: Operation = Operation {
    id: "getCredits",
    summary: "Credits of the organisation",
    description: "What the organisation of the calling key has bought and used; without an organisation, what the key has used. US dollars.",
    key: true,
    parameters: schemas::nothing,
    request: None,
    answer: "CreditsAnswer",
    streams: false,
    success: 200,
    errors: &[401, 429, 503],
};

pub(crate) static ACTIVITY: Operation = Operation {
    id: "getActivity",
    summary: "Use by day, model and endpoint",
    description: "Sums of the calling key over the last 30 whole days of UTC, or over the one day that `date` names, today included. Newest \
                  first. Equal to the sum of the records to the pico-dollar.",
    key: true,
    parameters: schemas::activity_query,
    request: None,
    answer: "ActivityAnswer",
    streams: false,
    success: 200,
    errors: &[400, 401, 429, 503],
};

/// The whole document, OpenAPI 3.1.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for prefix in PREFIXES {
        for route in ROUTES {
            let path = paths.entry(format!("{prefix}{}", route.path)).or_insert_with(|| json!({}));
            path[route.method.as_str().to_ascii_lowercase()] = route.operation.describe(prefix);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "One API and one key in front of many models and providers.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "header": { "type": "apiKey", "in": "header", "name": "x-api-key" },
            },
            "schemas": schemas::all(),
        },
    })
}

impl Operation {
    fn describe(&self, prefix: &str) -> Value {
        let answer = json!({ "$ref": format!("#/components/schemas/{}", self.answer) });
        let mut content = json!({ "application/json": { "schema": answer } });
        if self.streams {
            // One event of the stream.
            content["text/event-stream"] =
                json!({ "schema": { "type": "object", "required": ["data"], "properties": { "data": { "type": "string" } } } });
        }
        let mut responses = json!({});
        responses[self.success.to_string()] = json!({ "description": "The answer.", "headers": self.headers(), "content": content });
        for status in self.errors {
            responses[status.to_string()] = json!({
                "description": reason(*status),
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
            });
        }
        // The two prefixes are the same API; operation ids must differ all the same.
        let id = if prefix == "/v1" { self.id.to_owned() } else { format!("{}Api", self.id) };
        let mut operation = json!({
            "operationId": id,
            "summary": self.summary,
            "description": self.description,
            "parameters": (self.parameters)(),
            "responses": responses,
            "security": if self.key { json!([{ "bearer": [] }, { "header": [] }]) } else { json!([{}, { "bearer": [] }]) },
        });
        if let Some(request) = self.request {
            operation["requestBody"] = json!({
                "required": true,
                "content": { "application/json": { "schema": { "$ref": format!("#/components/schemas/{request}") } } },
            });
        }
        operation
    }

    fn headers(&self) -> Value {
        if !self.streams {
            return json!({});
        }
        let asked = "With `x-tidegate-ratelimit: enabled`, and on every 429.";
        let limit = |what: &str, kind: &str| json!({ "description": format!("{what} {asked}"), "schema": { "type": kind } });
        json!({
            "x-ratelimit-limit": limit("The tightest limit.", "integer"),
            "x-ratelimit-remaining": limit("What is left of it.", "integer"),
            "x-ratelimit-reset": limit("When all of it is there again, milliseconds of Unix time.", "integer"),
            "X-Generation-Id": { "description": "Id of the generation.", "schema": { "type": "string" } },
        })
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "The request is not valid.",
        401 => "The key is missing, unknown, disabled or expired.",
        402 => "A budget or the credits do not cover this; `error.metadata` says whose, `Retry-After` when it is filled again.",
        403 => "The key may not do this.",
        404 => "Nothing serves this, or nothing is known by this id.",
        408 => "The request body came too slowly.",
        413 => "The request body is too large.",
        422 => "The provider understood the request and cannot process it.",
        429 => "Too many requests; see `Retry-After`.",
        502 => "The provider answered badly or is down.",
        503 => "Nobody can serve this now; see `Retry-After`.",
        504 => "Time was up.",
        _ => "Something went wrong inside.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_under_both_prefixes() {
        let document = document();
        for prefix in PREFIXES {
            for route in ROUTES {
                let operation = &document["paths"][format!("{prefix}{}", route.path)][route.method.as_str().to_ascii_lowercase()];
                assert!(operation["responses"][route.operation.success.to_string()].is_object(), "{prefix}{}", route.path);
            }
        }
    }

    #[test]
    fn every_reference_resolves() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("a closing quote");
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn operation_ids_are_unique() {
        let document = document();
        let mut ids = std::collections::HashSet::new();
        for path in document["paths"].as_object().expect("paths").values() {
            for operation in path.as_object().expect("operations").values() {
                assert!(ids.insert(operation["operationId"].to_string()));
            }
        }
    }
}
