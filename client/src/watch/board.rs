//! What the table shows: the hint server's latest word, how to look at it, and whether the server is still there.
//! Plain state: time is passed in as the time since the start.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use tokenflow_hint_api::{Connection, Hint};

use super::feed::{Event, Kind, News};
use super::trace::Trace;

/// How often a connection's past grows.
const SAMPLE: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The most troubled first.
    #[default]
    Health,
    Undelivered,
    Srtt,
    Rate,
    Peer,
}

impl Sort {
    pub fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Undelivered => "undelivered",
            Self::Srtt => "srtt",
            Self::Rate => "delivery rate",
            Self::Peer => "peer",
        }
    }

    pub fn next(self) -> Self {
        match self {
            Self::Health => Self::Undelivered,
            Self::Undelivered => Self::Srtt,
            Self::Srtt => Self::Rate,
            Self::Rate => Self::Peer,
            Self::Peer => Self::Health,
        }
    }

    fn order(self, a: &Connection, b: &Connection) -> Ordering {
        let trouble = || a.health.total_cmp(&b.health).then(b.undelivered_bytes.cmp(&a.undelivered_bytes));
        let first = match self {
            Self::Health => Ordering::Equal,
            Self::Undelivered => b.undelivered_bytes.cmp(&a.undelivered_bytes),
            Self::Srtt => b.srtt_us.cmp(&a.srtt_us),
            Self::Rate => b.delivery_rate_bytes_per_s.cmp(&a.delivery_rate_bytes_per_s),
            Self::Peer => a.peer.cmp(&b.peer),
        };
        first.then_with(trouble).then(a.cookie.cmp(&b.cookie))
    }
}

/// How things stand with the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    Connecting,
    Live,
    Lost { why: String, since: Duration },
}

/// One moment's data.
#[derive(Clone, Debug, Default)]
pub struct Data {
    pub hint: Option<Hint>,
    connections: HashMap<u64, Connection>,
    /// The last minute of each of them.
    traces: HashMap<u64, Trace>,
    sampled: Duration,
    /// The server's last sign of life: until then nothing here had changed.
    confirmed: Duration,
}

/// A connection with its age as of now.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    pub connection: &'a Connection,
    pub age: Duration,
    pub trace: Option<&'a Trace>,
    /// The moment that is shown.
    pub now: Duration,
}

#[derive(Debug)]
pub struct Board {
    pub url: String,
    pub link: Link,
    live: Data,
    /// The picture that was stopped, and when.
    paused: Option<(Data, Duration)>,
    pub sort: Sort,
    /// The first row shown.
    pub offset: usize,
    /// Rows that fit the screen, as last drawn.
    pub page: usize,
}

impl Board {
    pub fn new(url: String) -> Self {
        Self { url, link: Link::Connecting, live: Data::default(), paused: None, sort: Sort::default(), offset: 0, page: 1 }
    }

    pub fn hear(&mut self, news: News, now: Duration) {
        if !matches!(news, News::Lost { .. }) {
            self.live.confirmed = now;
        }
        match news {
            News::Alive => {}
            // The first loss is the one that tells why and since when; failed attempts to come back only why.
            News::Lost { why } => {
                let since = if let Link::Lost { since, .. } = self.link { since } else { now };
                self.link = Link::Lost { why, since };
            }
            News::Event(Event { kind, event }) => {
                self.link = Link::Live;
                self.live.hint = Some(event.hint);
                if kind == Kind::Snapshot {
                    self.live.connections.clear();
                }
                for cookie in event.removed {
                    self.live.connections.remove(&cookie);
                }
                self.live.connections.extend(event.changed.into_iter().map(|connection| (connection.cookie, connection)));
                let Data { connections, traces, .. } = &mut self.live;
                traces.retain(|cookie, _| connections.contains_key(cookie));
            }
        }
    }

