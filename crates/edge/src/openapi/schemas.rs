//! Schemas of requests and answers.
//!
//! Requests are described by what is checked here, no more: unknown fields go on to the provider. Answers name the members that
//! callers can rely on and allow others, because providers add their own.

use serde_json::{Value, json};

pub(super) fn nothing() -> Value {
    json!([])
}

pub(super) fn chat_headers() -> Value {
    let header = |name: &str, description: &str| json!({ "name": name, "in": "header", "required": false, "description": description, "schema": { "type": "string" } });
    json!([
        header("X-Tidegate-Metadata", "`enabled` adds `tidegate_metadata` with the routing decision to the answer."),
        header("X-OpenRouter-Metadata", "`enabled` adds the same as `openrouter_metadata`."),
        header("x-tidegate-ratelimit", "`enabled` adds `x-ratelimit-*` headers to successful answers too."),
        header("x-session-id", "Conversation; keeps it on the endpoint whose prompt cache it warmed."),
    ])
}

pub(super) fn model_filters() -> Value {
    let query = |name: &str, schema: Value, description: &str| json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema });
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    json!([
        query("q", text(), "Part of the slug or name."),
        query("supported_parameters", text(), "Comma-separated; all must be supported by one endpoint."),
        query("input_modalities", text(), "Comma-separated."),
        query("output_modalities", text(), "Comma-separated, or `all`; default `text`."),
        query("providers", text(), "Comma-separated provider slugs or tags."),
        query("model_authors", text(), "Comma-separated."),
        query("context", number(), "Least context length, tokens."),
        query("min_price", json!({ "type": "number" }), "US dollars per million prompt tokens."),
        query("max_price", json!({ "type": "number" }), "US dollars per million prompt tokens."),
        query("zdr", json!({ "type": "boolean" }), "Only models with an endpoint that keeps nothing."),
        query("distillable", json!({ "type": "boolean" }), "Whether the author permits distillation."),
        query(
            "sort",
            text(),
            "`newest`, `pricing-low-to-high`, `pricing-high-to-low`, `context-high-to-low`, `throughput-high-to-low`, `throughput-low-to-high` or `latency-low-to-high`."
        ),
        query("offset", number(), "Skip this many."),
        query("limit", number(), "At most this many; 500 unless given, at most 1000."),
    ])
}

pub(super) fn model_path() -> Value {
    let segment = |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } });
    json!([segment("author"), segment("slug")])
}

pub(super) fn activity_query() -> Value {
    let query = |name: &str, format: &str, description: &str| json!({ "name": name, "in": "query", "required": false, "description": description, "schema": { "type": "string", "format": format } });
    json!([
        query("date", "date", "One day of UTC within the last 30, as `2026-11-28`."),
        query("api_key_hash", "hex", "The calling key's own hash; others are refused."),
    ])
}

pub(super) fn generation_id() -> Value {
    json!([{ "name": "id", "in": "query", "required": true, "description": "`gen-…`", "schema": { "type": "string", "minLength": 1 } }])
}

pub(super) fn keys_query() -> Value {
    let query = |name: &str, schema: Value, description: &str| json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema });
    json!([
        query("offset", json!({ "type": "integer", "minimum": 0 }), "Skip this many."),
        query("include_disabled", json!({ "type": "boolean" }), "Disabled keys too."),
        query("workspace_id", json!({ "type": "string" }), "Keys of this workspace only."),
    ])
}

pub(super) fn idempotency() -> Value {
    json!([{
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "description": "Makes the request safe to send again: it is done once. The text of a key is in the first answer only.",
        "schema": { "type": "string", "maxLength": 200 },
    }])
}

pub(super) fn key_hash() -> Value {
    json!([{
        "name": "hash",
        "in": "path",
        "required": true,
        "description": "`hash` of the key, or its `tidegate.id`.",
        "schema": { "type": "string", "minLength": 1 },
    }])
}

pub(super) fn key_hash_idempotency() -> Value {
    json!([key_hash()[0], idempotency()[0]])
}

