//! What the pages of the hint server and of the engine share: one look, and one policy of what a browser may do for them. A page is made of
//! files inside the binary and holds no data; what it shows it asks its own server for.

/// Colours in light and dark, and what every control looks like.
pub const THEME_CSS: &str = include_str!("page/theme.css");

/// `Content-Security-Policy`: nothing but what this server serves may be loaded or asked, nothing inline runs, nobody frames it.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                          form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

/// A file of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageFile {
    /// As the page asks for it.
    pub path: &'static str,
    pub content_type: &'static str,
    pub text: &'static str,
}

impl PageFile {
    pub const fn html(path: &'static str, text: &'static str) -> Self {
        Self { path, content_type: "text/html; charset=utf-8", text }
    }

    pub const fn css(path: &'static str, text: &'static str) -> Self {
        Self { path, content_type: "text/css; charset=utf-8", text }
    }

    pub const fn javascript(path: &'static str, text: &'static str) -> Self {
        Self { path, content_type: "text/javascript; charset=utf-8", text }
    }

    pub const fn plain(path: &'static str, text: &'static str) -> Self {
        Self { path, content_type: "text/plain; charset=utf-8", text }
    }

    /// The headers to serve it with. Browsers ask again each time, so that a newer server's page is never mixed with an older one's.
    pub const fn headers(&self) -> [(&'static str, &'static str); 5] {
        [
            ("content-type", self.content_type),
            ("content-security-policy", POLICY),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
        ]
    }
}
