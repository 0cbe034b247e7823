//! The page in a real browser (Debian's `chromium`): what it shows, on a wide screen and on a phone, dark and light. Screenshots are kept in
//! `target/screenshots`.

#[path = "common/pair.rs"]
mod pair;
#[path = "common/server.rs"]
mod server;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use pair::{Pair, until};
use server::Server;

const SUMMARY: &str = r#"{"scenario": "mixed", "modes": {
    "off": {"achieved_over_bound": 0.61, "healthy_itl_p99_ms": 92.0, "jain": 0.99, "runs": 3},
    "global": {"achieved_over_bound": 0.72, "healthy_itl_p99_ms": 80.5, "jain": 0.98, "runs": 3},
    "per-connection": {"achieved_over_bound": 0.97, "healthy_itl_p99_ms": 41.2, "jain": 0.99, "runs": 3}}}"#;

/// A visit that takes longer than this hangs; seconds.
const PATIENCE: &str = "120";

/// `None`, with the reason printed, where there is no browser.
fn browser() -> Option<Command> {
    for name in ["chromium", "chromium-browser", "google-chrome"] {
        if Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()) {
            let mut command = Command::new("timeout");
            command.args(["--kill-after=5", PATIENCE, name]);
            return Some(command);
        }
    }
    assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: there is no browser");
    eprintln!("skipped: no browser is installed (package chromium)");
    None
}

fn screenshots() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("screenshots");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Visits the page for eight seconds of its own time; returns the document as it then is.
fn visit(url: &str, flags: &[&str]) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = browser().unwrap();
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=8000"]);
    command.arg(format!("--user-data-dir={}", profile.path().display())).args(flags).arg("--dump-dom").arg(url);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Visits the page until it shows what it should, at most five times: on a busy machine a stream may rest just then.
fn visit_until(url: &str, flags: &[&str], shows: impl Fn(&str) -> Result<(), String>) -> String {
    let mut missing = String::new();
    for _ in 0..5 {
        let page = visit(url, flags);
        match shows(&page) {
            Ok(()) => return page,
            Err(what) => missing = format!("{what}: {page}"),
        }
    }
    panic!("the page does not show {missing}");
}

fn that(holds: bool, what: &str) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| what.to_owned())
}

/// An engine's `/metrics`, as far as the page shows it.
fn made_up_engine() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let page = "tokenflow:max_num_batched_tokens{engine=\"0\"} 2048\ntokenflow:step_token_budget{engine=\"0\"} 1536\n\
                        tokenflow:paced_requests{engine=\"0\"} 2\nvllm:num_requests_running{engine=\"0\"} 9\n";
            let _ = write!(&stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
        }
    });
    url
}

/// Text of the element with this id, tags left out.
fn text_of<'a>(page: &'a str, id: &str) -> &'a str {
    let from = page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no #{id} in {page}"));
    let begin = from + page[from..].find('>').unwrap() + 1;
    &page[begin..begin + page[begin..].find('<').unwrap()]
}

/// The opening tag of the element with this id.
fn tag_of<'a>(page: &'a str, id: &str) -> &'a str {
    let at = page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no #{id} in {page}"));
    let begin = page[..at].rfind('<').unwrap();
    &page[begin..=begin + page[begin..].find('>').unwrap()]
}

#[test]
fn the_page_shows_what_is_known() {
    if browser().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary.json");
    fs::write(&summary, SUMMARY).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (port, engine) = (address.port().to_string(), made_up_engine());
    let (sick, well) = (Pair::through(&listener, address), Pair::through(&listener, address));
    sick.fill();
    let flags = ["--listen", "127.0.0.1:0", "--probe", "sock-diag", "--watch-port", &port];
    let server = Server::start(&[&flags[..], &["--engine-url", &engine, "--experiment", summary.to_str().unwrap()]].concat());
    // A stream on the good link, so that there is a rate to draw.
    let mut writer = well.server.try_clone().unwrap();
    let mut reader = well.client.try_clone().unwrap();
    thread::spawn(move || {
        while writer.write_all(&[b'x'; 220]).is_ok() {
            thread::sleep(Duration::from_millis(20))
        }
    });
    thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let sick_now = || server.get(&format!("/hint?peer={}", sick.peer())).1.contains("\"health\":0.0");
    // What its socket took at first has to be forgotten too.
    let alone = || server.get("/hint").1.contains("\"connections\":1,");
    until(|| (sick_now() && alone() && server.get("/history").1.contains("step_token_budget")).then_some(()));

    let url = format!("http://{}/", server.address);
    let shots = screenshots();
    let shot = |name: &str| format!("--screenshot={}", shots.join(name).display());
    let page = visit_until(&url, &["--window-size=1280,1400"], |page| {
        let (first, second) = (page.find(&sick.peer().to_string()), page.find(&well.peer().to_string()));
        that(first.is_some() && first < second, "the troubled one first")?;
        that(text_of(page, "active") == "1", "that the stuck one delivers nothing")?;
        that(text_of(page, "rate").parse::<f64>().is_ok_and(|rate| rate > 1.0), "the good one's rate")?;
        that(text_of(page, "limited") == "1", "that the network limits the stuck one")
    });
    assert!(text_of(&page, "state").contains("socket diagnostics"));
    assert_eq!(page.matches("<canvas").count(), 4, "health, rate, budget, requests");
    assert!(!tag_of(&page, "budget-chart").contains("hidden") && tag_of(&page, "no-engine").contains("hidden"));
    assert!(tag_of(&page, "hosts").contains("hidden") && tag_of(&page, "login").contains("hidden"));
    assert!(text_of(&page, "experiment-state").starts_with("mixed: medians of 3 runs"), "{page}");
    assert!(page.contains("0.970 (+59 %)") && page.contains("41.2 (−55 %)"), "{page}");

    for (name, size) in [("wide", "--window-size=1280,1400"), ("phone", "--window-size=390,1800")] {
        // Blink's own numbers: 0 is dark, 1 is light.
        for (scheme, setting) in [("dark", "0"), ("light", "1")] {
            let file = format!("hints-{name}-{scheme}.png");
            visit(&url, &[size, &format!("--blink-settings=preferredColorScheme={setting}"), &shot(&file)]);
            let bytes = fs::metadata(shots.join(&file)).unwrap().len();
            assert!(bytes > 20_000, "{file} shows next to nothing: {bytes} bytes");
        }
    }
}

#[test]
fn a_reader_without_the_token_is_asked_for_it() {
    if browser().is_none() {
        return;
    }
    // Chromium takes any address of 127.0.0.0/8 for loopback, and so does the server, so the page itself has to be elsewhere.
    let own = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
    let Some(own) = own.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback()) else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let server = Server::start(&["--listen", "0.0.0.0:0", "--probe", "sock-diag", "--token", "a-token-for-this-test-alone"]);
    let page = visit(&format!("http://{own}:{}/", server.address.port()), &[]);
    assert!(!tag_of(&page, "login").contains("hidden"), "{page}");
    assert_eq!(text_of(&page, "health"), "–");
}