fn managed_key() -> Value {
    json!({ "type": "object", "required": ["hash", "name", "label", "disabled", "limit", "limit_remaining", "limit_reset", "usage", "created_at"], "properties": {
        "hash": { "type": "string", "description": "Names the key in `/keys/{hash}`. Changes when the key is rotated." },
        "name": { "type": "string" },
        "label": { "type": "string" },
        "disabled": { "type": "boolean" },
        "limit": { "type": ["number", "null"] },
        "limit_remaining": { "type": ["number", "null"] },
        "limit_reset": { "type": ["string", "null"], "enum": ["daily", "weekly", "monthly", null] },
        "include_byok_in_limit": { "type": "boolean" },
        "usage": { "type": "number" },
        "usage_daily": { "type": "number" },
        "usage_weekly": { "type": "number" },
        "usage_monthly": { "type": "number" },
        "byok_usage": { "type": "number" },
        "byok_usage_daily": { "type": "number" },
        "byok_usage_weekly": { "type": "number" },
        "byok_usage_monthly": { "type": "number" },
        "created_at": { "type": "string", "format": "date-time" },
        "updated_at": { "type": ["string", "null"] },
        "expires_at": { "type": ["string", "null"] },
        "creator_user_id": { "type": ["string", "null"] },
        "workspace_id": { "type": ["string", "null"] },
        "tidegate": { "type": "object", "properties": { "id": { "type": "string" }, "policy": { "type": "object" } } },
    } })
}

/// What is asked of a new or a changed key.
fn key_request(required: &[&str], more: &[(&str, Value)]) -> Value {
    let mut schema = json!({ "type": "object", "required": required, "additionalProperties": false, "properties": {
        "name": { "type": "string", "minLength": 1, "maxLength": 256 },
        "limit": { "type": ["number", "null"], "minimum": 0, "description": "US dollars; null for none." },
        "limit_reset": { "type": ["string", "null"], "enum": ["daily", "weekly", "monthly", null], "description": "At midnight of UTC; null is never." },
        "include_byok_in_limit": { "type": "boolean", "enum": [false] },
        "expires_at": { "type": ["string", "null"], "format": "date-time", "description": "In UTC." },
    } });
    for (name, property) in more {
        schema["properties"][*name] = property.clone();
    }
    schema
}

pub(super) fn all() -> Value {
    json!({
        "ChatRequest": chat_request(),
        "Message": message(),
        "ProviderPreferences": provider_preferences(),
        "ChatCompletion": chat_completion(),
        "Usage": usage(),
        "Error": error(),
        "ModelList": list_of("Model"),
        "Model": model(),
        "EndpointList": endpoint_list(),
        "Endpoint": endpoint(),
        "ProviderList": list_of("Provider"),
        "Provider": provider(),
        "GenerationAnswer": data_of(json!({ "type": "object", "required": ["id", "model", "total_cost"], "properties": {
            "id": { "type": "string" },
            "model": { "type": "string" },
            "provider_name": { "type": ["string", "null"] },
            "streamed": { "type": "boolean" },
            "cancelled": { "type": "boolean" },
            "total_cost": { "type": "number" },
            "finish_reason": { "type": ["string", "null"] },
            "native_finish_reason": { "type": ["string", "null"] },
        } })),
        "KeyAnswer": data_of(json!({ "type": "object", "required": ["label", "limit", "usage"], "properties": {
            "label": { "type": "string" },
            "hash": { "type": "string" },
            "limit": { "type": ["number", "null"] },
            "limit_remaining": { "type": ["number", "null"] },
            "limit_reset": { "type": ["string", "null"], "enum": ["daily", "weekly", "monthly", null] },
            "usage": { "type": "number" },
            "usage_daily": { "type": "number" },
            "usage_weekly": { "type": "number" },
            "usage_monthly": { "type": "number" },
            "expires_at": { "type": ["string", "null"] },
        } })),
        "ManagedKey": managed_key(),
        "ManagedKeyList": list_of("ManagedKey"),
        "ManagedKeyAnswer": data_of(json!({ "$ref": "#/components/schemas/ManagedKey" })),
        "CreatedKey": json!({ "type": "object", "required": ["data"], "properties": {
            "data": { "$ref": "#/components/schemas/ManagedKey" },
            "key": { "type": "string", "description": "The text of the key." },
        } }),
        "DeletedKey": json!({ "type": "object", "required": ["deleted"], "properties": { "deleted": { "type": "boolean" } } }),
        "NewKey": key_request(&["name"], &[
            ("workspace_id", json!({ "type": ["string", "null"] })),
            ("creator_user_id", json!({ "type": ["string", "null"], "description": "Ignored." })),
        ]),
        "EditedKey": key_request(&[], &[("disabled", json!({ "type": "boolean" }))]),
        "CreditsAnswer": data_of(json!({ "type": "object", "required": ["total_credits", "total_usage"], "properties": {
            "total_credits": { "type": "number" },
            "total_usage": { "type": "number" },
        } })),
        "ActivityAnswer": list_of("Activity"),
        "Activity": json!({
            "type": "object",
            "required": ["date", "model", "endpoint_id", "provider_name", "usage", "requests", "prompt_tokens", "completion_tokens"],
            "properties": {
                "date": { "type": "string", "format": "date" },
                "model": { "type": "string" },
                "model_permaslug": { "type": "string" },
                "endpoint_id": { "type": "string" },
                "provider_name": { "type": "string" },
                "usage": { "type": "number" },
                "byok_usage_inference": { "type": "number" },
                "requests": { "type": "integer" },
                "prompt_tokens": { "type": "integer" },
                "completion_tokens": { "type": "integer" },
                "reasoning_tokens": { "type": "integer" },
            },
        }),
    })
}

