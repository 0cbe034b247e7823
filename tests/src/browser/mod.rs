//! A headless Chromium (Debian's package `chromium`), driven by its DevTools protocol: what a page shows, what keys do to it, and how it looks.
//! Nothing here sleeps: [`Browser::wait_for`] looks until the page is as it should be.

mod expect;
mod pipe;

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
pub use expect::{browser_or_skip, looks_right, text};
use pipe::Pipe;
use serde_json::{Value, json};

/// Names the folder of what CI keeps; screenshots go to `screenshots` in it. `target/artifacts` by default.
pub const ARTIFACTS_ENVIRONMENT: &str = "TOKENFLOW_ARTIFACTS";

/// Longest wait for a page to be as it should; milliseconds.
const PATIENCE_MS: u64 = 90_000;

/// What is wrong with how a page looks or what it tells assistive technology.
const CHECKS: &str = include_str!("checks.js");

/// A screen: CSS pixels, and the reader's preferences.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub name: &'static str,
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

/// Phone and desktop, dark and light.
pub const LOOKS: [Look; 4] = [
    Look { name: "phone-light", width: 360, height: 740, dark: false },
    Look { name: "phone-dark", width: 360, height: 740, dark: true },
    Look { name: "desktop-light", width: 1280, height: 800, dark: false },
    Look { name: "desktop-dark", width: 1280, height: 800, dark: true },
];

/// One tab.
pub struct Browser {
    pipe: Pipe,
    session: String,
}

/// A key that is no character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Enter,
    ShiftEnter,
    Escape,
    Tab,
    ShiftTab,
    Space,
    Right,
}

/// The program, if there is one.
pub fn find() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
}

impl Browser {
    /// Starts one with an empty tab.
    ///
    /// # Errors
    /// When there is none, or it does not speak.
    pub fn start() -> anyhow::Result<Self> {
        let mut pipe = Pipe::start(find().context("there is no browser (Debian package chromium)")?)?;
        let target = pipe.call(None, "Target.createTarget", json!({"url": "about:blank"}))?;
        let attached = pipe.call(None, "Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}))?;
        let session = attached["sessionId"].as_str().context("no session")?.to_owned();
        let mut browser = Self { pipe, session };
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.pipe.call(Some(&self.session), method, params)
    }

    /// Goes to a page and waits until it is loaded.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn open(&mut self, url: &str) -> anyhow::Result<()> {
        self.evaluate("window.isLeft = true")?;
        let went = self.call("Page.navigate", json!({"url": url}))?;
        ensure!(went["errorText"].is_null(), "{url}: {}", went["errorText"]);
        // For a moment the old document is still there, complete; a look that began in it fails when it goes.
        let deadline = Instant::now() + Duration::from_millis(PATIENCE_MS);
        let mut lost = false;
        loop {
            match self.evaluate("new Promise((done) => setTimeout(() => done(window.isLeft === true), 15))") {
                Ok(is_left) if is_left == false => break,
                Ok(_) => ensure!(Instant::now() < deadline, "{url}: the page before it is still there"),
                Err(error) if lost => return Err(error),
                Err(_) => lost = true,
            }
        }
        self.wait_for("document.readyState === 'complete'").map(|_| ())
    }

