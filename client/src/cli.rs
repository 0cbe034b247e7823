//! The command line: what may be said, and its defaults. What it means is decided in `chat` and `watch`.

use clap::{Args, Parser, Subcommand};
use tokenflow_hint_api::HintUrl;

use crate::Endpoint;

#[derive(Debug, Parser)]
#[command(name = "tokenflow-client", version, about = "Chat with live Rate and Health; watch connections")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask a model, and see Rate (tokens/s as received) and Health (0..1) beside its answer.
    Chat(Box<ChatArgs>),
    /// Watch the connections that the hint server measures, the most troubled first.
    Watch(WatchArgs),
}

#[derive(Debug, Args)]
pub struct ChatArgs {
    /// One question. Without it: a conversation, or, when standard input is not a terminal, one question read from there.
    pub prompt: Vec<String>,

    /// The OpenAI-compatible server, with or without /v1.
    #[arg(long, env = "TOKENFLOW_URL", default_value = "http://127.0.0.1:8000")]
    pub url: Endpoint,

    /// The model to ask. [default: the first that the server lists]
    #[arg(long)]
    pub model: Option<String>,

    /// Where Health comes from when the server does not send it: URL, unix:PATH or none.
    #[arg(long, env = "TOKENFLOW_HINT_URL", default_value = "http://127.0.0.1:5000")]
    pub hint_url: HintUrl,

    /// Sent as a Bearer token.
    #[arg(long, env = "TOKENFLOW_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,

    /// The system message.
    #[arg(long)]
    pub system: Option<String>,

    /// Stop after so many tokens.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,

    /// Sampling temperature; 0 is greedy.
    #[arg(long)]
    pub temperature: Option<f64>,

    /// Text on standard output and nothing else there; the status goes to standard error once a second.
    #[arg(long)]
    pub plain: bool,

    /// One JSON object per token ({t, text, tokens, rate, health, paced}), then {"summary": {tokens, seconds, ttft, mean_rate, min_health,
    /// finish_reason, usage, error}}.
    #[arg(long, conflicts_with = "plain")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The hint server: URL or unix:PATH.
    #[arg(long, env = "TOKENFLOW_HINT_URL", default_value = "http://127.0.0.1:5000")]
    pub hint_url: HintUrl,

    /// Print one table and leave; so it does when standard output is not a terminal.
    #[arg(long)]
    pub once: bool,

    /// One JSON object per event of the hint server, as they come; one in all with --once.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
