//! Reads a trace line by line, trusting nothing in it: every error names its line, and no line may be longer than a large host's round.

use std::io::{self, BufRead, Read};

use super::{Header, Round, VERSION, format::FORMAT};

/// A round of sixty thousand connections is about 15 MB.
const MAX_LINE_BYTES: u64 = 32 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("line {line}: {error}")]
    Io { line: u64, error: io::Error },
    #[error("line {line}: {error}")]
    Json { line: u64, error: serde_json::Error },
    #[error("it is not a trace: its first line must be {{\"format\":\"{FORMAT}\",\"version\":{VERSION}}}")]
    NoTrace,
    #[error("it has version {0}; this program reads version {VERSION}")]
    Version(u32),
    #[error("line {line}: longer than {MAX_LINE_BYTES} bytes")]
    TooLong { line: u64 },
    #[error("line {line}: 'at_us' is {at_us}, before the line above")]
    TimeRunsBack { line: u64, at_us: u64 },
}

/// The rounds of a trace. A last line without an end that does not parse is what a recorder was killed in, and ends the trace.
pub struct TraceReader<R> {
    input: R,
    header: Header,
    line: u64,
    last_us: u64,
    ended: bool,
}

impl<R: BufRead> TraceReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is not a trace, or one of another version.
    pub fn new(mut input: R) -> Result<Self, TraceError> {
        let line = read_line(&mut input, 1)?.ok_or(TraceError::NoTrace)?;
        let header: Header = serde_json::from_slice(&line).map_err(|_| TraceError::NoTrace)?;
        if header.format != FORMAT {
            return Err(TraceError::NoTrace);
        }
        if header.version != VERSION {
            return Err(TraceError::Version(header.version));
        }
        Ok(Self { input, header, line: 1, last_us: 0, ended: false })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    fn read(&mut self) -> Result<Option<Round>, TraceError> {
        self.line += 1;
        let line = self.line;
        let Some(bytes) = read_line(&mut self.input, line)? else { return Ok(None) };
        let round: Round = match serde_json::from_slice(&bytes) {
            Ok(round) => round,
            Err(_) if !bytes.ends_with(b"\n") => return Ok(None),
            Err(error) => return Err(TraceError::Json { line, error }),
        };
        if round.at_us < self.last_us {
            return Err(TraceError::TimeRunsBack { line, at_us: round.at_us });
        }
        self.last_us = round.at_us;
        Ok(Some(round))
    }
}

/// The next line with its end; `None` where there is none.
fn read_line(input: &mut impl BufRead, line: u64) -> Result<Option<Vec<u8>>, TraceError> {
    let mut bytes = Vec::new();
    input.take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes).map_err(|error| TraceError::Io { line, error })?;
    if bytes.len() as u64 > MAX_LINE_BYTES {
        return Err(TraceError::TooLong { line });
    }
    Ok((!bytes.is_empty()).then_some(bytes))
}

impl<R: BufRead> Iterator for TraceReader<R> {
    type Item = Result<Round, TraceError>;

    /// Nothing comes after an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let round = self.read().transpose();
        self.ended = !matches!(round, Some(Ok(_)));
        round
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};
    use tokenflow_hint_api::Source;

    use super::{super::TraceLook, *};

    const HEADER: &str = "{\"format\":\"tokenflow-trace\",\"version\":1}\n";

    fn read(text: &[u8]) -> Result<Vec<Round>, TraceError> {
        TraceReader::new(text)?.collect()
    }

    fn error(text: &str) -> String {
        read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        assert!(error("").contains("not a trace"));
        assert!(error("hello\n").contains("not a trace"));
        assert!(error("{\"format\":\"x\",\"version\":1}\n").contains("not a trace"));
        assert!(error("{\"format\":\"tokenflow-trace\",\"version\":2}\n").contains("version 2"));
        let line = "{\"at_us\":9,\"source\":\"ebpf\"}\n";
        assert!(error(&format!("{HEADER}{line}{{\"at_us\":-1}}\n")).starts_with("line 3: "));
        assert!(error(&format!("{HEADER}{line}{{\"at_us\":8,\"source\":\"ebpf\"}}\n")).contains("line 3: 'at_us' is 8"));
    }

    #[test]
    fn what_a_recorder_was_killed_in_is_the_end() {
        let line = "{\"at_us\":9,\"source\":\"ebpf\",\"added_later\":[1]}\n";
        assert_eq!(read(format!("{HEADER}{line}{{\"at_us\":1").as_bytes()).unwrap().len(), 1);
        assert_eq!(read(format!("{HEADER}{}", line.trim_end()).as_bytes()).unwrap().len(), 1, "whole, but for its end");
    }

    fn any_source() -> impl Strategy<Value = Source> {
        prop_oneof![Just(Source::Ebpf), Just(Source::SockDiag), Just(Source::Local), Just(Source::None)]
    }

    prop_compose! {
        fn any_look()(
            (cookie, local, peer) in any::<(u64, Option<std::net::SocketAddrV4>, Option<std::net::SocketAddr>)>(), source in option::of(any_source()),
            (srtt_us, min_rtt_us, data_segs_out, retransmits, rtos) in any::<(u32, u32, u64, u64, u64)>(),
            (bytes_acked, undelivered_bytes, delivery_rate_bytes_per_s, app_limited) in any::<(u64, u64, u64, Option<bool>)>(),
        ) -> TraceLook {
            // The scope and flow of an IPv6 socket address have no textual form.
            let peer = peer.map(|peer| std::net::SocketAddr::new(peer.ip(), peer.port()));
            TraceLook {
                cookie, local: local.map(Into::into), peer, source, srtt_us, min_rtt_us, data_segs_out, retransmits, rtos, bytes_acked,
                undelivered_bytes, delivery_rate_bytes_per_s, app_limited,
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(rounds in vec((any::<u32>(), any_source(), any::<bool>(), vec(any_look(), 0..4)), 0..8)) {
            let (mut text, mut at_us) = (HEADER.to_owned(), 0);
            let mut written = Vec::new();
            for (gap, source, failed, looks) in rounds {
                at_us += u64::from(gap);
                let round = Round { at_us, source, failed, looks };
                text += &serde_json::to_string(&round).unwrap();
                text += "\n";
                written.push(round);
            }
            prop_assert_eq!(read(text.as_bytes()).unwrap(), written);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200), text in "(\\{\"at_us\":[0-9]{1,25},\"source\":\"(ebpf|x)\",\"looks\":\\[.{0,20}\\]\\}\n?){0,4}") {
            let _ = read(&bytes);
            let _ = read(&[HEADER.as_bytes(), &bytes].concat());
            let _ = read(format!("{HEADER}{text}").as_bytes());
        }
    }
}
