//! Text that flows on the normal screen with one line of status below it, as bytes for the terminal. The terminal itself
//! wraps and scrolls, so scrollback and copying work; the cursor always rests at the end of the text, so that clearing
//! from it to the end of the screen takes the status away, whatever a resize made of it.

use unicode_width::UnicodeWidthChar;

const CLEAR_BELOW: &str = "\x1b[J";
/// Vertical tab: one row down, same column, scrolling at the bottom; unlike line feed no terminal driver rewrites it.
const DOWN: &str = "\x0b";
const UP: &str = "\x1b[A";
const SAVE_CURSOR: &str = "\x1b7";
const RESTORE_CURSOR: &str = "\x1b8";

/// The place where text flows.
pub struct Flow {
    width: usize,
    column: usize,
    /// The current line from its beginning, to find the column again after a resize.
    line: String,
    /// A character for the last column waits here for the next one: a cursor beyond the last column survives no movement.
    held: String,
}

impl Flow {
    /// Starts at the beginning of a row of `width` columns.
    pub fn new(width: usize) -> Self {
        Self { width: width.max(1), column: 0, line: String::new(), held: String::new() }
    }

    pub fn resize(&mut self, width: usize) {
        if self.width != width.max(1) {
            self.width = width.max(1);
            self.column = self.line.chars().fold(0, |column, c| after(column, c, self.width));
        }
    }

    /// More text, and the status below it.
    pub fn frame(&mut self, text: &str, status: &str) -> String {
        let text = self.take(text);
        format!("{CLEAR_BELOW}{text}{DOWN}{UP}{SAVE_CURSOR}\r{DOWN}{status}{RESTORE_CURSOR}")
    }

    /// The end of the text: no status any more, and the cursor at the beginning of a row.
    pub fn end(&mut self) -> String {
        let newline = if self.line.is_empty() { "" } else { "\r\n" };
        let held = std::mem::take(&mut self.held);
        (self.column, self.line) = (0, String::new());
        format!("{CLEAR_BELOW}{held}{newline}")
    }

    /// What to print for this text now: harmless, and never leaving the cursor beyond the last column.
    fn take(&mut self, text: &str) -> String {
        let mut out = std::mem::take(&mut self.held);
        // The character that may have to wait begins here.
        let mut last = 0;
        for c in text.chars() {
            for c in harmless(c, self.column) {
                if c == '\n' {
                    out.push_str("\r\n");
                    (self.column, self.line) = (0, String::new());
                    continue;
                }
                if c.width().unwrap_or(0) > 0 {
                    last = out.len();
                }
                out.push(c);
                self.line.push(c);
                self.column = after(self.column, c, self.width);
            }
        }
        if self.column >= self.width {
            self.held = out.split_off(last);
        }
        out
    }
}

/// The column after a character; `width` is the one beyond the last.
fn after(column: usize, c: char, width: usize) -> usize {
    match c.width().unwrap_or(0) {
        0 => column,
        columns if column + columns > width => columns.min(width),
        columns => column + columns,
    }
}

