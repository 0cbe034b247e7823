//! The engine's page at `/` in a real browser: a conversation by keyboard alone with the demo model, and scripted streams for what it rarely
//! says or does. Screenshots are kept among the artefacts of CI.

use tokenflow_tests::{
    browser::{Key, LOOKS, browser_or_skip, looks_right, text},
    daemon::{self, Daemon},
};

/// Slow enough that a stream can be stopped before its end.
fn engine(flags: &[&str]) -> Daemon {
    daemon::engine(&[&["--hint-url", "none", "--threads", "1", "--max-stream-rate", "40"], flags].concat()).unwrap()
}

const READY: &str = "document.querySelector('#model').value";
const IDLE: &str = "document.querySelector('#go').textContent === 'Send'";

/// Sampled answers may end at once; those to what the page asks from now on go on until they are stopped, or to `max_tokens`.
const ENDLESS: &str = "{
    const ask = window.fetch;
    const endless = (body) => JSON.stringify({ ...JSON.parse(body), ignore_eos: true });
    window.fetch = (url, options) => ask(url, options?.body ? { ...options, body: endless(options.body) } : options);
} 1";

#[test]
fn a_conversation_by_keyboard_alone() {
    let Some(mut browser) = browser_or_skip() else { return };
    let engine = engine(&[]);
    browser.look(LOOKS[0]).unwrap();
    browser.open(&engine.url).unwrap();
    browser.wait_for(READY).unwrap();
    looks_right(&mut browser, "chat-empty", false);
    browser.look(LOOKS[0]).unwrap();
    browser.evaluate(ENDLESS).unwrap();

    assert_eq!(browser.focused().unwrap(), "textarea#prompt", "one may type at once");
    browser.write("What is").unwrap();
    browser.press(Key::ShiftEnter).unwrap();
    browser.write("ownership?").unwrap();
    assert_eq!(browser.evaluate("document.querySelector('#prompt').value").unwrap(), "What is\nownership?");
    browser.press(Key::Enter).unwrap();
    browser.wait_for("document.querySelector('.assistant .text').textContent.length > 20").unwrap();
    browser.wait_for("parseFloat(document.querySelector('#rate').textContent) > 0").unwrap();
    browser.wait_for("parseFloat(document.querySelector('#health').textContent) >= 0.5").unwrap();
    browser.wait_for("document.querySelector('#rate-line path.line').getAttribute('d').split('L').length > 4").unwrap();
    assert!(text(&mut browser, "#ttft").ends_with(" s"));
    assert_eq!(text(&mut browser, "#go"), "Stop");
    assert_eq!(text(&mut browser, "#state"), "Answering…");

    browser.press(Key::Escape).unwrap();
    browser.wait_for(IDLE).unwrap();
    assert!(text(&mut browser, "#state").starts_with("Stopped: "), "{}", text(&mut browser, "#state"));
    assert!(text(&mut browser, ".assistant .facts").contains("stopped"));
    let first = text(&mut browser, ".assistant .text");

    // What was said is the context of what comes next; the settings are reached with Tab.
    browser.press(Key::ShiftTab).unwrap();
    assert_eq!(browser.focused().unwrap(), "button#", "the copy button of the answer");
    browser.evaluate("document.querySelector('#model').focus()").unwrap();
    browser.press(Key::Tab).unwrap();
    assert_eq!(browser.focused().unwrap(), "button#settings-button");
    browser.press(Key::Enter).unwrap();
    browser.write("Be brief").unwrap();
    browser.press(Key::Tab).unwrap();
    browser.write("0").unwrap();
    browser.press(Key::Tab).unwrap();
    browser.write("12").unwrap();
    browser.press(Key::Escape).unwrap();
    assert_eq!(browser.focused().unwrap(), "button#settings-button");
    browser
        .evaluate(
            "window.asked = []; const ask = fetch; window.fetch = (url, options) => (window.asked.push(options), ask(url, options)); 1",
        )
        .unwrap();
    browser.evaluate("document.querySelector('#prompt').focus()").unwrap();
    browser.write("And borrowing?").unwrap();
    browser.press(Key::Enter).unwrap();
    browser.wait_for("document.querySelectorAll('.assistant').length === 2").unwrap();
    browser.wait_for(IDLE).unwrap();
    let asked: serde_json::Value = serde_json::from_str(browser.evaluate("window.asked[0].body").unwrap().as_str().unwrap()).unwrap();
    let roles: Vec<_> = asked["messages"].as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert_eq!((&asked["messages"][0]["content"], &asked["messages"][3]["content"]), (&"Be brief".into(), &"And borrowing?".into()));
    assert_eq!((&asked["temperature"], &asked["max_tokens"]), (&0.into(), &12.into()));
    assert!(!first.is_empty() && !asked["messages"][2]["content"].as_str().unwrap().is_empty());
    assert_eq!(text(&mut browser, "#tokens"), "12");
    assert_eq!(text(&mut browser, "#state"), "Complete: 12 tokens");
    looks_right(&mut browser, "chat-answered", false);

    // A tab that is loaded again still knows the conversation.
    browser.open(&engine.url).unwrap();
    browser.wait_for("document.querySelectorAll('.assistant').length === 2").unwrap();
    browser.evaluate("document.querySelector('#clear').focus()").unwrap();
    browser.press(Key::Space).unwrap();
    browser.wait_for("document.querySelectorAll('#messages li').length === 0").unwrap();
    assert_eq!(browser.focused().unwrap(), "textarea#prompt");

    // What is no conversation does not stop the page.
    for stored in
        ["3", "[null]", "[{\"question\": \"a\", \"model\": \"b\", \"text\": \"c\", \"reasoning\": \"\", \"facts\": {\"tokens\": 1}}]"]
    {
        browser.evaluate(&format!("sessionStorage.setItem('/exchanges', {stored:?}); sessionStorage.setItem('/settings', '7')")).unwrap();
        browser.open(&engine.url).unwrap();
        browser.wait_for(READY).unwrap();
        assert_eq!(browser.evaluate("document.querySelectorAll('#messages li').length").unwrap(), 0, "{stored}");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn an_engine_with_a_key_asks_for_it() {
    let Some(mut browser) = browser_or_skip() else { return };
    let engine = engine(&["--api-key", "sesame", "--root-path", "/llm"]);
    // A path without its slash leads to the page too.
    browser.open(&format!("{}/llm", engine.url)).unwrap();
    browser.wait_for("!document.querySelector('#login').hidden").unwrap();
    assert_eq!(browser.focused().unwrap(), "input#key");
    looks_right(&mut browser, "chat-key", false);
    browser.write("sésame").unwrap();
    browser.press(Key::Enter).unwrap();
    browser.wait_for("document.querySelector('#login label').textContent.includes('printable ASCII')").unwrap();
    browser.write("wrong").unwrap();
    browser.press(Key::Enter).unwrap();
    browser.wait_for("document.querySelector('#login label').textContent.includes('not the right one')").unwrap();
    browser.write("sesame").unwrap();
    browser.press(Key::Enter).unwrap();
    browser.wait_for(READY).unwrap();
    assert_eq!(browser.evaluate("document.querySelector('#login').hidden").unwrap(), true);
    assert_eq!(browser.focused().unwrap(), "textarea#prompt");
    assert_eq!(browser.evaluate("[localStorage.length, sessionStorage.getItem('/llm/key')].join()").unwrap(), "0,\"sesame\"");
    browser.evaluate(ENDLESS).unwrap();
    browser.write("hello").unwrap();
    browser.press(Key::Enter).unwrap();
    browser.wait_for("parseInt(document.querySelector('#tokens').textContent) > 2").unwrap();
    browser.press(Key::Escape).unwrap();
    browser.wait_for(IDLE).unwrap();
}

/// Makes the page's next questions be answered by `window.chunk`, `window.end` and `window.refuse`.
const SCRIPTED: &str = "
    window.fetch = (url, { signal } = {}) => new Promise((answer) => {
        const encoder = new TextEncoder();
        let stream;
        const body = new ReadableStream({ start: (controller) => (stream = controller) });
        signal?.addEventListener('abort', () => stream.error(new DOMException('stopped', 'AbortError')));
        const send = (object) => stream.enqueue(encoder.encode('data: ' + JSON.stringify(object) + '\\n\\n'));
        window.chunk = (delta, tokenflow, tokens, finish_reason = null) => send({ choices: [{ index: 0, delta, finish_reason }], tokenflow, usage: { completion_tokens: tokens } });
        window.fail = (message) => send({ error: { message } });
        window.end = () => stream.close();
        window.refuse = (status, message) => answer(new Response(JSON.stringify({ error: { message } }), { status }));
        window.accept = () => answer(new Response(body));
    }); 1";

/// Everything that text may be mistaken for.
const MARKDOWN: &str = "**Bold**, *slanted* and `code` with <b>tags</b> & <img src=x onerror=\"window.harmed = 1\">.\n\n\
1. One\n2. Two\n   - deeper, [a link](https://example.org/?a=1&b=2), [no link](javascript:window.harmed=1)\n\n\
```html\n<script>window.harmed = 1</script> and a line of code that is far too long for the screen of any phone, however wide it may be\n```\n\n\
| a | b |\n|---|---|\n| 1 | ~~2~~ |\n\n> A quote\n\n### A heading ###\nsnake_case_stays 2 * 3 * 4 \\*stars\\* ![picture](https://example.org/x.png)";

#[test]
fn scripted_streams_are_shown_as_they_are() {
    let Some(mut browser) = browser_or_skip() else { return };
    let engine = engine(&[]);
    browser.look(LOOKS[0]).unwrap();
    browser.open(&engine.url).unwrap();
    browser.wait_for(READY).unwrap();
    browser.evaluate(SCRIPTED).unwrap();

    browser.write("Show me").unwrap();
    browser.press(Key::Enter).unwrap();
    browser.evaluate("window.accept()").unwrap();
    browser.evaluate("chunk({ reasoning: 'Let me think.' }, { health: 1, rate: 50, paced: false }, 3)").unwrap();
    browser.wait_for("document.querySelector('.reasoning summary')?.textContent === 'Reasoning…'").unwrap();
    assert_eq!(browser.evaluate("document.querySelector('.reasoning').open").unwrap(), false);
    let words = serde_json::to_string(&MARKDOWN.split_inclusive(' ').collect::<Vec<_>>()).unwrap();
    browser
        .evaluate(&format!(
            "(async () => {{
                let tokens = 3;
                for (const word of {words}) {{
                    chunk({{ content: word }}, {{ health: Math.max(0.31, 1 - tokens / 50), rate: 20, paced: tokens > 20 }}, (tokens += 2));
                    await new Promise(requestAnimationFrame);
                }}
            }})()"
        ))
        .unwrap();
    // All of it is drawn.
    browser.wait_for("document.querySelectorAll('.text a').length === 2").unwrap();
    browser.wait_for("document.querySelector('#health').textContent === '0.31'").unwrap();
    assert_eq!(text(&mut browser, ".reasoning summary"), "Reasoning");
    assert_eq!(browser.evaluate("document.querySelector('#paced').hidden").unwrap(), false);
    let shape = browser
        .evaluate("[...document.querySelectorAll('.assistant .text *')].map((e) => e.localName).filter((n) => !['tbody', 'thead'].includes(n)).join(' ')")
        .unwrap();
    assert_eq!(
        shape,
        "p strong em code ol li li ul li a figure figcaption button pre code div table tr th th tr td td del blockquote p h5 p a"
    );
    assert_eq!(
        browser.evaluate("[...document.querySelectorAll('.text a')].map((a) => a.href).join()").unwrap(),
        "https://example.org/?a=1&b=2,https://example.org/x.png"
    );
    let shown = text(&mut browser, ".assistant .text");
    for verbatim in [
        "<b>tags</b> & <img src=x onerror=\"window.harmed = 1\">",
        "<script>window.harmed = 1</script>",
        "snake_case_stays 2 * 3 * 4 *stars*",
    ] {
        assert!(shown.contains(verbatim), "{verbatim} is not in {shown}");
    }
    assert_eq!(browser.evaluate("typeof window.harmed").unwrap(), "undefined");
    looks_right(&mut browser, "chat-streaming", false);
    browser.evaluate("chunk({}, undefined, 500, 'length'); end()").unwrap();
    browser.wait_for(IDLE).unwrap();
    assert!(text(&mut browser, ".assistant .facts").contains("cut at the token limit"));
    assert_eq!(text(&mut browser, "#tokens"), "500", "as the engine counts");

    // An error in the middle keeps what came, and is no part of the conversation; asking again takes its place.
    for (then, sentence) in [
        ("accept(); chunk({ content: 'Half' }, null, 1); fail('the KV cache is gone')", "the KV cache is gone"),
        ("accept(); chunk({ content: 'Half' }, null, 1); end()", "The connection ended before the answer was complete."),
        ("refuse(503, 'Too much to do.')", "Too much to do."),
    ] {
        browser.write("Again").unwrap();
        browser.press(Key::Enter).unwrap();
        browser.wait_for("document.querySelector('#go').textContent === 'Stop'").unwrap();
        browser.evaluate(&format!("{then}; 1")).unwrap();
        browser.wait_for(IDLE).unwrap();
        assert_eq!(text(&mut browser, "#messages > :last-child .error"), sentence);
        assert_eq!(text(&mut browser, "#state"), sentence);
    }
    looks_right(&mut browser, "chat-failed", false);
    assert_eq!(browser.evaluate("document.querySelectorAll('.assistant').length").unwrap(), 4);
    browser.evaluate("document.querySelector('#messages > :last-child .again').focus()").unwrap();
    browser.press(Key::Enter).unwrap();
    browser.evaluate("accept(); chunk({ content: 'Fine.' }, null, 1, 'stop'); end(); 1").unwrap();
    browser.wait_for(IDLE).unwrap();
    assert_eq!(browser.evaluate("document.querySelectorAll('.assistant').length").unwrap(), 4);
    assert_eq!(text(&mut browser, "#messages > :last-child .text"), "Fine.");

    // While nobody knows the models, one question waits for them at a time, and what was typed stays if they do not come.
    browser
        .evaluate(
            "document.querySelector('#model').replaceChildren(); window.asked = 0;
             window.fetch = () => new Promise((_, fail) => { window.asked++; window.lose = () => fail(new TypeError('lost')); }); 1",
        )
        .unwrap();
    browser.evaluate("document.querySelector('#prompt').focus()").unwrap();
    browser.write("Keep me").unwrap();
    browser.press(Key::Enter).unwrap();
    browser.press(Key::Enter).unwrap();
    browser.wait_for("document.querySelector('#go').textContent === 'Stop'").unwrap();
    browser.evaluate("lose(); 1").unwrap();
    browser.wait_for("!document.querySelector('#problem').hidden").unwrap();
    browser.wait_for(IDLE).unwrap();
    assert_eq!(browser.evaluate("[asked, document.querySelector('#prompt').value].join()").unwrap(), "1,Keep me");
    browser.press(Key::Enter).unwrap();
    browser.wait_for("window.asked === 2").unwrap();
    browser.press(Key::Escape).unwrap();
    browser.wait_for(IDLE).unwrap();
    assert_eq!(browser.evaluate("document.querySelector('#prompt').value").unwrap(), "Keep me");
    assert_eq!(browser.evaluate("document.querySelectorAll('.assistant').length").unwrap(), 4);
    // The refusals were made up, so the browser itself has nothing to complain of.
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
