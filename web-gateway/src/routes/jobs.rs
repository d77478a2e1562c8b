//! Jobs: submit, list, show, explain, cancel, retry.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use crate::api::{
    ApiError, Cancelled, Explain, JobQuery, JobRequest, JobRow, JobView, JobsQuery, Submitted, WaitingView, plan,
};
use crate::extract::{JsonBody, Named, Params, collect, hex_id, parse_json};
use crate::refusal::Refusal;
use crate::server::limits::{BODY_BYTES_MAX, PAGE_ROWS_MAX};

/// Jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(JobsQuery),
    responses((status = 200, body = Vec<JobRow>, headers(("v6-next" = Option<String>, description = "Cursor of the next page")))))]
pub(super) async fn list(State(app): State<App>, Params(mut query): Params<JobsQuery>) -> Result<Response, Refusal> {
    query.limit = query.limit.map(|limit| limit.clamp(1, PAGE_ROWS_MAX));
    Ok(super::page(app.node.jobs(query).await?))
}

/// One job or a list of jobs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum SubmitBody {
    /// One job.
    One(Box<JobRequest>),
    /// Several, which may wait for each other by `@NAME`.
    Many(Vec<JobRequest>),
}

/// One acknowledgement or a list of them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum SubmitAnswer {
    /// Of one job.
    One(Submitted),
    /// Of a list, in its order.
    Many(Vec<Submitted>),
}

/// Submits a job, or a list of jobs of which all or none are accepted. The answer has the same shape.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", request_body = SubmitBody, responses((status = 201, body = SubmitAnswer)))]
pub(super) async fn submit(State(app): State<App>, request: Request<Body>) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let bytes = collect(&parts.headers, body, BODY_BYTES_MAX).await?;
    let is_list = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let requests: Vec<JobRequest> = if is_list { parse_json(&bytes)? } else { vec![parse_json(&bytes)?] };
    let planned = plan(requests)?;
    let positions: Vec<usize> = planned.iter().map(|job| job.position).collect();
    let answers = app.node.submit(planned).await?;
    if answers.len() != positions.len() {
        return Err(ApiError::Internal("the node acknowledged another number of jobs than it was given".into()).into());
    }
    let mut sorted: Vec<(usize, Submitted)> = positions.into_iter().zip(answers).collect();
    sorted.sort_by_key(|(position, _)| *position);
    let mut answers: Vec<Submitted> = sorted.into_iter().map(|(_, answer)| answer).collect();
    let answer = match answers.pop() {
        Some(only) if !is_list => SubmitAnswer::One(only),
        last => {
            answers.extend(last);
            SubmitAnswer::Many(answers)
        }
    };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// What the jobs wait for that nobody has claimed yet.
#[utoipa::path(get, path = "/v1/jobs/waiting", tag = "jobs", responses((status = 200, body = WaitingView)))]
pub(super) async fn waiting(State(app): State<App>) -> Result<Json<WaitingView>, Refusal> {
    Ok(Json(app.node.waiting().await?))
}

/// Where a job would run if it were submitted now; nothing is submitted, and its id in the answer is empty.
#[utoipa::path(post, path = "/v1/jobs/plan", tag = "jobs", request_body = JobRequest, responses((status = 200, body = Explain)))]
pub(super) async fn preview(
    State(app): State<App>,
    JsonBody(request): JsonBody<JobRequest>,
) -> Result<Json<Explain>, Refusal> {
    let planned = plan(vec![request])?.pop().ok_or_else(|| Refusal::bad_request("send one job"))?;
    Ok(Json(app.node.preview(planned).await?))
}

/// One job with its tasks and attempts.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "Job or unambiguous prefix"), JobQuery),
    responses((status = 200, body = JobView)))]
pub(super) async fn show(
    State(app): State<App>,
    Named(id): Named,
    Params(mut query): Params<JobQuery>,
) -> Result<Json<JobView>, Refusal> {
    query.tasks_max = query.tasks_max.map(|tasks| tasks.clamp(1, PAGE_ROWS_MAX));
    Ok(Json(app.node.job(&hex_id("job", id)?, query).await?))
}

/// Why a job runs where it runs, or why it still waits.
#[utoipa::path(get, path = "/v1/jobs/{id}/explain", tag = "jobs", params(("id" = String, Path, description = "Job or unambiguous prefix")),
    responses((status = 200, body = Explain)))]
pub(super) async fn explain(State(app): State<App>, Named(id): Named) -> Result<Json<Explain>, Refusal> {
    Ok(Json(app.node.explain(&hex_id("job", id)?).await?))
}

/// Cancels a job.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = String, Path, description = "Job or unambiguous prefix")),
    responses((status = 200, body = Cancelled)))]
pub(super) async fn cancel(State(app): State<App>, Named(id): Named) -> Result<Json<Cancelled>, Refusal> {
    Ok(Json(app.node.cancel(&hex_id("job", id)?).await?))
}

/// Submits an ended job again, as a job of its own.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", tag = "jobs", params(("id" = String, Path, description = "Job or unambiguous prefix")),
    responses((status = 201, body = Submitted)))]
pub(super) async fn retry(State(app): State<App>, Named(id): Named) -> Result<(StatusCode, Json<Submitted>), Refusal> {
    Ok((StatusCode::CREATED, Json(app.node.retry(&hex_id("job", id)?).await?)))
}
