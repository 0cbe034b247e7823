//! The picture: two lines of header, the table, a line of keys. Drawn from a board and a time alone.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use tokenflow_hint_api::{Hint, Source};

use super::board::{Board, Link, Row};
use super::columns::{COLUMNS, Column, fit, fitting};
use crate::palette::{Colour, health_bar, health_colour};

/// Draws, and tells the board how many rows fit.
pub fn draw(frame: &mut Frame, board: &mut Board, now: Duration, coloured: bool) {
    let [header, titles, body, keys] =
        Layout::vertical([Constraint::Length(2), Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
    board.page = usize::from(body.height).max(1);
    board.scroll(0);
    let columns = fitting(usize::from(frame.area().width));
    let paint = Paint { coloured, faded: matches!(board.link, Link::Lost { .. }) };

    frame.render_widget(Paragraph::new(vec![aggregate(board, frame.area().width.into(), paint), link(board, now, paint)]), header);
    frame.render_widget(Line::styled(title_line(&columns), Modifier::REVERSED), titles);
    let rows = board.rows(now);
    let lines: Vec<Line> = match (rows.is_empty(), board.hint()) {
        (true, Some(_)) => vec![Line::from("no connections yet")],
        _ => rows.iter().skip(board.offset).take(board.page).map(|row| row_line(row, &columns, paint)).collect(),
    };
    frame.render_widget(Paragraph::new(lines), body);
    let help = format!("q quit  s sort: {}  p {}  ↑↓ scroll", board.sort.name(), if board.is_paused() { "go on" } else { "pause" });
    frame.render_widget(Line::styled(help, Modifier::DIM), keys);
}

/// The same as text, every column of the moment, for a pipe.
pub fn plain(board: &Board, now: Duration) -> String {
    let columns: Vec<(&Column, usize)> =
        COLUMNS.iter().filter(|column| !column.is_history()).map(|column| (column, column.width)).collect();
    let paint = Paint { coloured: false, faded: false };
    let mut text = format!("{}\n{}\n", aggregate(board, usize::MAX, paint), title_line(&columns).trim_end());
    for row in board.rows(now) {
        text.push_str(row_line(&row, &columns, paint).to_string().trim_end());
        text.push('\n');
    }
    text
}

#[derive(Clone, Copy)]
struct Paint {
    coloured: bool,
    /// The data are old.
    faded: bool,
}

impl Paint {
    fn style(self, colour: Option<Colour>) -> Style {
        let colour = match colour {
            _ if self.faded => return Style::new().add_modifier(Modifier::DIM),
            Some(Colour::Green) => Color::Green,
            Some(Colour::Yellow) => Color::Yellow,
            Some(Colour::Red) => Color::Red,
            Some(Colour::Dim) => return Style::new().add_modifier(Modifier::DIM),
            None => return Style::new(),
        };
        if self.coloured { Style::new().fg(colour) } else { Style::new() }
    }
}

fn aggregate(board: &Board, width: usize, paint: Paint) -> Line<'static> {
    let Some(hint) = board.hint() else { return Line::from("Health -") };
    let bar = if width < 60 { String::new() } else { format!(" {}", health_bar(hint.health_factor, 10)) };
    let health = Span::styled(format!("Health {:.2}{bar}", hint.health_factor), paint.style(Some(health_colour(hint.health_factor))));
    let tracked = board.rows(Duration::ZERO).len();
    let rest = format!("  probe {}  {tracked} connection{}, {} active", probe(hint), if tracked == 1 { "" } else { "s" }, hint.connections);
    Line::from(vec![health, Span::styled(rest, paint.style(None))])
}

fn probe(hint: &Hint) -> &'static str {
    match hint.source {
        Source::Ebpf => "ebpf",
        Source::SockDiag => "sock_diag",
        Source::Local => "local",
        Source::None => "none",
    }
}