    /// Adds to the past of every connection when it is time; nothing while the server is gone.
    pub fn sample(&mut self, now: Duration) {
        let Data { connections, traces, sampled, .. } = &mut self.live;
        if self.link != Link::Live || (now < *sampled + SAMPLE && !traces.is_empty()) {
            return;
        }
        *sampled = now;
        for (cookie, connection) in connections {
            traces.entry(*cookie).or_default().add(now, connection.health, connection.delivery_rate_bytes_per_s as f64);
        }
    }

    pub fn toggle_pause(&mut self, now: Duration) {
        self.paused = match self.paused.take() {
            Some(_) => None,
            None => Some((self.live.clone(), now)),
        };
    }

    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    pub fn scroll(&mut self, rows: isize) {
        let last = self.shown().connections.len().saturating_sub(self.page);
        self.offset = self.offset.saturating_add_signed(rows).min(last);
    }

    pub fn hint(&self) -> Option<&Hint> {
        self.shown().hint.as_ref()
    }

    /// Sorted.
    pub fn rows<'a>(&'a self, now: Duration) -> Vec<Row<'a>> {
        let now = self.paused.as_ref().map_or(now, |(_, at)| *at);
        let data = self.shown();
        let unheard = now.saturating_sub(data.confirmed);
        let row = |connection: &'a Connection| Row {
            connection,
            age: Duration::from_millis(connection.age_ms) + unheard,
            trace: data.traces.get(&connection.cookie),
            now,
        };
        let mut rows: Vec<Row> = data.connections.values().map(row).collect();
        rows.sort_by(|a, b| self.sort.order(a.connection, b.connection));
        rows
    }

    fn shown(&self) -> &Data {
        self.paused.as_ref().map_or(&self.live, |(data, _)| data)
    }
}

#[cfg(test)]
pub mod tests {
    use tokenflow_hint_api::{HintEvent, HintMetrics, Source, Terms};

    use super::*;

    pub fn connection(cookie: u64, health: f64, undelivered_bytes: u64) -> Connection {
        let terms = Terms { delay: 1.0, loss: (health + 0.3).min(1.0), queue: health };
        Connection {
            cookie,
            local: "10.0.0.1:8000".parse().unwrap(),
            peer: format!("10.0.0.{}:{}", 2 + cookie, 40000 + cookie).parse().unwrap(),
            health,
            terms,
            token_rate: (health < 1.0).then_some(50.0 * health),
            srtt_us: 20 * 10u32.pow(cookie as u32),
            min_rtt_us: 12_043,
            retransmits: 3 * cookie,
            undelivered_bytes,
            delivery_rate_bytes_per_s: 61_240,
            age_ms: 37,
            source: Source::Ebpf,
        }
    }

    pub fn event(kind: Kind, changed: Vec<Connection>, removed: Vec<u64>) -> News {
        let metrics = HintMetrics { rtt: 48_211, ..HintMetrics::default() };
        let hint =
            Hint { health_factor: 0.83, health: 0.83, token_rate: None, metrics, source: Source::Ebpf, connections: 2, age_ms: 37, seq: 1 };
        News::Event(Event { kind, event: HintEvent { hint, changed, removed, remote: Vec::new(), remote_removed: Vec::new() } })
    }

    pub fn three() -> Board {
        let mut board = Board::new("http://127.0.0.1:5000".to_owned());
        let connections = vec![connection(1, 1.0, 0), connection(2, 0.04, 43_000), connection(3, 0.62, 1_200_000)];
        board.hear(event(Kind::Snapshot, connections, vec![]), Duration::ZERO);
        board
    }

    fn cookies(board: &Board) -> Vec<u64> {
        board.rows(Duration::ZERO).iter().map(|row| row.connection.cookie).collect()
    }

