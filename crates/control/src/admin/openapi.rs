//! The OpenAPI document of the admin API, generated from the route table.

use serde_json::{Map, Value, json};

use super::access::Permission;
use super::routes::{PREFIX, ROUTES, Route};

/// What the document says about one route.
pub(crate) struct Operation {
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
}

/// The whole document, OpenAPI 3.1.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(format!("{PREFIX}{}", route.path.replace("*}", "}"))).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = describe(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What a mesh has agreed on, and how to change it. Any control node answers. Reads are linearizable unless \
                            `stale=true`; writes answer with their revision.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" }, "certificate": { "type": "mutualTLS" } },
            "schemas": { "Error": error() },
        },
        "security": [{ "bearer": [] }, { "certificate": [] }],
    })
}

fn describe(route: &Route) -> Value {
    let segments = route.path.split('/').filter_map(|part| Some(part.strip_prefix('{')?.trim_end_matches(['}', '*'])));
    let mut parameters: Vec<Value> =
        segments.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })).collect();
    let header = |name: &str, about: &str| json!({ "name": name, "in": "header", "description": about, "schema": { "type": "string" } });
    let reads = route.method == http::Method::GET;
    if reads {
        parameters.push(header("x-min-index", "Wait up to two seconds until this node has applied this index"));
        let about = "Answer from what this node has, also without a leader";
        parameters.push(json!({ "name": "stale", "in": "query", "description": about, "schema": { "type": "boolean" } }));
    } else {
        parameters.push(header("idempotency-key", "The same key with the same body is done once and answered alike"));
        parameters.push(header("x-reason", "Why; may also stand in the body as `reason`"));
    }
    let role = match route.permission {
        Permission::Read => "any role".to_owned(),
        Permission::Needs(role) => format!("role `{role}`"),
    };
    let failure = json!({ "description": "What is wrong, where, and what to do.",
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } });
    let mut described = json!({
        "operationId": route.operation.id,
        "summary": route.operation.summary,
        "description": format!("For {role}."),
        "parameters": parameters,
        "responses": {
            "200": { "description": "The answer.", "content": { "application/json": { "schema": { "type": "object" } } } },
            "4XX": failure,
            "5XX": failure,
        },
    });
    if !reads && route.body > 0 {
        described["requestBody"] = json!({ "content": { "application/json": { "schema": { "type": "object" } } } });
    }
    described
}

fn error() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": { "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": { "type": "string", "description": "For machines" },
                "message": { "type": "string", "description": "For people" },
                "problems": { "type": "array", "items": { "type": "object", "properties": {
                    "kind": { "type": ["string", "null"] },
                    "name": { "type": ["string", "null"] },
                    "path": { "type": "string" },
                    "message": { "type": "string" },
                    "help": { "type": "array", "items": { "type": "string" } },
                } } },
            },
        } },
    })
}