fn nullable(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn ranged(kind: &str, minimum: i32, maximum: i32) -> Value {
    nullable(json!({ "type": kind, "minimum": minimum, "maximum": maximum }))
}

fn chat_request() -> Value {
    let strings = json!({ "type": "array", "items": { "type": "string" } });
    json!({
        "type": "object",
        "required": ["messages"],
        "additionalProperties": true,
        "properties": {
            "messages": { "type": "array", "minItems": 1, "items": { "$ref": "#/components/schemas/Message" } },
            "model": nullable(json!({ "type": "string", "description": "`author/slug`, optionally with `:nitro`, `:floor`, `:exacto` or `@preset/name`." })),
            "models": nullable(strings),
            "provider": nullable(json!({ "$ref": "#/components/schemas/ProviderPreferences" })),
            "preset": nullable(json!({ "type": "string" })),
            "stream": nullable(json!({ "type": "boolean" })),
            "max_tokens": nullable(json!({ "type": "integer", "minimum": 1 })),
            "max_completion_tokens": nullable(json!({ "type": "integer", "minimum": 1 })),
            "temperature": ranged("number", 0, 2),
            "top_p": ranged("number", 0, 1),
            "top_k": nullable(json!({ "type": "integer", "minimum": 0 })),
            "min_p": ranged("number", 0, 1),
            "top_a": ranged("number", 0, 1),
            "frequency_penalty": ranged("number", -2, 2),
            "presence_penalty": ranged("number", -2, 2),
            "repetition_penalty": ranged("number", 0, 2),
            "seed": nullable(json!({ "type": "integer" })),
            "stop": nullable(json!({ "anyOf": [{ "type": "string" }, { "type": "array", "maxItems": 4, "items": { "type": "string" } }] })),
            "tools": nullable(json!({ "type": "array", "items": { "type": "object" } })),
            "top_logprobs": ranged("integer", 0, 20),
            "session_id": nullable(json!({ "type": "string", "maxLength": 256 })),
            "prompt_cache_key": nullable(json!({ "type": "string" })),
            "user": nullable(json!({ "type": "string" })),
            "metadata": nullable(json!({ "type": "object", "maxProperties": 16, "additionalProperties": { "type": "string", "maxLength": 512 } })),
        },
    })
}

fn message() -> Value {
    json!({
        "type": "object",
        "required": ["role"],
        "additionalProperties": true,
        "properties": {
            "role": { "enum": ["system", "developer", "user", "assistant", "tool"] },
            "content": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "object" } }, { "type": "null" }] },
            "name": nullable(json!({ "type": "string" })),
            "tool_calls": nullable(json!({ "type": "array", "items": { "type": "object" } })),
            "tool_call_id": nullable(json!({ "type": "string" })),
        },
    })
}

fn provider_preferences() -> Value {
    let strings = || nullable(json!({ "type": "array", "items": { "type": "string" } }));
    let flag = || nullable(json!({ "type": "boolean" }));
    let percentile = || nullable(json!({ "anyOf": [{ "type": "number" }, { "type": "object" }] }));
    json!({
        "type": "object",
        "additionalProperties": true,
        "properties": {
            "order": strings(),
            "only": strings(),
            "ignore": strings(),
            "allow_fallbacks": flag(),
            "require_parameters": flag(),
            "data_collection": nullable(json!({ "enum": ["allow", "deny"] })),
            "zdr": flag(),
            "enforce_distillable_text": flag(),
            "quantizations": nullable(json!({ "type": "array", "items": { "enum": ["int4", "int8", "fp4", "mxfp4", "nvfp4", "fp6", "fp8", "mxfp8", "fp16", "bf16", "fp32", "unknown"] } })),
            "sort": nullable(json!({ "anyOf": [{ "enum": ["price", "throughput", "latency", "exacto"] }, { "type": "object" }] })),
            "preferred_min_throughput": percentile(),
            "preferred_max_latency": percentile(),
            "max_price": nullable(json!({ "type": "object" })),
        },
    })
}

