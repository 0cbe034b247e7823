//! A conversation at a terminal: a line is asked, its answer streams, and all of it is the context of the next one.
//! Ctrl-C stops an answer, and twice in a row leaves, as do Ctrl-D and /quit.

use std::io::{self, Write};

use anyhow::Context;
use futures_util::FutureExt;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::answer::{Answer, Ending, Session};
use super::flow::harmless_text;
use super::terminal::SavedModes;
use super::wire::Message;
use super::{Front, Question};
use crate::palette::{Colour, colour_wanted};
use crate::signals::Signal;

const HELP: &str =
    "/clear   forget the conversation so far\n/help    this\n/quit    leave (also Ctrl-D, or Ctrl-C twice)\nCtrl-C stops an answer.";

/// Something said at the prompt, or the wish to go.
enum Said {
    Line(String),
    Interrupt,
    Leave,
    Stop(Signal),
}

pub async fn run(session: &mut Session, question: &Question, front: Front) -> anyhow::Result<u8> {
    let mut editor = Some(DefaultEditor::new().context("cannot read from the terminal")?);
    let mut messages: Vec<Message> = question.system.clone();
    let mut interrupted = false;
    say(&format!("{} at {}. /help lists commands.", question.model, session.server))?;
    loop {
        let said = prompt(session, &mut editor).await?;
        let line = match said {
            Said::Leave => return Ok(0),
            Said::Stop(signal) => return Ok(signal.exit_code()),
            Said::Interrupt if interrupted => return Ok(Signal::Interrupt.exit_code()),
            Said::Interrupt => {
                interrupted = true;
                say("Ctrl-C again leaves.")?;
                continue;
            }
            Said::Line(line) => line,
        };
        interrupted = false;
        match line.trim() {
            "" => continue,
            "/quit" | "/exit" => return Ok(0),
            "/help" => say(HELP)?,
            "/clear" => {
                messages.clone_from(&question.system);
                say("Forgotten.")?;
            }
            command if is_command(command) => say(&format!("{command} is no command; /help lists them."))?,
            text => {
                messages.push(Message::user(text));
                let Answer { text, ending } = session.answer(&question.request(&messages), front.display().as_mut()).await?;
                if front == Front::Terminal {
                    say("\n")?;
                }
                match ending {
                    Ending::Complete => conclude(&mut messages, &text),
                    Ending::Stopped(Signal::Interrupt) => {
                        interrupted = true;
                        conclude(&mut messages, &text);
                    }
                    Ending::Stopped(signal) => return Ok(signal.exit_code()),
                    Ending::Failed(error) => {
                        conclude(&mut messages, "");
                        eprintln!("error: {}", harmless_text(&error.to_string()));
                    }
                    Ending::OutputClosed => return Ok(0),
                }
            }
        }
    }
}

/// Adds the answer to the last question. Without one the question may be asked again, so it is not part of the conversation yet.
fn conclude(messages: &mut Vec<Message>, answer: &str) {
    if answer.is_empty() {
        messages.pop();
    } else {
        messages.push(Message::assistant(answer));
    }
}

/// Reads a line without holding up the signals; the editor is away meanwhile.
async fn prompt(session: &mut Session, editor: &mut Option<DefaultEditor>) -> anyhow::Result<Said> {
    // Pressed when the answer had just ended: not yet a key that the editor would see.
    match session.signals.next().now_or_never() {
        Some(Signal::Interrupt) => return Ok(Said::Interrupt),
        Some(signal) => return Ok(Said::Stop(signal)),
        None => {}
    }
    let mut away = editor.take().context("the line editor is gone")?;
    let modes = SavedModes::new().ok();
    let reading = tokio::task::spawn_blocking(move || {
        let line = away.readline("> ");
        if let Ok(line) = &line {
            let _ = away.add_history_entry(line);
        }
        (away, line)
    });
    tokio::select! {
        read = reading => {
            let (back, line) = read.context("cannot read from the terminal")?;
            *editor = Some(back);
            match line {
                Ok(line) => Ok(Said::Line(line)),
                Err(ReadlineError::Interrupted) => Ok(Said::Interrupt),
                Err(ReadlineError::Eof) => Ok(Said::Leave),
                Err(error) => Err(error).context("cannot read from the terminal"),
            }
        }
        signal = session.signals.next() => {
            if let Some(modes) = modes {
                modes.restore_after_editor().await;
            }
            println!();
            Ok(Said::Stop(signal))
        }
    }
}

/// `/word` alone; a path or a sentence is a question.
fn is_command(line: &str) -> bool {
    line.strip_prefix('/').is_some_and(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic()))
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in harmless_text(text).lines() {
        if colour_wanted() && !line.is_empty() {
            writeln!(out, "{}", Colour::Dim.paint(line))?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lone_word_is_a_command() {
        for (line, expected) in [("/qiut", true), ("/etc/passwd", false), ("/tmp is full, why?", false), ("/", false), ("quit", false)] {
            assert_eq!(is_command(line), expected, "{line}");
        }
    }

    #[test]
    fn a_question_without_an_answer_is_taken_back() {
        let mut messages = vec![Message::system("Be brief"), Message::user("One?")];
        conclude(&mut messages, "");
        assert_eq!(messages, [Message::system("Be brief")]);
        messages.push(Message::user("Two?"));
        conclude(&mut messages, "Yes");
        assert_eq!(messages, [Message::system("Be brief"), Message::user("Two?"), Message::assistant("Yes")]);
    }
}
