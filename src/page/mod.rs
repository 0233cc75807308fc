//! The operator's page, and the self-test by itself for users and support people: files, compiled in, and the headers that they are sent
//! with. What the pages show they ask of the admin API, or of the credentials API; there is nothing of a server in the files.

/// A file of a page.
pub(crate) struct PageFile {
    path: &'static str,
    of: Pages,
    pub(crate) content_type: &'static str,
    pub(crate) body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Which pages a file is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    Operator,
    Test,
    Both,
}

const fn file(path: &'static str, of: Pages, content_type: &'static str, body: &'static str) -> PageFile {
    PageFile { path, of, content_type, body }
}

/// The paths of the pages themselves.
const PAGE: &str = "/";
const TEST_PAGE: &str = "/test";

const FILES: &[PageFile] = &[
    file(PAGE, Pages::Operator, HTML, include_str!("files/index.html")),
    file("/page/base.css", Pages::Both, CSS, include_str!("files/base.css")),
    file("/page/parts.css", Pages::Both, CSS, include_str!("files/parts.css")),
    file("/page/icon.svg", Pages::Both, SVG, include_str!("files/icon.svg")),
    file("/page/main.js", Pages::Operator, SCRIPT, include_str!("files/main.js")),
    file("/page/api.js", Pages::Operator, SCRIPT, include_str!("files/api.js")),
    file("/page/dom.js", Pages::Both, SCRIPT, include_str!("files/dom.js")),
    file("/page/figures.js", Pages::Operator, SCRIPT, include_str!("files/figures.js")),
    file("/page/fleet.js", Pages::Operator, SCRIPT, include_str!("files/fleet.js")),
    file("/page/ice.js", Pages::Both, SCRIPT, include_str!("files/ice.js")),
    file("/page/plot.js", Pages::Operator, SCRIPT, include_str!("files/plot.js")),
    file("/page/poll.js", Pages::Operator, SCRIPT, include_str!("files/poll.js")),
    file("/page/selftest.js", Pages::Both, SCRIPT, include_str!("files/selftest.js")),
    file("/page/server.js", Pages::Operator, SCRIPT, include_str!("files/server.js")),
    file("/page/sessions.js", Pages::Operator, SCRIPT, include_str!("files/sessions.js")),
    file(TEST_PAGE, Pages::Test, HTML, include_str!("files/test.html")),
    file("/page/test.js", Pages::Test, SCRIPT, include_str!("files/test.js")),
    file("/page/text.js", Pages::Both, SCRIPT, include_str!("files/text.js")),
    file("/page/words.js", Pages::Both, SCRIPT, include_str!("files/words.js")),
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

/// The file of the operator's page at a path.
pub(crate) fn file_at(path: &str) -> Option<&'static PageFile> {
    FILES.iter().find(|file| file.path == path && file.of != Pages::Test)
}

/// The file of the self-test's own page at a path.
pub(crate) fn test_file_at(path: &str) -> Option<&'static PageFile> {
    FILES.iter().find(|file| file.path == path && file.of != Pages::Operator)
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
    fn the_pages_name_their_own_files_and_nothing_elsewhere() {
        for file in FILES {
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
        for (page, other) in [(PAGE, Pages::Test), (TEST_PAGE, Pages::Operator)] {
            let at = if page == PAGE { file_at } else { test_file_at };
            let mut used = vec![page.to_owned()];
            let mut next = 0;
            while let Some(path) = used.get(next) {
                let file = at(path).unwrap_or_else(|| panic!("{path} is not of {page}"));
                let links = ["href=\"", "src=\""].iter().flat_map(|before| named(file.body, before));
                assert!(links.clone().all(|link| !link.starts_with('/')), "{path}: a proxy may show it under a path");
                let links = links.filter(|link| link.starts_with("page/")).map(|link| format!("/{link}"));
                let modules = named(file.body, " from \"./").into_iter().map(|name| format!("/page/{name}"));
                let more: Vec<_> = links.chain(modules).filter(|path| !used.contains(path)).collect();
                used.extend(more);
                next += 1;
            }
            for file in FILES.iter().filter(|file| file.of != other) {
                assert!(used.iter().any(|path| path == file.path), "nothing of {page} uses {}", file.path);
            }
        }
    }
}
