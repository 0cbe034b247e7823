//! What of an output one choice shows: the prompt before it, log-probabilities, ids.

use std::sync::Arc;

use super::{
    convert::TokenPrompt,
    logprobs::{CompletionLogprobs, LogprobsWriter},
    validate::{CompletionRequest, Echo},
};
use crate::{
    api::generation::{Delta, PromptLogprobs, TokenNames},
    tokenizer::Tokenizer,
};

/// The same for all choices of a request.
pub(super) struct View {
    tokenizer: Arc<Tokenizer>,
    echo: Option<Echo>,
    logprobs: bool,
    prompt_logprobs: bool,
    names: TokenNames,
    return_token_ids: bool,
    /// Choices of the same prompt follow one another.
    choices_per_prompt: usize,
    prompts: Vec<TokenPrompt>,
}

/// What belongs to one piece of a choice, or to all of it.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) text: String,
    pub(super) logprobs: Option<CompletionLogprobs>,
    pub(super) token_ids: Option<Vec<u32>>,
    /// With the first piece.
    pub(super) prompt_token_ids: Option<Vec<u32>>,
    pub(super) prompt_logprobs: Option<PromptLogprobs>,
}

impl View {
    pub(super) fn new(tokenizer: Arc<Tokenizer>, request: &CompletionRequest, prompts: Vec<TokenPrompt>) -> Self {
        Self {
            tokenizer,
            echo: request.echo,
            logprobs: request.logprobs.is_some(),
            prompt_logprobs: request.prompt_logprobs,
            names: request.options.token_names,
            return_token_ids: request.options.return_token_ids,
            choices_per_prompt: request.options.n,
            prompts,
        }
    }

    pub(super) fn num_choices(&self) -> usize {
        self.prompts.len() * self.choices_per_prompt
    }

    /// Length of all prompts, each counted once.
    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.tokens.len()).sum()
    }

    /// A piece of choice `index`; the first one has what stands before the output. `offset` is where its text begins and is moved to its end.
    pub(super) fn show(&self, index: usize, delta: &Delta, is_first: bool, offset: &mut usize) -> Shown {
        let prompt = &self.prompts[index / self.choices_per_prompt];
        let (text, sampled, ids) = match self.echo {
            Some(Echo::PromptOnly) => ("", &[][..], &[][..]),
            _ => (delta.text.as_str(), &delta.tokens[..], &delta.token_ids[..]),
        };
        let writer = LogprobsWriter { tokenizer: &self.tokenizer, names: self.names };
        let scored = delta.prompt_logprobs.as_deref().unwrap_or_default();
        let echoes = is_first && self.echo.is_some();
        Shown {
            text: if echoes { self.prompt_text(prompt) + text } else { text.to_owned() },
            logprobs: self.logprobs.then(|| match echoes {
                true => writer.write_echo(&prompt.tokens, scored, sampled, offset),
                false => writer.write(sampled, offset),
            }),
            token_ids: self.return_token_ids.then(|| ids.to_vec()),
            prompt_token_ids: (is_first && self.return_token_ids).then(|| prompt.tokens.clone()),
            prompt_logprobs: (is_first && self.prompt_logprobs).then(|| PromptLogprobs::new(scored, &self.tokenizer)),
        }
    }

    fn prompt_text(&self, prompt: &TokenPrompt) -> String {
        prompt.text.clone().unwrap_or_else(|| self.tokenizer.decode(&prompt.tokens, true).unwrap_or_default())
    }
}
