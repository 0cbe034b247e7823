use std::sync::Arc;

use super::{GenerationOptions, Output};
use crate::{
    api::{ApiError, ApiState, context::RequestContext},
    health::StreamMeter,
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
    let Some(log) = &context.log else { return Ok(state.engine.start(prompt, max_tokens, &options.params, meter)?) };
    log.starts(&state.served_model_names[0], prompt.len(), max_tokens, options.stream.is_some());
    Ok(state.engine.start(prompt, max_tokens, &options.params, meter)?.observed_by(log.clone()))
}
