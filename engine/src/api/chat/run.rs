//! One chat from its JSON to the running generation, and what it comes to.

use futures_util::future::try_join_all;

use super::{
    constrain::behind_reasoning,
    parse::{MessageParser, ParseOptions, ReasoningStart, WholeMessage},
    validate,
};
use crate::{
    api::{
        ApiError, ApiState,
        context::RequestContext,
        generation::{self, Delta, GenerationOptions, Output, Truncation},
        json_body::JsonBody,
    },
    engine::EngineError,
    scheduler::FinishReason,
};

/// A chat that the engine answers.
pub(in crate::api) struct Chat {
    pub(in crate::api) model: String,
    pub(in crate::api) options: GenerationOptions,
    /// One per choice.
    pub(in crate::api) outputs: Vec<Output>,
    /// The prompt, where its ids are to be shown.
    pub(super) prompt_token_ids: Option<Vec<u32>>,
    parse: ParseOptions,
    reasoning_start: ReasoningStart,
}

/// One choice of an answer in one piece.
pub(in crate::api) struct WholeChoice {
    pub(in crate::api) message: WholeMessage,
    pub(in crate::api) finish_reason: &'static str,
    /// Text, counts and what ended it.
    pub(in crate::api) output: Delta,
}

/// A chat's prompt.
pub(in crate::api) struct ChatPrompt {
    pub(in crate::api) tokens: Vec<u32>,
    reasoning_start: ReasoningStart,
}

/// Checks a chat, as `/v1/chat/completions` takes it, and hands it to the engine.
pub(in crate::api) async fn start(state: &ApiState, context: &RequestContext, body: &JsonBody) -> Result<Chat, ApiError> {
    let mut request = validate::validate(state, body)?;
    let prompt = prompt(state, request.prompt, body.len(), request.options.truncation).await?;
    let (param, requested) = request.max_tokens;
    let max_tokens = generation::max_tokens(param, requested, None, prompt.tokens.len(), state.engine.info())?;
    if let Some(constraint) = request.options.constraint.take() {
        let constraint = behind_reasoning(constraint, &request.parse, prompt.reasoning_start, &state.tokenizer)?;
        request.options.params.grammar = Some(generation::compile(state, constraint).await?);
    }
    let prompt_token_ids = request.options.return_token_ids.then(|| prompt.tokens.clone());
    let outputs = generation::start(state, context, &request.options, prompt.tokens, max_tokens, request.options.n)?;
    Ok(Chat {
        model: request.model,
        options: request.options,
        outputs,
        prompt_token_ids,
        parse: request.parse,
        reasoning_start: prompt.reasoning_start,
    })
}

/// Renders and tokenises a chat from a body of `bytes`, and checks that it fits.
pub(in crate::api) async fn prompt(
    state: &ApiState,
    fields: super::PromptFields,
    bytes: usize,
    truncation: Option<Truncation>,
) -> Result<ChatPrompt, ApiError> {
    let (config, info) = (state.chat, state.engine.info());
    let max_model_len = info.max_model_len;
    let prompt = state
        .with_text(bytes, move |tokenizer| {
            let add_special_tokens = fields.add_special_tokens();
            let text = fields.render(tokenizer, &config)?;
            if truncation.is_none() {
                generation::check_text("messages", &text, tokenizer, max_model_len)?;
            }
            let mut tokens = tokenizer.encode(&text, add_special_tokens)?;
            if let Some(truncation) = truncation {
                truncation.apply(&mut tokens);
            }
            Ok(ChatPrompt { tokens, reasoning_start: ReasoningStart::of(&text) })
        })
        .await?;
    generation::check_prompt("messages", &prompt.tokens, info)?;
    Ok(prompt)
}

impl Chat {
    pub(in crate::api) fn prompt_tokens(&self) -> usize {
        self.outputs.first().map_or(0, Output::prompt_tokens)
    }

    /// For one choice.
    pub(in crate::api) fn parser(&self) -> MessageParser {
        MessageParser::new(&self.parse, self.reasoning_start)
    }

    /// All choices, once they are complete.
    ///
    /// # Errors
    /// When the engine failed before the end.
    pub(in crate::api) async fn collect(self) -> Result<Vec<WholeChoice>, EngineError> {
        let parsers: Vec<_> = self.outputs.iter().map(|_| self.parser()).collect();
        let wholes = try_join_all(self.outputs.into_iter().map(Output::collect)).await?;
        let choices = parsers.into_iter().zip(wholes).map(|(parser, output)| {
            let message = parser.whole(&output.text);
            let finish = output.finish.unwrap_or(FinishReason::Abort);
            WholeChoice { finish_reason: finish_reason(finish, !message.calls.is_empty()), message, output }
        });
        Ok(choices.collect())
    }
}

/// OpenAI's word for the end of a message.
pub(in crate::api) fn finish_reason(finish: FinishReason, has_calls: bool) -> &'static str {
    match finish {
        FinishReason::Stop if has_calls => "tool_calls",
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Abort => "abort",
    }
}
