//! An answer on a terminal: text as it comes, the status line below it, some thirty frames a second. Typing is not echoed
//! into the text, and whatever happens the terminal is as before when this is dropped.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use super::answer::{Display, Ending};
use super::flow::Flow;
use super::progress::Progress;
use super::status::status_line;
use super::stream::Chunk;
use crate::palette::{Colour, colour_wanted};

const FRAME: Duration = Duration::from_millis(33);
/// Terminals that know it show a frame at once; others ignore it (<https://gist.github.com/christianparpart/d8a62cc1ab659194337d73e399004036>).
const BEGIN_FRAME: &str = "\x1b[?2026h";
const END_FRAME: &str = "\x1b[?2026l";

/// Whether standard output is a terminal that can be drawn on.
pub fn is_drawable() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Standard output, as the place of one answer.
pub struct Terminal {
    flow: Flow,
    /// Arrived since the last frame.
    pending: String,
    status: String,
    width: usize,
    coloured: bool,
    _quiet: Option<Quiet>,
}

impl Terminal {
    pub fn new() -> Self {
        let width = columns();
        let _quiet = Quiet::new().ok();
        Self { flow: Flow::new(width), pending: String::new(), status: String::new(), width, coloured: colour_wanted(), _quiet }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Display for Terminal {
    fn period(&self) -> Duration {
        FRAME
    }

    fn chunk(&mut self, _: Duration, chunk: &Chunk, _: &Progress) -> io::Result<()> {
        self.pending.push_str(&chunk.text);
        Ok(())
    }

    fn tick(&mut self, now: Duration, progress: &Progress) -> io::Result<()> {
        let width = columns();
        let status = status_line(now, progress, width.saturating_sub(1), self.coloured);
        if self.pending.is_empty() && status == self.status && width == self.width {
            return Ok(());
        }
        self.flow.resize(width);
        let text = std::mem::take(&mut self.pending);
        write(&format!("{BEGIN_FRAME}{}{END_FRAME}", self.flow.frame(&text, &status)))?;
        (self.status, self.width) = (status, width);
        Ok(())
    }

    fn end(&mut self, now: Duration, progress: &Progress, ending: &Ending) -> io::Result<()> {
        let text = std::mem::take(&mut self.pending);
        let mut last = self.flow.frame(&text, "");
        last.push_str(&self.flow.end());
        if progress.started() {
            let stopped = if matches!(ending, Ending::Stopped(_)) { ", stopped" } else { "" };
            let summary = format!("{}{stopped}", progress.summary(now));
            last.push_str(&if self.coloured { Colour::Dim.paint(&summary) } else { summary });
            last.push_str("\r\n");
        }
        write(&format!("{BEGIN_FRAME}{last}{END_FRAME}"))
    }
}

/// A terminal that does not know says 0.
fn columns() -> usize {
    termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col.into()).filter(|columns| *columns > 0).unwrap_or(80)
}

/// In one piece: the standard library's buffer would cut a frame at its last newline.
fn write(frame: &str) -> io::Result<()> {
    File::from(io::stdout().as_fd().try_clone_to_owned()?).write_all(frame.as_bytes())
}

/// The terminal's modes as found; put back when dropped.
pub struct SavedModes {
    tty: File,
    modes: Termios,
}

impl SavedModes {
    pub fn new() -> io::Result<Self> {
        let tty = File::open("/dev/tty")?;
        let modes = termios::tcgetattr(&tty)?;
        Ok(Self { tty, modes })
    }
}

impl SavedModes {
    /// Puts the modes back although a line editor is at work in another thread; it sets its own only once, at its beginning,
    /// which may be about to happen.
    pub async fn restore_after_editor(self) {
        for _ in 0..50 {
            if termios::tcgetattr(&self.tty).is_ok_and(|modes| !modes.local_modes.contains(LocalModes::ICANON)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for SavedModes {
    fn drop(&mut self) {
        // At exit there is nobody left to tell.
        let _ = termios::tcsetattr(&self.tty, OptionalActions::Now, &self.modes);
    }
}

/// While this lives keys are not echoed; Ctrl-C still is a signal, and what was typed stays for the next prompt.
struct Quiet {
    _saved: SavedModes,
}

impl Quiet {
    fn new() -> io::Result<Self> {
        let saved = SavedModes::new()?;
        let mut modes = saved.modes.clone();
        modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
        termios::tcsetattr(&saved.tty, OptionalActions::Now, &modes)?;
        Ok(Self { _saved: saved })
    }
}
