//! TokenFlow's serving engine. A request passes through these modules in this order:
//!
//! 1. [`api`]: OpenAI routes, validation, server-sent events
//! 2. [`tokenizer`]: text to ids, chat templates, incremental detokenisation
//! 3. [`engine`]: the handle that accepts requests and the loop that drives the steps
//! 4. [`scheduler`]: queues, step budget, pacing; turns its state into a [`scheduler::StepPlan`]
//! 5. [`kv`]: block pool and block tables
//! 6. [`executor`]: one step, plan in, tokens out
//! 7. [`model`]: architectures, written once over the backend trait
//! 8. [`backend`]: fused operations and their kernels
//! 9. [`sampling`]: logits to tokens
//!
//! Beside the path: [`weights`] (checkpoints), [`health`] (what is known of each client's link), [`metrics`] (what is counted).

pub mod api;
pub mod backend;
pub mod cli;
pub mod config;
pub mod engine;
pub mod executor;
pub mod health;
pub mod kv;
pub mod metrics;
pub mod model;
pub mod sampling;
pub mod scheduler;
pub mod tokenizer;
pub mod weights;