fn link(board: &Board, now: Duration, paint: Paint) -> Line<'static> {
    let warning = Paint { faded: false, ..paint }.style(Some(Colour::Red)).add_modifier(Modifier::BOLD);
    match &board.link {
        Link::Connecting => Line::from(format!("connecting to {}", board.url)),
        Link::Live if board.is_paused() => Line::styled(format!("paused  {}", board.url), Modifier::BOLD),
        Link::Live => Line::from(format!("live  {}", board.url)),
        Link::Lost { why, since } => {
            let gone = now.saturating_sub(*since).as_secs();
            Line::styled(format!("lost for {gone} s, trying again: {why}  {}", board.url), warning)
        }
    }
}

fn title_line(columns: &[(&Column, usize)]) -> String {
    let titles: Vec<String> = columns.iter().enumerate().map(|(i, (column, width))| fit(column.title, *width, i < 2)).collect();
    titles.join(" ")
}

fn row_line(row: &Row, columns: &[(&Column, usize)], paint: Paint) -> Line<'static> {
    let mut line = Line::default();
    for (index, (column, width)) in columns.iter().enumerate() {
        if index > 0 {
            line.push_span(" ");
        }
        let (text, colour) = (column.cell)(row);
        line.push_span(Span::styled(fit(&text, *width, index < 2), paint.style(colour)));
    }
    line
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use tokenflow_hint_api::Connection;

    use super::super::board::tests::{connection, event, three};
    use super::super::feed::{Kind, News};
    use super::*;

    fn drawn(board: &mut Board, width: u16, height: u16, now: Duration) -> TestBackend {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board, now, true)).unwrap();
        terminal.backend().clone()
    }

    #[test]
    fn at_120_columns() {
        insta::assert_snapshot!(drawn(&mut three(), 120, 8, Duration::from_secs(2)));
    }

    #[test]
    fn at_80_columns() {
        insta::assert_snapshot!(drawn(&mut three(), 80, 8, Duration::from_secs(2)));
    }

    #[test]
    fn at_80_columns_after_a_minute_of_trouble() {
        let mut board = three();
        for second in 0..64 {
            // The first sinks and recovers, the second rises.
            let (distance, now) = (f64::from(second - 32i32).abs() / 32.0, Duration::from_secs(second as u64));
            let moving = |cookie, health: f64, rate| Connection { delivery_rate_bytes_per_s: rate, ..connection(cookie, health, 0) };
            let changed = vec![moving(1, distance.min(1.0), (60_000.0 * distance) as u64), moving(3, 1.0, 1000 * second as u64)];
            board.hear(event(Kind::Change, changed, vec![]), now);
            board.sample(now);
        }
        insta::assert_snapshot!(drawn(&mut board, 80, 8, Duration::from_secs(64)));
    }

    #[test]
    fn at_40_columns() {
        insta::assert_snapshot!(drawn(&mut three(), 40, 8, Duration::from_secs(2)));
    }

    #[test]
    fn a_lost_server_is_said_and_its_data_fade() {
        let mut board = three();
        board.hear(News::Lost { why: "connection refused".to_owned() }, Duration::from_secs(2));
        let backend = drawn(&mut board, 80, 8, Duration::from_secs(9));
        insta::assert_snapshot!(backend);
        assert!(backend.buffer()[(0, 3)].modifier.contains(Modifier::DIM));
    }

    #[test]
    fn nothing_yet() {
        insta::assert_snapshot!(drawn(&mut Board::new("unix:/run/tokenflow.sock".to_owned()), 60, 5, Duration::ZERO));
    }

    #[test]
    fn tiny_screens_do_not_matter() {
        for (width, height) in [(1, 1), (5, 3), (20, 4), (3, 30)] {
            drawn(&mut three(), width, height, Duration::ZERO);
        }
    }

    #[test]
    fn as_text() {
        insta::assert_snapshot!(plain(&three(), Duration::ZERO));
    }

    #[test]
    fn trouble_is_red_unless_colours_are_unwanted() {
        let mut board = three();
        let mut terminal = Terminal::new(TestBackend::new(80, 8)).unwrap();
        for (coloured, expected) in [(true, Color::Red), (false, Color::Reset)] {
            terminal.draw(|frame| draw(frame, &mut board, Duration::ZERO, coloured)).unwrap();
            assert_eq!(terminal.backend().buffer()[(22, 3)].fg, expected);
        }
    }
}
