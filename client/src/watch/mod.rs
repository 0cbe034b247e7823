//! `watch`: a live table of the connections that a hint server measures. `feed` follows the server through its deaths,
//! `board` holds what is known, with the last minute of each connection as a `trace`, `columns` and `view` show it, `screen` has the terminal and the keys.

mod board;
mod columns;
mod feed;
mod screen;
mod trace;
mod view;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::bail;
use tokenflow_hint_api::HintUrl;

use crate::chat::harmless_text;
use crate::cli::WatchArgs;
use board::Board;
use feed::{Feed, News};

/// Runs the command to its exit code.
pub async fn run(args: WatchArgs) -> anyhow::Result<u8> {
    if args.hint_url == HintUrl::None {
        bail!("there is nothing to watch: --hint-url is none");
    }
    let once = args.once || !(args.json || io::stdout().is_terminal());
    let feed = Feed::spawn(args.hint_url.clone());
    match (args.json, once) {
        (false, false) => screen::run(feed, &args.hint_url).await,
        (true, _) => finish(json_lines(feed, &args.hint_url, once).await),
        (false, true) => finish(table(feed, &args.hint_url).await),
    }
}

/// Prints events as they come, or only the first.
async fn json_lines(mut feed: Feed, url: &HintUrl, once: bool) -> anyhow::Result<()> {
    let mut out = io::stdout();
    loop {
        match feed.next().await {
            News::Event(event) => {
                let mut line = serde_json::to_vec(&event)?;
                line.push(b'\n');
                out.write_all(&line)?;
                out.flush()?;
                if once {
                    return Ok(());
                }
            }
            News::Lost { why } if once => bail!("cannot reach the hint server at {url}: {why}"),
            News::Lost { why } => eprintln!("the hint server at {url} is gone: {}; trying again", harmless_text(&why)),
            News::Alive => {}
        }
    }
}

async fn table(mut feed: Feed, url: &HintUrl) -> anyhow::Result<()> {
    let mut board = Board::new(url.to_string());
    loop {
        match feed.next().await {
            News::Lost { why } => bail!("cannot reach the hint server at {url}: {why}"),
            news @ News::Event(_) => {
                board.hear(news, Duration::ZERO);
                write!(io::stdout(), "{}", view::plain(&board, Duration::ZERO))?;
                return Ok(());
            }
            News::Alive => {}
        }
    }
}

/// Nobody reading on is no failure.
fn finish(result: anyhow::Result<()>) -> anyhow::Result<u8> {
    match result {
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => Ok(0),
        result => result.map(|()| 0),
    }
}
