//! What tests of pages have in common: where there is no browser they are skipped, and a page must look right in every look.

use super::{Browser, LOOKS, find};

/// A browser, or `None` where none is installed: the test is skipped then, but never in CI.
///
/// # Panics
/// In CI without a browser, or when it does not start.
pub fn browser_or_skip() -> Option<Browser> {
    if find().is_none() {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: there is no browser");
        eprintln!("skipped: no browser is installed (package chromium)");
        return None;
    }
    Some(Browser::start().expect("the browser starts"))
}

/// Text of the element that the selector names, empty where there is none.
///
/// # Panics
/// When the browser does not answer.
pub fn text(browser: &mut Browser, selector: &str) -> String {
    let text = browser.evaluate(&format!("document.querySelector({selector:?})?.textContent ?? ''")).expect("the browser answers");
    text.as_str().unwrap_or_default().to_owned()
}

/// Keeps a screenshot of each look as `NAME-LOOK`, of the `whole` page or of what is in sight, and finds no faults in any.
///
/// # Panics
/// When a look has faults; they are named.
#[track_caller]
pub fn looks_right(browser: &mut Browser, name: &str, whole: bool) {
    for look in LOOKS {
        browser.look(look).expect("the browser takes the look");
        browser.screenshot(&format!("{name}-{}", look.name), whole).expect("the screenshot is kept");
        let mut faults = browser.faults().expect("the browser answers");
        // The browser itself tells of every refusal.
        faults.retain(|fault| !fault.contains("401"));
        assert_eq!(faults, Vec::<String>::new(), "{name} {}", look.name);
    }
}
