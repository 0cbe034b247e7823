use std::sync::Arc;

use super::{GenerationOptions, Output, check_min_tokens};
use crate::{
    api::{ApiError, ApiState, context::RequestContext},
    health::{ClientWord, StreamMeter},
    text::Params,
};

/// Hands one prompt to the engine: one output for each of `n` answers.
pub(in crate::api) fn start(
    state: &ApiState,
    context: &RequestContext,
    options: &GenerationOptions,
    prompt: Vec<u32>,
    max_tokens: usize,
    n: usize,
) -> Result<Vec<Output>, ApiError> {
    check_min_tokens(options.params.sampling.min_tokens(), max_tokens)?;
    let connection = options.stream.and(context.connection.clone());
    let client = ClientWord { health_factor: options.health_factor, ..context.client };
    let meter = connection.map(|connection| Arc::new(StreamMeter::new(connection, client)));
    let origin = context.origin(options.params.origin.tenant.as_ref());
    let params = Params { timeout: context.timeout.or(options.params.timeout), origin, ..options.params.clone() };
    let interval = if options.stream.is_some() { state.stream_interval } else { 1 };
    let prompt_tokens = prompt.len();
    let outputs = state.engine.start_group(prompt, max_tokens, &params, meter, n)?;
    let outputs = outputs.into_iter().map(|output| output.in_chunks_of(interval).coalescing(state.coalesce_events));
    let Some(log) = &context.log else { return Ok(outputs.collect()) };
    log.starts(&state.served_model_names[0], prompt_tokens, max_tokens, options.stream.is_some());
    Ok(outputs.map(|output| output.observed_by(log.clone())).collect())
}
