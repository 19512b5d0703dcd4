//! Prometheus' HTTP API, and the doors for samples beside it, on one port with gRPC.

mod admin;
mod answer;
mod cors;
mod digits;
mod encoding;
mod exemplars;
mod features;
mod federate;
mod json;
mod json_histogram;
mod metadata;
mod pages;
mod parameters;
mod parse_query;
mod query;
mod remote_read;
mod rules;
mod series;
mod status;
mod targets;
mod time;

pub use json::format_value;
pub use remote_read::ReadPlaces;

use crate::collector::Collector;
use crate::ingest::stream::IngestService;
use crate::ingest::{remote_write, text};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post};
use std::sync::Arc;

/// All routes but the standard ones.
pub fn router(collector: Arc<Collector>, ingest: IngestService) -> Router {
    let api = Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/query_exemplars", get(exemplars::query_exemplars).post(exemplars::query_exemplars))
        .route("/format_query", get(query::format).post(query::format))
        .route("/parse_query", get(parse_query::parse_query).post(parse_query::parse_query))
        .route("/series", get(series::series).post(series::series))
        .route("/labels", get(series::labels).post(series::labels))
        .route("/label/{name}/values", get(series::label_values))
        .route("/metadata", get(metadata::metadata))
        .route("/rules", get(rules::rules))
        .route("/alerts", get(rules::alerts))
        .route("/alertmanagers", get(rules::alertmanagers))
        .route("/targets", get(targets::targets))
        .route("/targets/metadata", get(targets::metadata))
        .route("/scrape_pools", get(targets::pools))
        .route("/status/walreplay", get(status::walreplay))
        .route("/status/buildinfo", get(status::buildinfo))
        .route("/status/config", get(status::config))
        .route("/status/flags", get(status::flags))
        .route("/status/runtimeinfo", get(status::runtimeinfo))
        .route("/status/tsdb", get(status::tsdb))
        .route("/status/tsdb/blocks", get(status::blocks))
        .route("/features", get(features::features))
        .route("/notifications", get(status::notifications))
        .route("/notifications/live", get(status::live_notifications))
        .route("/admin/tsdb/flush", get(admin::flush).post(admin::flush))
        .route("/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot))
        .route("/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series))
        .route("/admin/tsdb/clean_tombstones", post(admin::clean_tombstones).put(admin::clean_tombstones))
        .fallback(any(answer::not_found))
        .method_not_allowed_fallback(answer::method_not_allowed)
        .layer(axum::middleware::from_fn(cors::allow));
    let writes = Router::new()
        .route("/api/v1/write", post(remote_write::handle))
        .route("/api/v1/read", post(remote_read::read))
        .route("/api/v1/import/prometheus", post(text::handle))
        // Bodies are bounded where they are read, with the answer that the protocol wants.
        .layer(DefaultBodyLimit::disable());
    let pages = Router::new()
        .route("/", get(pages::home))
        .route("/graph", get(pages::home))
        .route("/alerts", get(pages::alerts))
        .route("/rules", get(pages::rules))
        .route("/targets", get(pages::targets))
        .route("/federate", get(federate::federate));
    let http = Router::new().nest("/api/v1", api).merge(writes).merge(pages).with_state(collector);
    let grpc = tonic::service::Routes::new(ingest.into_server()).prepare().into_axum_router();
    http.merge(grpc.reset_fallback())
}
