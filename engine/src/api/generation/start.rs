use std::sync::Arc;

use super::{GenerationOptions, Output};
use crate::{
    api::{ApiError, ApiState, context::RequestContext},
    engine::GenerateRequest,
    health::StreamMeter,
    sampling::SamplingParams,
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
    let prompt_tokens = prompt.len();
    let generation = state.engine.submit(GenerateRequest {
        prompt,
        max_tokens,
        stop_token_ids: options.stop_token_ids.clone(),
        ignore_eos: options.ignore_eos,
        sampling: SamplingParams { seed: options.seed.unwrap_or_else(|| state.draw_seed()), ..options.sampling.clone() },
        stream: meter.clone(),
        priority: 0,
        cache_salt: None,
        timeout: None,
    })?;
    Ok(Output::new(generation, &state.tokenizer, options, meter, prompt_tokens, state.generating()))
}
