//! The page in a real browser.

use super::server;
use crate::child::PROMPT;
use crate::serving::LlamaServer;
use headless_chrome::browser::tab::Tab;
use headless_chrome::protocol::cdp::Page::CaptureScreenshotFormatOption;
use headless_chrome::{Browser, LaunchOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take to be seen.
const LIMIT: Duration = Duration::from_secs(20);

/// The browser of the machine; `None` where there is none, and it is no machine that tests for others.
fn browser(size: (u32, u32)) -> Option<Browser> {
    let names = [
        "/usr/bin/chromium",
        "/usr/bin/chromium-browser",
        "/usr/bin/google-chrome",
    ];
    let path = names.iter().map(PathBuf::from).find(|path| path.is_file());
    if path.is_none() && std::env::var_os("CI").is_none() {
        eprintln!("no browser: the page is not tested");
        return None;
    }
    let options = LaunchOptions::default_builder()
        .path(Some(path.expect("chromium is to be installed")))
        .sandbox(false)
        .window_size(Some(size))
        .idle_browser_timeout(Duration::from_secs(120))
        .build();
    Some(Browser::new(options.unwrap()).unwrap())
}

struct Page {
    tab: Arc<Tab>,
}

impl Page {
    fn open(browser: &Browser, server: &LlamaServer) -> Self {
        let tab = browser.new_tab().unwrap();
        tab.navigate_to(&format!("http://{}/hotset", server.address()))
            .unwrap();
        tab.wait_until_navigated().unwrap();
        Self { tab }
    }

    fn eval(&self, script: &str) -> String {
        let found = self.tab.evaluate(script, false).unwrap();
        match found.value {
            Some(serde_json::Value::String(text)) => text,
            Some(value) => value.to_string(),
            None => String::new(),
        }
    }

    fn text(&self, id: &str) -> String {
        self.eval(&format!(
            "document.getElementById('{id}').textContent.trim()"
        ))
    }

    /// Waits until what a script says is right.
    fn wait(&self, what: &str, script: &str, is_right: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let found = self.eval(script);
            if is_right(&found) {
                return found;
            }
            assert!(begin.elapsed() < LIMIT, "{what}: {found:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn wait_for_text(&self, id: &str, is_right: impl Fn(&str) -> bool) -> String {
        let script = format!("document.getElementById('{id}').textContent.trim()");
        self.wait(id, &script, is_right)
    }

    fn click(&self, id: &str) {
        self.tab
            .find_element(&format!("#{id}"))
            .unwrap()
            .click()
            .unwrap();
    }

    fn write(&self, id: &str, text: &str) {
        let script = format!("document.getElementById('{id}').value = ''");
        self.eval(&script);
        let field = self.tab.find_element(&format!("#{id}")).unwrap();
        field.type_into(text).unwrap();
    }

    /// Keeps what is seen, where that is wanted.
    fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os("PICTURES") {
            let format = CaptureScreenshotFormatOption::Png;
            let picture = self
                .tab
                .capture_screenshot(format, None, None, true)
                .unwrap();
            std::fs::write(Path::new(&folder).join(format!("{name}.png")), picture).unwrap();
        }
    }
}

#[test]
fn it_loads_follows_steers_and_says_what_is_wrong() {
    let Some(browser) = browser((1280, 900)) else {
        return;
    };
    let server = server("40%", &[], &[]);
    let page = Page::open(&browser, &server);
    page.wait_for_text("budget-now", |text| !text.is_empty() && text != "-");

    // It updates while tokens are generated.
    let n_events = "document.getElementById('events-count').dataset.count || '0'";
    let generating = server.complete_apart(PROMPT, 900);
    let before: u32 = page.wait("events", n_events, |n| n != "0").parse().unwrap();
    page.wait("more events", n_events, |n| {
        n.parse::<u32>().is_ok_and(|n| n >= before + 2)
    });
    page.wait_for_text("tokens-per-s", |text| {
        text.starts_with(|c: char| ('1'..='9').contains(&c))
    });
    page.wait_for_text("hit-rate", |text| text.contains('%'));
    generating.join().unwrap();
    page.wait_for_text("summary-working", |text| text.contains('%'));
    for id in ["summary-limit", "summary-memory"] {
        assert!(!page.text(id).is_empty(), "{id}");
    }
    // The picture of the experts has colours.
    let is_drawn = "(() => { const c = document.getElementById('grid'); const d = c.getContext('2d')
        .getImageData(0, 0, c.width, c.height).data; const seen = new Set();
        for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size; })()";
    page.wait("the grid", is_drawn, |n| {
        n.parse::<u32>().is_ok_and(|n| n > 3)
    });
    page.picture("page");

    // It changes the budget and the policy.
    let slots = || server.get("/hotset/stats")[0]["n_slots"].as_u64().unwrap();
    assert!(slots() < 200);
    page.write("budget-input", "80%");
    page.click("budget-apply");
    let begin = Instant::now();
    while slots() < 250 {
        assert!(begin.elapsed() < LIMIT, "{}", page.text("alert"));
        std::thread::sleep(Duration::from_millis(100));
    }
    page.wait_for_text("status", |text| !text.is_empty());
    assert_eq!(page.text("alert"), "");
    page.eval("{ const s = document.getElementById('policy-select'); s.value = 'lru'; s.dispatchEvent(new Event('change')); }");
    page.click("policy-apply");
    let begin = Instant::now();
    while server.get("/hotset/stats")[0]["policy"] != "lru" {
        assert!(begin.elapsed() < LIMIT, "{}", page.text("alert"));
        std::thread::sleep(Duration::from_millis(100));
    }

    // It shows the server's own sentence.
    page.write("budget-input", "lots");
    page.click("budget-apply");
    let said = page.wait_for_text("alert", |text| !text.is_empty());
    assert!(said.contains("HOTSET_RAM=lots: expected a size"), "{said}");
    page.picture("error");
    drop(browser);
    server.stop();
}

/// A phone is narrow: nothing is beside the screen.
#[test]
fn it_fits_a_phone_and_asks_for_a_key() {
    let Some(browser) = browser((360, 800)) else {
        return;
    };
    let server = server("40%", &[], &["--api-key", "secret"]);
    let page = Page::open(&browser, &server);
    page.wait(
        "the field for the key",
        "document.getElementById('key-input').offsetParent !== null",
        |is| is == "true",
    );
    page.write("key-input", "secret");
    page.click("key-apply");
    page.wait_for_text("budget-now", |text| text.contains("MiB"));
    let width = page.wait("its width", "document.documentElement.scrollWidth", |n| {
        n.parse::<u32>().is_ok()
    });
    let room: u32 = page.eval("window.innerWidth").parse().unwrap();
    assert!(width.parse::<u32>().unwrap() <= room, "{width} of {room}");
    page.picture("phone");
    drop(browser);
    server.stop();
}

/// It asks nobody but its server, and needs nothing else.
#[test]
fn it_is_one_file() {
    let server = server("40%", &[], &[]);
    let (status, html) = server.http("/hotset", None, None);
    assert_eq!(status, 200);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/live/page.html");
    assert_eq!(html, std::fs::read_to_string(page).unwrap());
    for part in ["http:", "https:", "//cdn", "src=\"", "@import", "url("] {
        let is_name_space = |at: usize| html[at..].starts_with("http://www.w3.org/");
        let found = html.match_indices(part).find(|(at, _)| !is_name_space(*at));
        assert!(
            found.is_none(),
            "{part}: {}",
            &html[found.unwrap().0..][..60]
        );
    }
    server.stop();
}
