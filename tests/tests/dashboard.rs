//! The hint server's page in a real browser: what it shows of real connections, of an engine and of experiments, at phone width and on a
//! desktop, dark and light. Screenshots are kept among the artefacts of CI.

#[path = "../../hint-server/tests/common/pair.rs"]
mod pair;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
    time::Duration,
};

use pair::{Pair, until};
use serde_json::{Value, json};
use tokenflow_tests::{
    browser::{Browser, Key, LOOKS, browser_or_skip, looks_right, text},
    daemon, http,
};

/// What `cargo xtask experiment` writes, as far as the page reads it.
fn summary(scenario: &str) -> Value {
    let modes = |scale: f64| -> Value {
        let measure = |values: [f64; 3]| json!({"median": values[1] * scale, "runs": values.map(|value| value * scale)});
        let mode = |at: usize| {
            let shares = [[0.6, 0.61, 0.63], [0.7, 0.72, 0.74], [0.96, 0.97, 0.98]][at];
            let latencies = measure([[90.0, 92.0, 99.0], [78.0, 80.5, 84.0], [40.0, 41.4, 43.0]][at]);
            let queued = measure([[40e3, 43e3, 47e3], [19e3, 21e3, 22e3], [4e3, 4.3e3, 5e3]][at]);
            json!({
                "achieved_over_bound": {"median": shares[1], "runs": shares},
                "healthy_itl_p99_ms": latencies,
                "queued_bytes_p99": queued,
                "jain": null,
            })
        };
        json!({"off": mode(0), "global": mode(1), "per-connection": mode(2)})
    };
    let aim = |control: &str, value: f64| json!({"congestion_control": control, "text": "achieved / bound", "value": value, "wanted": {"at_least": 0.95}, "met": value >= 0.95});
    json!({
        "scenario": scenario, "date": "2026-11-20", "about": "Half of the streams are slow.",
        "machine": {"cpu": "a CPU", "cores": 2, "kernel": "6.18"}, "commit": "0123456789abcdef-dirty",
        "congestion_control": {"cubic": {"modes": modes(1.0)}, "bbr": {"modes": modes(2.0)}},
        "modes": modes(1.0),
        "aims": [aim("cubic", 0.97), aim("bbr", 0.91)],
    })
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

#[test]
fn the_page_shows_what_is_known() {
    let Some(mut browser) = browser_or_skip() else { return };
    let folder = tempfile::tempdir().unwrap();
    let files = ["mixed", "flapping"].map(|scenario| {
        let file = folder.path().join(format!("{scenario}.json"));
        fs::write(&file, summary(scenario).to_string()).unwrap();
        file.to_str().unwrap().to_owned()
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (port, engine) = (address.port().to_string(), made_up_engine());
    let (sick, well) = (Pair::through(&listener, address), Pair::through(&listener, address));
    sick.fill();
    let flags = ["--probe", "sock-diag", "--watch-port", &port, "--engine-url", &engine];
    let server = daemon::hint_server(&[&flags[..], &["--experiment", &files[0], "--experiment", &files[1]]].concat()).unwrap();
    // A stream on the good link, so that there is a rate to draw.
    let mut writer = well.server.try_clone().unwrap();
    let mut reader = well.client.try_clone().unwrap();
    thread::spawn(move || {
        while writer.write_all(&[b'x'; 220]).is_ok() {
            thread::sleep(Duration::from_millis(20))
        }
    });
    thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let sick_path = format!("/hint?peer={}", sick.peer());
    until(|| {
        let sick = http::get_json(&server.url, &sick_path).ok()?["health"].as_f64()?;
        let all = http::get_json(&server.url, "/hint").ok()?;
        let has_engine =
            http::get_json(&server.url, "/history").ok()?["samples"].as_array()?.iter().any(|sample| !sample["engine"].is_null());
        // What its socket took at first has to be forgotten too.
        (sick == 0.0 && all["connections"] == 1 && has_engine).then_some(())
    });

    browser.look(LOOKS[0]).unwrap();
    browser.open(&server.url).unwrap();
    // The page asks again every second, so that a moment at which the stream rests does not matter.
    let first = format!("document.querySelector('#rows td').textContent === '{}'", sick.peer());
    browser.wait_for(&format!("{first} && document.querySelectorAll('#rows tr').length === 2")).unwrap();
    browser.wait_for("parseFloat(document.querySelector('#rate').textContent) > 1").unwrap();
    browser
        .wait_for("document.querySelector('#active').textContent === '1' && document.querySelector('#limited').textContent === '1'")
        .unwrap();
    assert!(text(&mut browser, "#state").contains("socket diagnostics"));
    assert_eq!(text(&mut browser, "#rows tr td:nth-child(2)"), "0.00");
    assert_eq!(text(&mut browser, "#rows tr .cause"), "0.00", "the term that is the cause stands out");
    assert_eq!(
        browser.evaluate("document.querySelectorAll('figure:not([hidden]) canvas').length").unwrap(),
        4,
        "health, rate, budget, requests"
    );
    let hidden = "['hosts', 'login', 'no-engine'].every((id) => document.getElementById(id).hidden)";
    assert_eq!(browser.evaluate(hidden).unwrap(), true);
    browser.wait_for("document.querySelector('#budget-chart .u-legend').textContent.includes('1536')").unwrap();

    // Answers that are slower than a second are shown too, and of a server that hangs the page tells.
    browser
        .evaluate(
            "window.ask = fetch; window.fetch = (...all) => new Promise((done) => setTimeout(done, 1500)).then(() => ask(...all));
             document.querySelector('#rows tr').isOld = true",
        )
        .unwrap();
    browser.wait_for("!document.querySelector('#rows tr').isOld").unwrap();
    browser
        .evaluate(
            "window.fetch = (url, { signal }) => new Promise((_, fail) => signal.addEventListener('abort', () => fail(signal.reason))); 1",
        )
        .unwrap();
    browser.wait_for("document.querySelector('#state').textContent.includes('does not answer')").unwrap();
    browser.evaluate("window.fetch = ask; 1").unwrap();
    browser.wait_for("document.querySelector('#state').textContent.includes('socket diagnostics')").unwrap();
    // Again as at the beginning.
    browser.wait_for("document.querySelectorAll('#rows tr').length === 2").unwrap();

    // What moves can be held, with a key.
    browser.press(Key::Tab).unwrap();
    browser.press(Key::Tab).unwrap();
    assert_eq!(browser.focused().unwrap(), "button#pause");
    browser.press(Key::Space).unwrap();
    assert_eq!(text(&mut browser, "#state"), "Paused.");
    looks_right(&mut browser, "hints-live", true);
    experiments(&mut browser);
}

/// The A/B view, by keyboard.
fn experiments(browser: &mut Browser) {
    assert_eq!(text(browser, "#experiment-title-now"), "mixed, cubic");
    let rows = "[...document.querySelectorAll('.measure')].map((card) => [...card.querySelectorAll('tr')].map((row) => \
                [...row.cells].map((cell) => cell.textContent).join('|') + ' ' + row.querySelectorAll('circle').length).join(' / '))";
    let shown: Vec<String> = serde_json::from_value(browser.evaluate(rows).unwrap()).unwrap();
    assert_eq!(
        shown,
        [
            "off|runs: 0.60, 0.61, 0.63|0.61| 3 / global|runs: 0.70, 0.72, 0.74|0.72|+18 % 3 / per-connection|runs: 0.96, 0.97, 0.98|0.97, the best|+59 % 3",
            "off|runs: 90.0, 92.0, 99.0|92.0| 3 / global|runs: 78.0, 80.5, 84.0|80.5|−13 % 3 / per-connection|runs: 40.0, 41.4, 43.0|41.4, the best|−55 % 3",
            "off|runs: 40000, 43000, 47000|43000| 3 / global|runs: 19000, 21000, 22000|21000|−51 % 3 / per-connection|runs: 4000, 4300, 5000|4300, the best|−90 % 3",
        ]
    );
    assert!(text(browser, "#experiment-about").contains("median of 3 runs"));
    assert_eq!(
        text(browser, "#experiment-facts"),
        "Half of the streams are slow. 2026-11-20 · a CPU, 2 cores, Linux 6.18 · commit 0123456789ab with changes"
    );
    assert_eq!(text(browser, "#aims"), "✓ met achieved / bound (measured 0.97, wanted at least 0.95)");

    browser.evaluate("document.querySelector('#control-choice input').focus()").unwrap();
    browser.press(Key::Right).unwrap();
    browser.wait_for("document.querySelector('#experiment-title-now').textContent === 'mixed, bbr'").unwrap();
    assert_eq!(text(browser, ".measure:nth-child(2) tr:first-child td.median"), "184");
    assert_eq!(text(browser, "#aims"), "✗ missed achieved / bound (measured 0.91, wanted at least 0.95)");
    browser.evaluate("document.querySelector('#scenario').focus()").unwrap();
    browser.write("f").unwrap();
    browser.wait_for("document.querySelector('#experiment-title-now').textContent === 'flapping, bbr'").unwrap();

    // A file of one's own.
    let choose = |text: &str| {
        format!(
            "(() => {{ const files = new DataTransfer(); files.items.add(new File([{text:?}], 'a.json'));
                const input = document.querySelector('#summary'); input.files = files.files; input.dispatchEvent(new Event('change')); }})()"
        )
    };
    for (file, sentence) in
        [("{]", "a.json: not JSON."), ("{\"modes\": 3}", "A file holds none of the modes off, global and per-connection.")]
    {
        browser.evaluate(&choose(file)).unwrap();
        browser.wait_for(&format!("document.querySelector('#experiment-state').textContent === {sentence:?}")).unwrap();
        assert_eq!(text(browser, "#experiment-title-now"), "flapping, bbr", "what was chosen stays");
    }
    browser.evaluate(&choose(r#"{"scenario": "<b>old</b>", "off": {"jain": 0.9}, "global": {"jain": 0.95}}"#)).unwrap();
    browser.wait_for("document.querySelector('#experiment-title-now').textContent === '<b>old</b>'").unwrap();
    assert_eq!(browser.evaluate("document.querySelectorAll('.measure').length").unwrap(), 1);
    // A control's name is the one it stands under, and one without a mode is none.
    let odd =
        r#"{"scenario": "odd", "congestion_control": {"reno": {"name": "else", "modes": {"off": {"jain": 1}}}, "bbr": {"modes": {}}}}"#;
    browser.evaluate(&choose(odd)).unwrap();
    browser.wait_for("document.querySelector('#experiment-title-now').textContent === 'odd, reno'").unwrap();
    assert_eq!(browser.evaluate("document.querySelector('#control-choice').hidden").unwrap(), true);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_reader_without_the_token_is_asked_for_it() {
    let Some(mut browser) = browser_or_skip() else { return };
    // Chromium takes any address of 127.0.0.0/8 for loopback, and so does the server, so the page itself has to be elsewhere.
    let own = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
    let Some(own) = own.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback()) else {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: this machine has no address but loopback");
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let token = "a-token-for-this-test-alone";
    let server = daemon::hint_server(&["--listen", "0.0.0.0:0", "--probe", "sock-diag", "--token", token]).unwrap();
    let port = server.url.rsplit(':').next().unwrap();
    browser.open(&format!("http://{own}:{port}/")).unwrap();
    browser.wait_for("!document.querySelector('#login').hidden").unwrap();
    assert_eq!(text(&mut browser, "#health"), "–");
    looks_right(&mut browser, "hints-token", true);
    browser.evaluate("document.querySelector('#token').focus()").unwrap();
    browser.write("tokén").unwrap();
    browser.press(Key::Enter).unwrap();
    browser.wait_for("document.querySelector('#state').textContent.includes('printable ASCII')").unwrap();
    browser.write(token).unwrap();
    browser.press(Key::Enter).unwrap();
    browser.wait_for("document.querySelector('#health').textContent === '1.00'").unwrap();
    assert_eq!(browser.evaluate("document.querySelector('#login').hidden").unwrap(), true);
}
