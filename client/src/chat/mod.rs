//! `chat`: a question or a conversation. `stream` brings chunks over `wire` types, `answer` follows one answer to its end,
//! `rate` and `progress` know how it does, and `terminal` (with `flow` and `status`), `plain` or `json` shows it.

mod answer;
mod conversation;
mod flow;
mod json;
mod plain;
mod progress;
mod rate;
mod status;
mod stream;
mod terminal;
mod wire;

use std::io::{self, IsTerminal, Read};

use anyhow::{Context, bail};

pub use answer::{Answer, Display, Ending, Session};
pub use flow::harmless_text;
pub(crate) use progress::counted;
pub use progress::{Progress, Summary};
pub use rate::RateMeter;
pub use stream::{ChatStream, Chunk, Server};
pub use wire::{ChatRequest, Link, Message, StreamOptions, Usage};

use crate::HintHealth;
use crate::cli::ChatArgs;
use crate::signals::Signals;

/// Runs the command to its exit code.
pub async fn run(args: ChatArgs) -> anyhow::Result<u8> {
    let front = Front::choose(&args);
    let prompt = prompt(&args)?;
    let server = Server::new(args.url, args.api_key)?;
    let model = match args.model {
        Some(model) => model,
        None => server.first_model().await?,
    };
    let question = Question {
        model,
        system: args.system.map(Message::system).into_iter().collect(),
        max_tokens: args.max_tokens,
        temperature: args.temperature,
    };
    let signals = Signals::new().context("cannot listen to signals")?;
    let mut session = Session { server, health: HintHealth::new(args.hint_url), signals };
    match prompt {
        None => conversation::run(&mut session, &question, front).await,
        Some(prompt) => {
            let mut messages = question.system.clone();
            messages.push(Message::user(prompt));
            let answer = session.answer(&question.request(&messages), front.display().as_mut()).await?;
            match answer.ending {
                Ending::Complete | Ending::OutputClosed => Ok(0),
                Ending::Stopped(signal) => Ok(signal.exit_code()),
                Ending::Failed(error) => Err(error.into()),
            }
        }
    }
}

/// The one question, or None for a conversation.
fn prompt(args: &ChatArgs) -> anyhow::Result<Option<String>> {
    if !args.prompt.is_empty() {
        return Ok(Some(args.prompt.join(" ")));
    }
    if io::stdin().is_terminal() {
        if args.json {
            bail!("--json needs a prompt: as an argument or on standard input");
        }
        return Ok(None);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("cannot read the prompt from standard input")?;
    if text.trim().is_empty() {
        bail!("the prompt is empty: give one as an argument or on standard input");
    }
    Ok(Some(text))
}

/// What every request of a command has in common.
struct Question {
    model: String,
    system: Vec<Message>,
    max_tokens: Option<u32>,
    temperature: Option<f64>,
}

impl Question {
    fn request<'a>(&'a self, messages: &'a [Message]) -> ChatRequest<'a> {
        ChatRequest {
            model: &self.model,
            messages,
            stream: true,
            stream_options: StreamOptions::default(),
            max_tokens: self.max_tokens,
            temperature: self.temperature,
        }
    }
}

/// How answers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    Terminal,
    Plain,
    Json,
}

impl Front {
    fn choose(args: &ChatArgs) -> Self {
        match args {
            _ if args.json => Self::Json,
            _ if !args.plain && terminal::is_drawable() => Self::Terminal,
            _ => Self::Plain,
        }
    }

    fn display(self) -> Box<dyn Display> {
        match self {
            Self::Terminal => Box::new(terminal::Terminal::new()),
            Self::Json => Box::new(json::JsonLines::new(io::stdout())),
            Self::Plain => {
                let out_is_terminal = io::stdout().is_terminal();
                let one_screen = out_is_terminal && io::stderr().is_terminal();
                Box::new(plain::Plain::new(io::stdout(), out_is_terminal, io::stderr(), !one_screen))
            }
        }
    }
}
