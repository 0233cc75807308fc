//! The sources of the workspace, and what of them is built into the product.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// Its crate, then its module path, e.g. `["turn", "auth", "nonce"]`; the program's crate is `turnstone`.
    pub(crate) module: Vec<String>,
    pub(crate) text: String,
}

impl Source {
    /// The room: a module of the program, a crate, or a module of a crate that has a row of its own.
    pub(crate) fn room(&self) -> &str {
        room(&self.module)
    }
}

/// The room that a module, or a path into it, belongs to.
pub(crate) fn room(path: &[String]) -> &str {
    match path {
        [of_crate, module, ..] if of_crate == "turnstone" || has_row(of_crate, module) => module,
        [of_crate, ..] if of_crate != "turnstone" => of_crate,
        _ => "lib",
    }
}

/// A path as the rows have it: a room and one name below it.
pub(crate) fn in_rows(path: &[String]) -> String {
    let room = room(path);
    let below = path.iter().skip_while(|segment| *segment != room).nth(1);
    below.map_or_else(|| room.to_owned(), |below| format!("{room}::{below}"))
}

/// Whether a module of a crate has a row of its own; the rest of the crate has the crate's.
fn has_row(of_crate: &str, module: &str) -> bool {
    of_crate == "turn" && (super::SHARED.contains(&module) || ["auth", "policy"].contains(&module))
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn sources() -> Vec<Source> {
    let mut found = sources_of(&root().join("src"), "turnstone");
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        found.extend(sources_of(&folder.join("src"), folder.file_name().unwrap().to_str().unwrap()));
    }
    assert!(found.len() > 200, "found only {} sources", found.len());
    found
}

fn sources_of(src: &Path, of_crate: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for path in files_below(src) {
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let relative = path.strip_prefix(src).unwrap().with_extension("");
        let mut module = vec![of_crate.to_owned()];
        module.extend(relative.iter().map(|part| part.to_str().unwrap().to_owned()));
        if module.last().is_some_and(|last| last == "mod" || last == "lib") {
            module.pop();
        }
        let mut text = fs::read_to_string(&path).unwrap();
        if path.file_name().is_some_and(|name| name == "tests.rs") {
            // A test module with a file of its own.
            let after_its_purpose = text.find('\n').map_or(0, |end| end + 1);
            text.insert_str(after_its_purpose, "#[cfg(test)]\nmod tests;\n");
        }
        found.push(Source { path, module, text });
    }
    found
}

pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_symlink() || [".git", ".venv", "target", "node_modules", "corpus", "artifacts"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The part of a source in front of its test module.
pub(crate) fn without_tests(text: &str) -> &str {
    const MARK: &str = "#[cfg(test)]\n";
    let mut marks = text.match_indices(MARK).map(|(at, _)| at);
    let is_module = |at: &usize| text[at + MARK.len()..].lines().next().is_some_and(|line| line.contains("mod "));
    marks.find(is_module).map_or(text, |at| &text[..at])
}

/// The code that is built into the product: without comments, string contents and the test module at the end.
pub(crate) fn product_code(text: &str) -> String {
    let text = without_tests(text);
    let mut code = String::new();
    let mut rest = text.chars().peekable();
    let mut in_string = false;
    while let Some(c) = rest.next() {
        match c {
            '\\' if in_string => drop(rest.next()),
            '\'' if !in_string && rest.peek() == Some(&'"') => drop(rest.next()),
            '"' => {
                in_string = !in_string;
                code.push(c);
            }
            _ if in_string => {}
            '/' if rest.peek() == Some(&'/') => while rest.next_if(|&next| next != '\n').is_some() {},
            _ => code.push(c),
        }
    }
    code
}
