//! The columns of the table: what each shows of a connection, how wide it is, and which give way on a narrow screen.

use std::time::Duration;

use super::board::Row;
use super::trace::POINTS;
use crate::palette::{Colour, health_bar, health_colour, spark};

pub struct Column {
    pub title: &'static str,
    pub width: usize,
    /// The lower, the longer it stays.
    rank: u8,
    pub cell: fn(&Row) -> (String, Option<Colour>),
}

/// An IPv6 address with its port.
const WIDEST_PEER: usize = 47;

/// Of the column to its left.
const LAST_MINUTE: &str = "last 60s";

pub const COLUMNS: [Column; 14] = [
    Column { title: "peer", width: 21, rank: 0, cell: |row| (row.connection.peer.to_string(), None) },
    Column { title: "health", width: 10, rank: 1, cell: |row| health(row.connection.health, 5) },
    Column { title: LAST_MINUTE, width: POINTS, rank: 3, cell: |row| health_line(row) },
    Column { title: "delay", width: 5, rank: 9, cell: |row| term(row.connection.terms.delay) },
    Column { title: "loss", width: 5, rank: 10, cell: |row| term(row.connection.terms.loss) },
    Column { title: "queue", width: 5, rank: 11, cell: |row| term(row.connection.terms.queue) },
    Column { title: "srtt", width: 7, rank: 2, cell: |row| (micros(row.connection.srtt_us), None) },
    Column { title: "min rtt", width: 7, rank: 13, cell: |row| (micros(row.connection.min_rtt_us), None) },
    Column { title: "retrans", width: 7, rank: 8, cell: |row| (row.connection.retransmits.to_string(), None) },
    Column { title: "undelivered", width: 11, rank: 4, cell: |row| (bytes(row.connection.undelivered_bytes), None) },
    Column { title: "delivery", width: 9, rank: 5, cell: |row| (bytes(row.connection.delivery_rate_bytes_per_s) + "/s", None) },
    Column { title: LAST_MINUTE, width: POINTS, rank: 6, cell: |row| (rate_line(row), None) },
    Column { title: "tok/s", width: 7, rank: 7, cell: |row| (tokens(row.connection.token_rate), None) },
    Column { title: "age", width: 6, rank: 12, cell: |row| (seconds(row.age), None) },
];

impl Column {
    /// Whether it shows a past, which a picture of one moment has not.
    pub fn is_history(&self) -> bool {
        self.title == LAST_MINUTE
    }
}

/// The columns that fit, in their order, with their widths; the peer takes what is left over, as far as it needs it.
pub fn fitting(width: usize) -> Vec<(&'static Column, usize)> {
    let mut ranked: Vec<&Column> = COLUMNS.iter().collect();
    ranked.sort_by_key(|column| column.rank);
    let mut left = width + 1;
    let count = ranked.iter().take_while(|column| left.checked_sub(column.width + 1).inspect(|rest| left = *rest).is_some()).count();
    let spare = if count == COLUMNS.len() { left } else { 0 };
    let shown = COLUMNS.iter().filter(|column| usize::from(column.rank) < count.max(1));
    shown.map(|column| (column, if column.rank == 0 { (column.width + spare).min(WIDEST_PEER) } else { column.width })).collect()
}

/// `text` in `width` columns: the first column to the left, numbers to the right; what is too long loses its middle.
pub fn fit(text: &str, width: usize, left: bool) -> String {
    let length = text.chars().count();
    if length > width {
        let tail = width.saturating_sub(1) / 2;
        let head = width.saturating_sub(1) - tail;
        let (start, end) = (text.chars().take(head), text.chars().skip(length - tail));
        return start.chain("…".chars().take(width)).chain(end).collect();
    }
    if left { format!("{text:<width$}") } else { format!("{text:>width$}") }
}

fn health(health: f64, bar: usize) -> (String, Option<Colour>) {
    (format!("{health:.2} {}", health_bar(health, bar)), Some(health_colour(health)))
}

