use std::sync::Arc;

use super::{GenerationOptions, Output};
use crate::{
    api::{ApiError, ApiState, context::RequestContext},
    health::StreamMeter,
    text::Params,
};

/// Hands one prompt to the engine.
pub(in crate::api) fn start(
    state: &ApiState,
    context: &RequestContext,
    options: &GenerationOptions,
    prompt: Vec<u32>,
    max_tokens: usize,
) -> Result<Output, ApiError> {
    let connection = options.stream.and(context.connection.clone());
    let meter = connection.map(|connection| Arc::new(StreamMeter::new(connection)));
    let params = Params { timeout: context.timeout.or(options.params.timeout), ..options.params.clone() };
    let interval = if options.stream.is_some() { state.stream_interval } else { 1 };
    let prompt_tokens = prompt.len();
    let output = state.engine.start(prompt, max_tokens, &params, meter)?.in_chunks_of(interval);
    let Some(log) = &context.log else { return Ok(output) };
    log.starts(&state.served_model_names[0], prompt_tokens, max_tokens, options.stream.is_some());
    Ok(output.observed_by(log.clone()))
}