/// A model's text may not steer the terminal: tabs become spaces, other control characters their pictures.
fn harmless(c: char, column: usize) -> impl Iterator<Item = char> {
    let (c, count) = match c {
        '\n' => ('\n', 1),
        '\t' => (' ', 4 - column % 4),
        '\r' => ('\r', 0),
        '\0'..='\x1f' => (char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'), 1),
        '\x7f' => ('\u{2421}', 1),
        '\u{80}'..='\u{9f}' => ('?', 1),
        _ => (c, 1),
    };
    std::iter::repeat_n(c, count)
}

/// The same care for text of others that may get onto a terminal without a status line: answers, names, errors.
pub fn harmless_text(text: &str) -> String {
    text.chars().flat_map(|c| harmless(c, 0)).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use proptest::prelude::*;

    use super::*;

    const STATUS: &str = "Rate 1.0";

    #[test]
    fn what_others_wrote_does_not_steer_the_terminal() {
        assert_eq!(harmless_text("a\tb\r\n\x1b]0;title\x07\x7f\u{9b}2J é"), "a    b\n␛]0;title␇␡?2J é");
    }

    fn screen(rows: u16, columns: u16) -> vt100::Parser {
        vt100::Parser::new(NonZeroU16::new(rows).unwrap(), NonZeroU16::new(columns).unwrap(), 1000)
    }

    /// Everything that the terminal keeps, scrollback first.
    fn rows(parser: &mut vt100::Parser) -> Vec<String> {
        let (height, width) = parser.screen().size();
        parser.screen_mut().set_scrollback(usize::MAX);
        let mut rows = Vec::new();
        for offset in (0..=parser.screen().scrollback()).rev() {
            parser.screen_mut().set_scrollback(offset);
            let mut shown = parser.screen().rows(0, width.get());
            match offset {
                0 => rows.extend(shown.take(height.get().into())),
                _ => rows.extend(shown.next()),
            }
        }
        while rows.last().is_some_and(|row| row.is_empty()) {
            rows.pop();
        }
        rows
    }

    fn played(height: u16, width: u16, chunks: &[&str]) -> (Flow, vt100::Parser) {
        let mut flow = Flow::new(width.into());
        let mut parser = screen(height, width);
        for chunk in chunks {
            parser.process(flow.frame(chunk, &STATUS[..STATUS.len().min(width as usize - 1)]).as_bytes());
        }
        (flow, parser)
    }

    #[test]
    fn the_status_stays_below_the_text_and_goes_at_the_end() {
        let (mut flow, mut parser) = played(5, 20, &["Hello", ", world.\nAnd", " more"]);
        assert_eq!(rows(&mut parser), ["Hello, world.", "And more", STATUS]);
        assert_eq!(parser.screen().cursor_position(), (1, 8));
        parser.process(flow.end().as_bytes());
        assert_eq!(rows(&mut parser), ["Hello, world.", "And more"]);
        assert_eq!(parser.screen().cursor_position(), (2, 0));
    }

    #[test]
    fn text_scrolls_into_the_scrollback_without_the_status() {
        let lines: Vec<String> = (0..20).map(|i| format!("line {i}\n")).collect();
        let chunks: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (_, mut parser) = played(4, 20, &chunks);
        let mut expected: Vec<String> = (0..20).map(|i| format!("line {i}")).collect();
        expected.extend([String::new(), STATUS.to_owned()]);
        assert_eq!(rows(&mut parser), expected);
    }

    #[test]
    fn a_full_row_wraps_by_the_terminal_itself() {
        let (_, mut parser) = played(5, 10, &["0123456789", "", "ab"]);
        assert_eq!(rows(&mut parser), ["0123456789", "ab", STATUS]);
        assert!(parser.screen().row_wrapped(0), "copied as one line");
    }

    #[test]
    fn text_cannot_steer_the_terminal() {
        let (_, mut parser) = played(5, 40, &["a\x1b[2J\x1b]0;title\x07b\rc\td\u{9b}1m"]);
        assert_eq!(rows(&mut parser)[0], "a␛[2J␛]0;title␇bc   d?1m");
    }

    #[test]
    fn after_a_resize_the_text_goes_on_where_it_was() {
        let (mut flow, mut parser) = played(5, 20, &["0123456789"]);
        parser.screen_mut().set_size(NonZeroU16::new(5).unwrap(), NonZeroU16::new(12).unwrap());
        flow.resize(12);
        for chunk in ["ab", "cd"] {
            parser.process(flow.frame(chunk, STATUS).as_bytes());
        }
        assert_eq!(rows(&mut parser), ["0123456789ab", "cd", STATUS]);
    }

    proptest! {
        #[test]
        fn flowing_text_looks_like_printed_text(
            chunks in proptest::collection::vec("[a-c é漢字🦀\u{301}\n\t]{0,9}", 0..40),
            height in 2u16..8,
            width in 2u16..15,
        ) {
            let (mut flow, mut flowed) = played(height, width, &chunks.iter().map(String::as_str).collect::<Vec<_>>());
            flowed.process(flow.end().as_bytes());
            let mut printed = screen(height, width);
            let mut whole = Flow::new(width.into());
            printed.process(format!("{}{}", whole.take(&chunks.concat()), whole.end()).as_bytes());
            prop_assert_eq!(rows(&mut flowed), rows(&mut printed));
        }
    }
}
