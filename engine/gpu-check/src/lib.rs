//! Compares what a GPU computes with the CPU, and measures it.
//!
//! [`sections`] runs the parts of a check, each in a process of its own, and [`report`] keeps what they find. [`kernels`] compares one kernel
//! at a time on a [`card`], [`parity`] whole [`models`] through the engine ([`running`]), [`reference`] a tiny one with transformers.
//! [`step`] says what a step does and what it costs at least, [`speed`] what it costs, and [`serve`] what the server does under load.

pub mod card;
pub mod cli;
pub mod kernels;
pub mod models;
pub mod open;
pub mod parity;
pub mod reference;
pub mod report;
pub mod running;
pub mod scratch;
pub mod sections;
pub mod serve;
pub mod speed;
pub mod step;
