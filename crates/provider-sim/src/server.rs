//! The door: takes a request in and sends it where its path points.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use crate::body::SimBody;
use crate::dialect::{Dialect, Route, Trouble};
use crate::exchange::Exchange;
use crate::recorded::RecordedRequest;
use crate::socket::ResetSwitch;
use crate::state::{Serving, Settings, State};
use crate::text;

/// Serves one request. An error breaks the connection.
pub(crate) async fn serve(state: Arc<State>, reset: ResetSwitch, request: Request<Incoming>) -> io::Result<Response<SimBody>> {
    let serving = state.request_began();
    let settings = state.settings();
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let body = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Err(io::Error::from(io::ErrorKind::InvalidData)),
    };
    let arrived = RecordedRequest {
        number: serving.number,
        at: Instant::now(),
        method: head.method,
        path: head.uri.path().to_owned(),
        query,
        headers: head.headers,
        body,
    };
    if state.keep_requests > 0 {
        state.record(arrived.clone());
    }
    match Route::of(&arrived.method, &arrived.path) {
        Route::Models(dialect) => Ok(models(&state, &settings, dialect, serving)),
        Route::Nowhere => Ok(nowhere(serving)),
        Route::Generate { dialect, path_model, path_stream } => {
            let exchange = Exchange {
                dialect,
                timing: settings.timing,
                random: text::generator(state.seed, &serving.number.to_string()),
                state,
                settings,
                arrived,
                serving,
            };
            exchange.answer(path_model, path_stream, &reset).await
        }
    }
}

fn models(state: &State, settings: &Settings, dialect: Dialect, mut serving: Serving) -> Response<SimBody> {
    serving.answered(200);
    let text = dialect.models(&settings.models, &state.name).to_string();
    respond(200, json_headers(), SimBody::whole(Bytes::from(text), serving))
}

fn nowhere(mut serving: Serving) -> Response<SimBody> {
    serving.answered(404);
    let text = Dialect::OpenaiChat.error(&Trouble::of_status(404)).to_string();
    respond(404, json_headers(), SimBody::whole(Bytes::from(text), serving))
}

fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

/// Puts an answer together.
pub(crate) fn respond(status: u16, headers: HeaderMap, body: SimBody) -> Response<SimBody> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

/// Above what gateways pass on.
const LARGEST_BODY: usize = 256 * 1024 * 1024;