fn chat_completion() -> Value {
    json!({
        "type": "object",
        "required": ["id", "object", "model", "choices", "usage"],
        "properties": {
            "id": { "type": "string", "pattern": "^gen-" },
            "object": { "const": "chat.completion" },
            "created": { "type": "integer" },
            "model": { "type": "string" },
            "provider": { "type": "string" },
            "choices": { "type": "array", "items": {
                "type": "object",
                "required": ["index", "finish_reason", "message"],
                "properties": {
                    "index": { "type": "integer" },
                    "finish_reason": { "enum": ["stop", "length", "tool_calls", "content_filter", "error", null] },
                    "native_finish_reason": { "type": ["string", "null"] },
                    "message": { "type": "object" },
                },
            } },
            "usage": { "$ref": "#/components/schemas/Usage" },
        },
    })
}

fn usage() -> Value {
    json!({
        "type": "object",
        "required": ["prompt_tokens", "completion_tokens", "total_tokens", "cost"],
        "properties": {
            "prompt_tokens": { "type": "integer" },
            "completion_tokens": { "type": "integer" },
            "total_tokens": { "type": "integer" },
            "cost": { "type": "number", "description": "US dollars, exact." },
            "is_byok": { "type": "boolean" },
            "cost_details": { "type": "object" },
            "prompt_tokens_details": { "type": ["object", "null"] },
            "completion_tokens_details": { "type": ["object", "null"] },
        },
    })
}

fn error() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": { "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": { "type": "integer" },
                "message": { "type": "string" },
                "metadata": { "type": "object", "properties": {
                    "error_type": { "type": "string" },
                    "previous_errors": { "type": "array", "items": { "type": "object" } },
                } },
                "availability": { "type": "object", "required": ["code", "retryable", "requested_models", "docs_url"], "properties": {
                    "code": { "type": "string" },
                    "retryable": { "type": "boolean" },
                    "requested_models": { "type": "array", "items": { "type": "string" } },
                    "docs_url": { "type": "string" },
                } },
            },
        } },
    })
}

fn list_of(name: &str) -> Value {
    json!({
        "type": "object",
        "required": ["data"],
        "properties": { "data": { "type": "array", "items": { "$ref": format!("#/components/schemas/{name}") } } },
    })
}

fn data_of(schema: Value) -> Value {
    json!({ "type": "object", "required": ["data"], "properties": { "data": schema } })
}

fn model() -> Value {
    json!({
        "type": "object",
        "required": ["id", "name", "created", "pricing", "architecture", "supported_parameters"],
        "properties": {
            "id": { "type": "string" },
            "name": { "type": "string" },
            "created": { "type": "integer" },
            "context_length": { "type": ["integer", "null"] },
            "architecture": { "type": "object" },
            "pricing": { "type": ["object", "null"] },
            "supported_parameters": { "type": "array", "items": { "type": "string" } },
        },
    })
}

fn endpoint_list() -> Value {
    data_of(json!({
        "type": "object",
        "required": ["id", "endpoints"],
        "properties": { "id": { "type": "string" }, "endpoints": { "type": "array", "items": { "$ref": "#/components/schemas/Endpoint" } } },
    }))
}

fn endpoint() -> Value {
    let percent = || json!({ "type": ["number", "null"], "minimum": 0, "maximum": 100 });
    json!({
        "type": "object",
        "required": ["name", "provider_name", "tag", "pricing", "context_length", "status"],
        "properties": {
            "name": { "type": "string" },
            "provider_name": { "type": "string" },
            "tag": { "type": "string" },
            "quantization": { "type": "string" },
            "context_length": { "type": "integer" },
            "pricing": { "type": "object" },
            "status": { "type": "integer" },
            "uptime_last_5m": percent(),
            "uptime_last_30m": percent(),
            "uptime_last_1d": percent(),
            "latency_last_30m": { "type": ["object", "null"] },
            "throughput_last_30m": { "type": ["object", "null"] },
            "seen_from": {
                "type": "array",
                "description": "The same per region of the mesh; empty without a control plane.",
                "items": {
                    "type": "object",
                    "required": ["region", "verdict"],
                    "properties": {
                        "region": { "type": "string" },
                        "verdict": { "enum": ["healthy", "degraded", "probing", "ejected"] },
                        "uptime_last_5m": percent(),
                        "uptime_last_30m": percent(),
                        "uptime_last_1d": percent(),
                        "latency_last_30m": { "type": ["object", "null"] },
                        "throughput_last_30m": { "type": ["object", "null"] },
                    },
                },
            },
        },
    })
}

fn provider() -> Value {
    json!({
        "type": "object",
        "required": ["name", "slug"],
        "properties": {
            "name": { "type": "string" },
            "slug": { "type": "string" },
            "privacy_policy_url": { "type": ["string", "null"] },
            "terms_of_service_url": { "type": ["string", "null"] },
            "status_page_url": { "type": ["string", "null"] },
            "headquarters": { "type": ["string", "null"] },
            "datacenters": { "type": "array", "items": { "type": "string" } },
        },
    })
}