    #[test]
    fn trouble_comes_first_and_other_orders_are_one_key_away() {
        let mut board = three();
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push((board.sort.name(), cookies(&board)));
            board.sort = board.sort.next();
        }
        assert_eq!(board.sort, Sort::Health);
        assert_eq!(seen[0], ("health", vec![2, 3, 1]));
        assert_eq!(seen[1], ("undelivered", vec![3, 2, 1]));
        assert_eq!(seen[2], ("srtt", vec![3, 2, 1]));
        assert_eq!(seen[4], ("peer", vec![1, 2, 3]));
    }

    #[test]
    fn changes_add_replace_and_remove_and_a_snapshot_starts_over() {
        let mut board = three();
        board.hear(event(Kind::Change, vec![connection(1, 0.01, 5), connection(4, 0.5, 0)], vec![3]), Duration::from_secs(1));
        assert_eq!(cookies(&board), [1, 2, 4]);
        board.hear(event(Kind::Snapshot, vec![connection(9, 1.0, 0)], vec![]), Duration::from_secs(2));
        assert_eq!(cookies(&board), [9]);
    }

    #[test]
    fn ages_grow_while_nothing_is_heard() {
        let mut board = three();
        assert_eq!(board.rows(Duration::from_secs(5))[0].age, Duration::from_millis(5037));
        board.hear(News::Alive, Duration::from_secs(4));
        assert_eq!(board.rows(Duration::from_secs(5))[0].age, Duration::from_millis(1037));
        board.hear(News::Lost { why: "gone".to_owned() }, Duration::from_secs(5));
        assert_eq!(board.rows(Duration::from_secs(9))[0].age, Duration::from_millis(5037));
    }

    #[test]
    fn a_pause_stops_the_picture_and_nothing_else() {
        let mut board = three();
        board.toggle_pause(Duration::from_secs(1));
        board.hear(event(Kind::Change, vec![], vec![1, 2]), Duration::from_secs(2));
        assert_eq!(cookies(&board), [2, 3, 1]);
        assert_eq!(board.rows(Duration::from_secs(60))[0].age, Duration::from_millis(1037));
        board.toggle_pause(Duration::from_secs(3));
        assert_eq!(cookies(&board), [3]);
    }

    #[test]
    fn the_past_grows_while_the_server_is_there_and_goes_with_its_connection() {
        let mut board = three();
        let lows = |board: &Board, now| -> Vec<_> {
            board.rows(now).iter().map(|row| row.trace.map(|trace| trace.health(now).into_iter().flatten().collect::<Vec<_>>())).collect()
        };
        board.sample(Duration::ZERO);
        board.hear(event(Kind::Change, vec![connection(1, 0.5, 0)], vec![2]), Duration::from_secs(8));
        board.sample(Duration::from_secs(8));
        assert_eq!(lows(&board, Duration::from_secs(9)), [Some(vec![1.0, 0.5]), Some(vec![0.62, 0.62])]);
        board.toggle_pause(Duration::from_secs(9));
        board.hear(News::Lost { why: "gone".to_owned() }, Duration::from_secs(10));
        board.sample(Duration::from_secs(20));
        for _ in 0..2 {
            assert_eq!(lows(&board, Duration::from_secs(21))[0], Some(vec![1.0, 0.5]), "paused or lost, nothing is added");
            board.toggle_pause(Duration::from_secs(21));
        }
    }

    #[test]
    fn a_loss_keeps_the_data_and_its_beginning() {
        let mut board = three();
        for (at, why) in [(5, "it ended the stream"), (6, "connection refused")] {
            board.hear(News::Lost { why: why.to_owned() }, Duration::from_secs(at));
        }
        assert_eq!(board.link, Link::Lost { why: "connection refused".to_owned(), since: Duration::from_secs(5) });
        assert_eq!(cookies(&board).len(), 3);
    }

    #[test]
    fn scrolling_stays_within_the_rows() {
        let mut board = three();
        board.page = 2;
        board.scroll(10);
        assert_eq!(board.offset, 1);
        board.scroll(isize::MIN);
        assert_eq!(board.offset, 0);
    }
}
