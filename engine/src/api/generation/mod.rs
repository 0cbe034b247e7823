//! What all routes that generate have in common: the fields that steer a generation, and its way from text to events.

mod adjustments;
mod constraint;
mod fields;
mod logprobs;
mod prompt_length;
mod prompt_logprobs;
mod sse;
mod start;
mod unsupported;
mod usage;
mod validate;

pub(super) use constraint::{ConstraintFields, NamedConstraint, compile};
pub(super) use fields::{GenerationFields, StreamOptions};
pub(super) use logprobs::{checked_logprobs, json_logprob};
pub(super) use prompt_length::{Truncation, check_min_tokens, check_prompt, check_text, empty_prompt, max_tokens};
pub(super) use prompt_logprobs::{PromptLogprobs, PromptLogprobsShape};
pub(super) use sse::{EventFormat, respond, write_event, write_named_event};
pub(super) use start::start;
pub(super) use unsupported::refuse_unsupported;
pub(super) use usage::{LinkReport, Usage};
pub(super) use validate::{GenerationOptions, TokenNames, check_choices, number_of_choices};

pub(super) use crate::text::{Delta, Output, StopReason};
