//! `/v1/responses` (server.md 8): answers, and those that are kept.

mod items;
mod object;
mod request;
mod store;
mod stream;
mod tools;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::{Map, Value, json};

pub(crate) use store::Store;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::fields::Fields;
use crate::job::{Piece, Trade};
use crate::order::{Order, Source};
use crate::reply;
use crate::sse;
use object::Head;
use stream::Output;

/// Answers one request.
pub(crate) async fn handle(app: Arc<App>, body: Map<String, Value>) -> Result<Response<Body>> {
    let fields = Fields::root(&body);
    let mut request = request::read(&fields, &app)?;
    app.constrain(&mut request.order, Trade::Responses)?;
    let ids = ids(&app, &mut request)?;
    let order = request.order;
    let job = app.start(&order, ids, 0, Trade::Responses)?;
    let head = Head::new(&fields, &order)?;
    let kept = request.store.then_some(request.items);
    let mut output = Output::new(&app, head, &order, kept, &job);
    let response = if order.stream {
        sse::stream(app.config.keepalive, |writer| stream::write(writer, output, job))
    } else {
        let mut job = job;
        loop {
            let piece = job.next().await?;
            let done = piece == Piece::Done;
            output.piece(piece, &job);
            if done {
                break reply::json(&output.response);
            }
        }
    };
    Ok(reply::warned(response, &order.warnings))
}

/// Ids of the prompt, without the oldest turns if the client allows that.
fn ids(app: &App, request: &mut request::Request) -> Result<Vec<u32>> {
    let whole = app.ids(&request.order, "input");
    let Source::Chat { messages, .. } = &request.order.source else { return whole };
    if whole.is_ok() || !request.truncates {
        return whole;
    }
    let (head, starts) = request::turns(messages);
    let cut = |n: usize| {
        let kept = messages[..head].iter().chain(&messages[starts[n]..]).cloned().collect();
        Order { source: Source::Chat { messages: kept, continued: false }, ..request.order.clone() }
    };
    // Fewer messages are never more tokens.
    let candidates: Vec<usize> = (1..starts.len()).collect();
    let first = candidates.partition_point(|&n| app.ids(&cut(n), "input").is_err());
    match candidates.get(first) {
        Some(&n) => {
            request.order = cut(n);
            app.ids(&request.order, "input")
        }
        None => whole,
    }
}

/// The size of the prompt that `handle` would have.
pub(crate) fn input_tokens(app: &App, body: &Map<String, Value>) -> Result<Response<Body>> {
    let input_tokens = app.count(&order(app, body)?)?;
    Ok(reply::json(&json!({"object": "response.input_tokens", "input_tokens": input_tokens})))
}

/// What the request asks for: `/apply-template`.
pub(crate) fn order(app: &App, body: &Map<String, Value>) -> Result<Order> {
    request::read(&Fields::root(body), app).map(|request| request.order)
}

/// A response that was kept.
pub(crate) fn get(app: &App, tenant: &str, id: &str) -> Result<Response<Body>> {
    let entry = app.responses.get(tenant, id).ok_or_else(|| not_found(id))?;
    Ok(reply::json(&entry.response))
}

/// Forgets a response.
pub(crate) fn delete(app: &App, tenant: &str, id: &str) -> Result<Response<Body>> {
    if !app.responses.remove(tenant, id) {
        return Err(not_found(id));
    }
    Ok(reply::json(&json!({"id": id, "object": "response", "deleted": true})))
}

/// Stops a response that is running; one that has ended stays as it is.
pub(crate) fn cancel(app: &App, tenant: &str, id: &str) -> Result<Response<Body>> {
    if let Some(mut response) = app.responses.cancel(tenant, id) {
        response["status"] = "cancelled".into();
        return Ok(reply::json(&response));
    }
    get(app, tenant, id)
}

/// What a response was asked, newest first unless the query says otherwise.
pub(crate) fn input_items(app: &App, tenant: &str, id: &str, query: &str) -> Result<Response<Body>> {
    let entry = app.responses.get(tenant, id).ok_or_else(|| not_found(id))?;
    let option = |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|pair| pair.0 == name);
    let mut items: Vec<&Value> = entry.input.iter().map(Arc::as_ref).collect();
    if option("order").is_none_or(|(_, order)| order != "asc") {
        items.reverse();
    }
    if let Some((_, after)) = option("after")
        && let Some(at) = items.iter().position(|item| item["id"] == after)
    {
        items.drain(..=at);
    }
    let limit = option("limit").and_then(|(_, n)| n.parse().ok()).unwrap_or(20).clamp(1, 100);
    let has_more = items.len() > limit;
    items.truncate(limit);
    let id_of = |item: Option<&&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let (first, last) = (id_of(items.first()), id_of(items.last()));
    Ok(reply::json(&json!({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more})))
}

/// Compaction by the server is not offered.
pub(crate) fn compact() -> ApiError {
    let message = "compaction is not supported: summarize the conversation with a request of its own";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, Some("not_supported"), message)
}

fn not_found(id: &str) -> ApiError {
    let message = format!("Response with id '{id}' not found: it was not stored or has expired; resend the full input");
    ApiError { param: Some("previous_response_id".to_owned()), ..ApiError::not_found("response_not_found", message) }
}