/// The lowest health of each part of the minute, in the colour of the lowest of all; blank where nothing was seen.
fn health_line(row: &Row) -> (String, Option<Colour>) {
    let points = row.trace.map(|trace| trace.health(row.now)).unwrap_or_default();
    let lowest = points.iter().flatten().copied().reduce(f64::min);
    (line(&points, 1.0), lowest.map(health_colour))
}

/// Delivery rates, as shares of the minute's highest.
fn rate_line(row: &Row) -> String {
    let points = row.trace.map(|trace| trace.rate(row.now)).unwrap_or_default();
    line(&points, points.iter().flatten().copied().fold(1.0, f64::max))
}

fn line(points: &[Option<f64>], top: f64) -> String {
    points.iter().map(|point| point.map_or(' ', |value| spark(value / top))).collect()
}

fn term(value: f64) -> (String, Option<Colour>) {
    (format!("{value:.2}"), (value < 1.0).then(|| health_colour(value)))
}

fn micros(us: u32) -> String {
    match us {
        0 => "-".to_owned(),
        1..1_000 => format!("{us} µs"),
        1_000..100_000 => format!("{:.1} ms", f64::from(us) / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", f64::from(us) / 1e3),
        _ => format!("{:.2} s", f64::from(us) / 1e6),
    }
}

/// Three digits and a unit, or two and a decimal.
fn bytes(count: u64) -> String {
    if count < 1_000 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "";
    for next in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        value /= 1e3;
        unit = next;
        if value < 999.5 {
            break;
        }
    }
    if value < 99.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// No limit by the network has no number.
fn tokens(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate < 999.95 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

fn seconds(age: Duration) -> String {
    match age.as_secs() {
        ..100 => format!("{:.1} s", age.as_secs_f64()),
        seconds @ ..6_000 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_never_take_more_than_the_width_and_the_peer_always_shows() {
        for width in 0..250 {
            let columns = fitting(width);
            let total: usize = columns.iter().map(|(_, width)| width + 1).sum::<usize>() - 1;
            assert!(total <= width || columns.len() == 1, "{total} in {width}");
            assert_eq!(columns[0].0.title, "peer");
        }
        assert_eq!(fitting(130).len(), COLUMNS.len());
        let titles = |width| fitting(width).iter().map(|(column, _)| column.title).collect::<Vec<_>>().join(",");
        assert_eq!(titles(40), "peer,health,srtt");
        assert_eq!(titles(80), "peer,health,last 60s,srtt,undelivered,delivery,last 60s");
        assert!(titles(120).contains("delay,loss,queue"));
    }

    #[test]
    fn numbers_are_short_and_have_units() {
        assert_eq!([0, 20, 1_000, 48_211, 125_000, 2_400_000].map(micros), ["-", "20 µs", "1.0 ms", "48.2 ms", "125 ms", "2.40 s"]);
        assert_eq!([999, 43_000, 99_960, 1_200_000, 289_000_000].map(bytes), ["999 B", "43.0 kB", "100 kB", "1.2 MB", "289 MB"]);
        assert_eq!([0, 99, 100, 7200].map(|s| seconds(Duration::from_secs(s))), ["0.0 s", "99.0 s", "1 min", "2 h"]);
        for power in 0..20 {
            for value in [10u64.pow(power), 10u64.pow(power) - 1, 9994 * 10u64.pow(power.min(15))] {
                assert!(bytes(value).len() <= "delivery ".len() - "/s".len(), "{}", bytes(value));
            }
        }
    }

    #[test]
    fn what_is_too_long_loses_its_middle() {
        assert_eq!(fit("[2001:db8::1234:5678]:54321", 21, true), "[2001:db8:…678]:54321");
        assert_eq!((fit("abc", 5, true), fit("abc", 5, false)), ("abc  ".to_owned(), "  abc".to_owned()));
        assert_eq!((fit("abc", 1, true), fit("abc", 0, true)), ("…".to_owned(), String::new()));
    }
}
