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
    Ok(state.engine.start(prompt, max_tokens, &options.params, meter)?)
}
