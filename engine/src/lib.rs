//! TokenFlow's serving engine, as a library: [`Engine`] loads a model and answers prompts, many at a time.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tokenflow_engine::{Engine, EngineConfig, Params};
//!
//! let engine = Engine::load(EngineConfig::demo())?; // or EngineConfig::new("path/to/Qwen3-0.6B")
//! let answer = engine.generate("Ownership is", Params::greedy().max_tokens(16)).await?;
//! println!("{}", answer.text);
//! # Ok(())
//! # }
//! ```
//!
//! A request passes through these modules in this order:
//!
//! 1. [`api`]: OpenAI routes, validation, server-sent events
//! 2. [`text`]: prompts in, text out; what a library's user and [`api`] call
//! 3. [`tokenizer`]: text to ids, chat templates, incremental detokenisation
//! 4. [`engine`]: the handle that accepts token requests and the loop that drives the steps
//! 5. [`scheduler`]: queues, step budget, pacing; turns its state into a [`scheduler::StepPlan`]
//! 6. [`kv`]: block pool, prefix cache, block tables
//! 7. [`executor`]: one step, plan in, tokens out
//! 8. [`model`]: architectures, written once over the backend trait
//! 9. [`backend`]: fused operations and their kernels
//! 10. [`sampling`]: logits to tokens
//!
//! Beside the path: [`batch`] (files of requests, answered without a server), [`grammar`] (what constrained output must match),
//! [`weights`] (checkpoints, and fetching them), [`health`] (what is known of each client's link), [`metrics`] (what is counted).

pub mod api;
pub mod backend;
pub mod batch;
pub mod cli;
pub mod config;
pub mod engine;
pub mod executor;
pub mod grammar;
pub mod health;
pub mod kv;
pub mod logging;
pub mod metrics;
pub mod model;
mod progress;
pub mod sampling;
pub mod scheduler;
pub mod startup;
pub mod text;
pub mod tokenizer;
pub mod weights;

pub use config::{EngineConfig, ModelSource};
pub use sampling::SamplingParams;
pub use scheduler::FinishReason;
pub use text::{Answer, Delta, Engine, GenerateError, Message, Output, Params, Prompt};
