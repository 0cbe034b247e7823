//! Server-sent events (WHATWG HTML, section 9.2) from bytes that arrive in any pieces.
//! Memory is bounded: an event or line that outgrows the limit is an error, since nothing after it can be trusted.

/// What the stream held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SseItem {
    Event {
        /// `message` where the stream names none.
        event: String,
        data: String,
    },
    /// A line that begins with a colon; servers send them to keep connections alive.
    Comment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {limit} bytes")]
pub struct TooLarge {
    limit: usize,
}

/// Collects bytes into items.
#[derive(Debug)]
pub struct SseParser {
    /// The line being collected, without its end.
    line: Vec<u8>,
    event: String,
    /// Lines of data so far, each ended by a line feed.
    data: String,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_cr: bool,
    /// The next line is the stream's first, which may begin with a byte order mark.
    at_start: bool,
    limit: usize,
}

impl SseParser {
    /// No event may hold more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { line: Vec::new(), event: String::new(), data: String::new(), after_cr: false, at_start: true, limit }
    }

    /// Takes in the next piece and hands every item that it completes to `each`.
    ///
    /// # Errors
    /// When an event outgrows the limit.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(SseItem)) -> Result<(), TooLarge> {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|&byte| byte == b'\n' || byte == b'\r');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + self.data.len() + part.len() > self.limit {
                return Err(TooLarge { limit: self.limit });
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { return Ok(()) };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if let Some(item) = self.end_line() {
                each(item);
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Option<SseItem> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let mut line = &*text;
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => return Some(SseItem::Comment),
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<SseItem> {
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        data.pop()?;
        Some(SseItem::Event { event: if event.is_empty() { "message".to_owned() } else { event }, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<SseItem> {
        let mut parser = SseParser::new(1 << 20);
        let mut items = Vec::new();
        for piece in pieces {
            parser.push(piece, |item| items.push(item)).unwrap();
        }
        items
    }

    fn event(event: &str, data: &str) -> SseItem {
        SseItem::Event { event: event.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn reads_events_comments_and_every_line_end() {
        let items = parse(&[
            b"\xef\xbb\xbfevent: snapshot\r\ndata: {\"a\":\r\ndata:1}\r\nid: 4\r\n\r\n:keep-alive\n\ndata\rdata: x\r\rretry: 10\n\n",
        ]);
        assert_eq!(items, [event("snapshot", "{\"a\":\n1}"), SseItem::Comment, event("message", "\nx")]);
    }

    #[test]
    fn an_event_without_data_is_none() {
        assert_eq!(parse(&[b"event: change\n\ndata: y\n\n"]), [event("message", "y")]);
    }

    #[test]
    fn an_unfinished_event_waits() {
        assert_eq!(parse(&[b"data: y\n"]), []);
    }

    #[test]
    fn memory_is_bounded() {
        let mut parser = SseParser::new(1000);
        assert!((0..1000).any(|_| parser.push(b"data: 0123456789\n", |_| {}).is_err()));
        let mut parser = SseParser::new(1000);
        assert!((0..1000).any(|_| parser.push(b"0123456789", |_| {}).is_err()));
        assert!(parser.line.len() <= 1000);
    }

    fn stream_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"data: a b".to_vec()),
            Just(b"event:change".to_vec()),
            Just(b": note".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            vec(any::<u8>(), 0..6),
        ];
        vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn where_the_pieces_end_does_not_matter(bytes in stream_bytes(), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(parse(&pieces), parse(&[&bytes]));
        }

        #[test]
        fn what_was_written_is_read(events in vec(("[a-z]{1,8}", vec("[^\r\n]{0,20}", 1..4)), 0..6), line_end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")]) {
            let mut text = String::new();
            for (name, lines) in &events {
                text += &format!("event: {name}{line_end}");
                lines.iter().for_each(|line| text += &format!("data: {line}{line_end}"));
                text += line_end;
            }
            let expected: Vec<SseItem> = events.iter().map(|(name, lines)| event(name, &lines.join("\n"))).collect();
            prop_assert_eq!(parse(&[text.as_bytes()]), expected);
        }
    }
}