    /// Sets screen and preferences; motion is always reduced, so that pictures are the same each time.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn look(&mut self, look: Look) -> anyhow::Result<()> {
        let Look { width, height, dark, .. } = look;
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        )?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}))?;
        // Two frames later all of it is drawn.
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))").map(|_| ())
    }

    /// The value of an expression, awaited.
    ///
    /// # Errors
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> anyhow::Result<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true});
        let answer = self.call("Runtime.evaluate", params)?;
        let failed = &answer["exceptionDetails"];
        if !failed.is_null() {
            bail!("{expression}: {}", failed["exception"]["description"].as_str().unwrap_or_default());
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until the expression is truthy, and returns its value.
    ///
    /// # Errors
    /// When it still is not after a minute and a half; the message has the page's text.
    pub fn wait_for(&mut self, expression: &str) -> anyhow::Result<Value> {
        let wait = format!(
            "new Promise((done) => {{
                const began = Date.now();
                const look = () => {{
                    let value = false;
                    try {{ value = ({expression}); }} catch {{}}
                    if (value) done({{ value: typeof value === 'object' ? true : value }});
                    else if (Date.now() - began > {PATIENCE_MS}) done({{ text: document.body?.innerText ?? '' }});
                    else setTimeout(look, 15);
                }};
                look();
            }})"
        );
        let answer = self.evaluate(&wait)?;
        match answer.get("text") {
            Some(text) => bail!("this never became true: {expression}\nthe page: {text}\nits complaints: {:?}", self.complaints()),
            None => Ok(answer["value"].clone()),
        }
    }

    /// Types text, key by key.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn write(&mut self, text: &str) -> anyhow::Result<()> {
        for c in text.chars() {
            let key = c.to_string();
            self.call("Input.dispatchKeyEvent", json!({"type": "keyDown", "key": key, "text": key}))?;
            self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key}))?;
        }
        Ok(())
    }

    /// Presses a key.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn press(&mut self, key: Key) -> anyhow::Result<()> {
        let (name, code, text) = match key {
            Key::Enter | Key::ShiftEnter => ("Enter", 13, "\r"),
            Key::Escape => ("Escape", 27, ""),
            Key::Tab | Key::ShiftTab => ("Tab", 9, ""),
            Key::Space => (" ", 32, " "),
            Key::Right => ("ArrowRight", 39, ""),
        };
        let modifiers = if matches!(key, Key::ShiftEnter | Key::ShiftTab) { 8 } else { 0 };
        let kind = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        let down =
            json!({"type": kind, "key": name, "code": name.trim(), "windowsVirtualKeyCode": code, "text": text, "modifiers": modifiers});
        self.call("Input.dispatchKeyEvent", down)?;
        let up = json!({"type": "keyUp", "key": name, "code": name.trim(), "windowsVirtualKeyCode": code, "modifiers": modifiers});
        self.call("Input.dispatchKeyEvent", up).map(|_| ())
    }

    /// The element that has the focus, as `name#id` with the beginning of its text.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn focused(&mut self) -> anyhow::Result<String> {
        let element = self.evaluate("(() => { const e = document.activeElement; return e.localName + '#' + e.id; })()")?;
        Ok(element.as_str().unwrap_or_default().to_owned())
    }

    /// Keeps a picture among the artefacts of CI; with `whole` all of the page, else what the screen shows.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub fn screenshot(&mut self, name: &str, whole: bool) -> anyhow::Result<PathBuf> {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": whole}))?;
        let png = BASE64_STANDARD.decode(answer["data"].as_str().context("no picture")?)?;
        let path = screenshots()?.join(format!("{name}.png"));
        fs::write(&path, &png)?;
        Ok(path)
    }

    /// What is wrong with the page as it is shown now, a line each: text that is too faint (WCAG 2.2 AA), what sticks out of the screen, controls
    /// without a name, and what the page itself complained about so far.
    ///
    /// # Errors
    /// When the browser is gone.
    pub fn faults(&mut self) -> anyhow::Result<Vec<String>> {
        let found = self.evaluate(CHECKS)?;
        let mut faults: Vec<String> = serde_json::from_value(found)?;
        faults.extend(self.complaints());
        Ok(faults)
    }

    /// Errors in the console and requests that were refused or failed, as the page caused them; each is told once.
    pub fn complaints(&mut self) -> Vec<String> {
        self.pipe.take_complaints()
    }
}

/// The folder of the pictures.
///
/// # Errors
/// When it cannot be made.
pub fn screenshots() -> anyhow::Result<PathBuf> {
    let artifacts = match std::env::var_os(ARTIFACTS_ENVIRONMENT) {
        Some(folder) => PathBuf::from(folder),
        // target/release/deps/TEST
        None => std::env::current_exe()?.ancestors().nth(3).context("no target folder")?.join("artifacts"),
    };
    let folder = artifacts.join("screenshots");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
