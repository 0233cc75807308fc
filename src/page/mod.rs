//! The operator's page: its files, compiled in, and the headers that they are sent with. What it shows, it asks of the admin API; there
//! is nothing of a server in the files.

/// A file of the page.
pub(crate) struct PageFile {
    path: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const fn file(path: &'static str, content_type: &'static str, body: &'static str) -> PageFile {
    PageFile { path, content_type, body }
}

/// The path of the page itself.
const PAGE: &str = "/";

const FILES: &[PageFile] = &[
    file(PAGE, HTML, include_str!("files/index.html")),
    file("/page/base.css", CSS, include_str!("files/base.css")),
    file("/page/parts.css", CSS, include_str!("files/parts.css")),
    file("/page/icon.svg", SVG, include_str!("files/icon.svg")),
    file("/page/main.js", SCRIPT, include_str!("files/main.js")),
    file("/page/api.js", SCRIPT, include_str!("files/api.js")),
    file("/page/dom.js", SCRIPT, include_str!("files/dom.js")),
    file("/page/figures.js", SCRIPT, include_str!("files/figures.js")),
    file("/page/ice.js", SCRIPT, include_str!("files/ice.js")),
    file("/page/plot.js", SCRIPT, include_str!("files/plot.js")),
    file("/page/poll.js", SCRIPT, include_str!("files/poll.js")),
    file("/page/selftest.js", SCRIPT, include_str!("files/selftest.js")),
    file("/page/server.js", SCRIPT, include_str!("files/server.js")),
    file("/page/sessions.js", SCRIPT, include_str!("files/sessions.js")),
    file("/page/text.js", SCRIPT, include_str!("files/text.js")),
    file("/page/words.js", SCRIPT, include_str!("files/words.js")),
];

/// What a browser may do with the page: run and show its own files, ask the server that it comes from, and nothing else. It stands in
/// no frame, and text cannot become markup.
pub(crate) const HEADERS: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];

/// The file at a path.
pub(crate) fn file_at(path: &str) -> Option<&'static PageFile> {
    FILES.iter().find(|file| file.path == path)
}

impl PageFile {
    /// Whether it is what people open, by a link of another site, too; all others are its parts.
    pub(crate) fn is_opened(&self) -> bool {
        self.path == PAGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows `before` in a text, up to a quotation mark.
    fn named<'t>(text: &'t str, before: &str) -> Vec<&'t str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn the_page_names_its_own_files_and_nothing_elsewhere() {
        let mut used = vec![PAGE.to_owned()];
        for file in FILES {
            let links = ["href=\"", "src=\""].iter().flat_map(|before| named(file.body, before));
            used.extend(links.filter(|link| link.starts_with('/')).map(str::to_owned));
            used.extend(named(file.body, " from \"./").into_iter().map(|name| format!("/page/{name}")));
            let elsewhere = ["https://", "http://", "//cdn", "url("].iter().find(|word| {
                // The namespace of SVG is a name, not a place.
                file.body.replace("http://www.w3.org/2000/svg", "").contains(**word)
            });
            assert!(elsewhere.is_none(), "{}: {elsewhere:?}", file.path);
            let as_markup = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="];
            let as_markup = as_markup.iter().find(|word| file.body.contains(**word));
            assert!(as_markup.is_none(), "{}: {as_markup:?}", file.path);
            assert!(file.body.lines().count() < 500, "{}", file.path);
        }
        for file in FILES {
            assert!(used.iter().any(|path| path == file.path), "nothing uses {}", file.path);
        }
        for path in used {
            assert!(file_at(&path).is_some(), "{path} is not compiled in");
        }
    }
}
