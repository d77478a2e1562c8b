//! REST, server-sent events and the dashboard of a V6 node.
//!
//! This crate knows the node through one trait, [`api::NodeApi`]: it reads no file, decides nothing about jobs and never
//! sees the mesh's stores. It owns the HTTP rules: who may speak (token, Host, Origin), how much (sizes, connections,
//! times) and how every answer looks, errors included.

pub mod api;
pub mod event_ring;
mod extract;
pub mod mirror;
mod refusal;
mod routes;
pub mod server;

pub use event_ring::EventRing;
pub use routes::{SignInLink, openapi_json};
pub use server::{ServerConfig, ServerHandle, serve};
