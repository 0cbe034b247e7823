//! The table on the whole screen of a terminal, and its keys. The screen comes back as it was, whatever ends this.

use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;
use tokenflow_hint_api::HintUrl;

use super::board::Board;
use super::feed::Feed;
use super::view;
use crate::palette::colour_wanted;
use crate::signals::{Signal, Signals};

/// Ages and the seconds since a loss go on without news.
const REDRAW: Duration = Duration::from_millis(100);

pub async fn run(mut feed: Feed, url: &HintUrl) -> anyhow::Result<u8> {
    let mut signals = Signals::new().context("cannot listen to signals")?;
    let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
    let result = show(&mut terminal, &mut feed, &mut signals, Board::new(url.to_string())).await;
    ratatui::restore();
    result.context("cannot draw on this terminal")
}

async fn show(terminal: &mut ratatui::DefaultTerminal, feed: &mut Feed, signals: &mut Signals, mut board: Board) -> io::Result<u8> {
    let started = Instant::now();
    let coloured = colour_wanted();
    let mut keys = EventStream::new();
    let mut redraws = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            _ = redraws.tick() => {
                board.sample(started.elapsed());
                terminal.draw(|frame| view::draw(frame, &mut board, started.elapsed(), coloured))?;
            }
            news = feed.next() => board.hear(news, started.elapsed()),
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if let Some(code) = press(key, &mut board, started.elapsed()) {
                        return Ok(code);
                    }
                    redraws.reset_immediately();
                }
                Some(Ok(_)) => redraws.reset_immediately(),
                Some(Err(error)) => return Err(error),
                None => return Ok(0),
            },
            signal = signals.next() => return Ok(signal.exit_code()),
        }
    }
}

/// What a key does; an exit code if it ends the watch.
fn press(key: KeyEvent, board: &mut Board, now: Duration) -> Option<u8> {
    let page = isize::try_from(board.page).unwrap_or(isize::MAX);
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Some(Signal::Interrupt.exit_code()),
        KeyCode::Char('q') | KeyCode::Esc => return Some(0),
        KeyCode::Char('s') => board.sort = board.sort.next(),
        KeyCode::Char('p') => board.toggle_pause(now),
        KeyCode::Up | KeyCode::Char('k') => board.scroll(-1),
        KeyCode::Down | KeyCode::Char('j') => board.scroll(1),
        KeyCode::PageUp => board.scroll(-page),
        KeyCode::PageDown => board.scroll(page),
        KeyCode::Home => board.scroll(isize::MIN),
        KeyCode::End => board.scroll(isize::MAX),
        _ => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::board::tests::three;
    use super::*;

    #[test]
    fn keys_do_what_the_footer_says() {
        let mut board = three();
        let mut press = |code| press(KeyEvent::new(code, KeyModifiers::NONE), &mut board, Duration::ZERO);
        assert_eq!(press(KeyCode::Char('q')), Some(0));
        assert_eq!(press(KeyCode::Char('s')), None);
        assert_eq!(press(KeyCode::Down), None);
        assert_eq!(press(KeyCode::Char('p')), None);
        assert_eq!((board.sort.name(), board.offset, board.is_paused()), ("undelivered", 1, true));
    }

    #[test]
    fn ctrl_c_leaves_as_a_signal_would() {
        assert_eq!(press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), &mut three(), Duration::ZERO), Some(130));
    }
}
