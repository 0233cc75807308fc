//! Which file uses which: paths of `use` and of the code, followed through re-exports to the file that defines what they name.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::source::{Source, product_code};

/// A module: its crate (`turnstone` is the program's), then its path.
pub(crate) type Module = Vec<String>;

/// Every module by what it declares, imports and names.
pub(crate) struct Graph {
    files: BTreeMap<Module, File>,
}

struct File {
    tokens: Vec<String>,
    imports: Vec<Import>,
    /// Where in [`Self::tokens`] the `use` items are.
    in_use: Vec<bool>,
}

/// One name of a `use`: `*` for all names of a module.
struct Import {
    path: Vec<String>,
    name: String,
    is_public: bool,
}

/// What a path leads to.
enum Target {
    Module(Module),
    ItemOf(Module),
}

impl Graph {
    pub(crate) fn new(sources: &[Source]) -> Self {
        Self { files: sources.iter().map(|source| (source.module.clone(), File::read(source))).collect() }
    }

    /// The paths that a file names, from the crate on, as they are written: re-exports are not followed.
    pub(crate) fn named(&self, module: &Module) -> BTreeSet<Vec<String>> {
        let Some(file) = self.files.get(module) else { return BTreeSet::new() };
        let imports = file.imports.iter().map(|import| import.path.clone());
        imports.chain(file.paths()).filter_map(|path| self.absolute(module, &path, 0)).collect()
    }

    /// The files that each file uses. Methods of types in the files `spread` do not count.
    pub(crate) fn edges(&self, spread: &[Module]) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, file) in &self.files {
            let used = edges.entry(module.clone()).or_default();
            // What is only handed on is not used here.
            let imports = file
                .imports
                .iter()
                .filter(|import| !import.is_public || file.says(&import.name))
                .map(|import| &import.path);
            for path in imports.cloned().chain(file.paths()) {
                if let Some(Target::ItemOf(definer)) = self.target(module, &path, 0) {
                    used.insert(definer);
                }
            }
        }
        self.add_methods(&mut edges, spread);
        for (module, used) in &mut edges {
            used.remove(module);
        }
        edges
    }

    /// A type's methods may be in other files than the type: whoever of these files calls one uses the file that has it.
    fn add_methods(&self, edges: &mut BTreeMap<Module, BTreeSet<Module>>, spread: &[Module]) {
        let mut by_type: BTreeMap<(Module, String), BTreeMap<String, Module>> = BTreeMap::new();
        for (module, file) in &self.files {
            for (name, methods) in file.inherent_impls() {
                let path = vec![name.clone()];
                let home = match self.target(module, &path, 0) {
                    Some(Target::ItemOf(home)) => home,
                    _ => module.clone(),
                };
                let of_type = by_type.entry((home, name)).or_default();
                of_type.extend(methods.into_iter().map(|method| (method, module.clone())));
            }
        }
        for ((home, _), methods) in by_type {
            let files: BTreeSet<&Module> = methods.values().chain([&home]).collect();
            if files.len() == 1 || spread.contains(&home) {
                continue;
            }
            for user in files {
                let Some(file) = self.files.get(user) else { continue };
                let called =
                    methods.iter().filter(|(method, _)| file.calls(method)).map(|(_, definer)| definer.clone());
                edges.entry(user.clone()).or_default().extend(called);
            }
        }
    }

    /// A path of `module`'s as one from a crate on; none if it leads out of the workspace, or nowhere but into the file itself.
    fn absolute(&self, module: &Module, path: &[String], depth: usize) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut start = match first.as_str() {
            "crate" => vec![module.first()?.clone()],
            "self" => module.clone(),
            "super" => {
                let climbs = path.iter().take_while(|segment| *segment == "super").count();
                let mut start = module.get(..module.len().checked_sub(climbs)?)?.to_vec();
                start.extend_from_slice(&path[climbs..]);
                return Some(start);
            }
            name if name.starts_with("turnstone_") => vec![name["turnstone_".len()..].to_owned()],
            name if self.files.contains_key(&below(module, name)) => below(module, name),
            name => {
                let mut imports = self.files.get(module)?.imports.iter();
                let import = imports.find(|import| import.name == name && import.path != path)?;
                if depth > 8 {
                    return None;
                }
                self.absolute(module, &import.path, depth + 1)?
            }
        };
        start.extend_from_slice(rest);
        Some(start)
    }

    fn target(&self, module: &Module, path: &[String], depth: usize) -> Option<Target> {
        self.follow(&self.absolute(module, path, depth)?, depth)
    }

    /// Goes down from the crate, through what modules import from elsewhere.
    fn follow(&self, path: &[String], depth: usize) -> Option<Target> {
        let mut module = vec![path.first()?.clone()];
        self.files.get(&module)?;
        for (at, segment) in path.iter().enumerate().skip(1) {
            if self.files.contains_key(&below(&module, segment)) {
                module.push(segment.clone());
                continue;
            }
            return match self.imported(&module, segment, depth) {
                Some(mut beyond) if depth <= 8 => {
                    beyond.extend_from_slice(&path[at + 1..]);
                    self.follow(&beyond, depth + 1)
                }
                _ if segment == "*" => Some(Target::Module(module)),
                _ => Some(Target::ItemOf(module)),
            };
        }
        Some(Target::Module(module))
    }

    /// The path of what a module knows by this name through an import.
    fn imported(&self, module: &Module, name: &str, depth: usize) -> Option<Vec<String>> {
        let file = self.files.get(module)?;
        if let Some(import) = file.imports.iter().find(|import| import.name == name) {
            return self.absolute(module, &import.path, depth + 1);
        }
        if file.defines(name) || depth > 8 {
            return None;
        }
        file.imports.iter().filter(|import| import.name == "*").find_map(|import| {
            let mut path = self.absolute(module, &import.path, depth + 1)?;
            path.pop();
            let Target::Module(of) = self.follow(&path, depth + 1)? else { return None };
            let has = self.files.get(&of)?.defines(name) || self.imported(&of, name, depth + 1).is_some();
            path.push(name.to_owned());
            has.then_some(path)
        })
    }
}

impl File {
    fn read(source: &Source) -> Self {
        let tokens = tokens(&product_code(&source.text));
        let mut file = Self { imports: Vec::new(), in_use: vec![false; tokens.len()], tokens };
        let mut at = 0;
        while at < file.tokens.len() {
            if file.tokens[at] == "use" && file.token(at + 1) != "<" {
                let is_public = at > 0 && ["pub", ")"].contains(&file.token(at - 1));
                let end = at + file.tokens[at..].iter().position(|token| token == ";").unwrap_or(1);
                let mut names = Vec::new();
                tree(&file.tokens[at + 1..end], &[], &mut names);
                file.imports.extend(names.into_iter().map(|(path, name)| Import { path, name, is_public }));
                file.in_use[at..end].fill(true);
                at = end;
            }
            at += 1;
        }
        file
    }

    fn token(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", String::as_str)
    }

    /// The paths of two segments and more outside of `use`.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let mut path = Vec::new();
            let start = at;
            while is_name(self.token(at)) {
                path.push(self.tokens[at].clone());
                if self.token(at + 1) != "::" || !is_name(self.token(at + 2)) {
                    break;
                }
                at += 2;
            }
            if path.len() > 1 && !self.in_use[start] && (start == 0 || !["::", "$"].contains(&self.token(start - 1))) {
                found.push(path);
            }
            at += 1;
        }
        found
    }

    /// Whether a name occurs outside of `use`.
    fn says(&self, name: &str) -> bool {
        self.tokens.iter().zip(&self.in_use).any(|(token, in_use)| token == name && !in_use)
    }

    fn calls(&self, method: &str) -> bool {
        let called = |at: usize| [".", "::"].contains(&self.token(at - 1)) && ["(", "::"].contains(&self.token(at + 1));
        (1..self.tokens.len()).any(|at| self.tokens[at] == method && called(at))
    }

    fn defines(&self, name: &str) -> bool {
        const ITEMS: [&str; 8] = ["struct", "enum", "fn", "trait", "type", "const", "static", "union"];
        self.tokens.windows(2).any(|pair| ITEMS.contains(&pair[0].as_str()) && pair[1] == name)
    }

    /// Each `impl Name { … }` with the names of its functions.
    fn inherent_impls(&self) -> Vec<(String, Vec<String>)> {
        let mut found = Vec::new();
        for start in (0..self.tokens.len()).filter(|at| self.tokens[*at] == "impl") {
            let Some(open) = self.tokens[start..].iter().position(|token| token == "{").map(|at| start + at) else {
                continue;
            };
            let head = &self.tokens[start + 1..open];
            // Not `impl Trait` in a signature either: that has more than a name and its parameters in front of the brace.
            let head = if head.first().is_some_and(|token| token == "<") { after_parameters(head) } else { head };
            let (Some(name), true) = (head.first(), start == 0 || ["}", ";", "]"].contains(&self.token(start - 1)))
            else {
                continue;
            };
            if head.iter().any(|token| token == "for" || token == "(") || !is_name(name) {
                continue;
            }
            let (mut nesting, mut methods) = (0, Vec::new());
            for at in open..self.tokens.len() {
                match self.token(at) {
                    "{" => nesting += 1,
                    "}" => nesting -= 1,
                    "fn" if nesting == 1 => methods.push(self.token(at + 1).to_owned()),
                    _ => {}
                }
                if nesting == 0 {
                    break;
                }
            }
            found.push((name.clone(), methods));
        }
        found
    }
}

fn after_parameters(head: &[String]) -> &[String] {
    let mut nesting = 0;
    for (at, token) in head.iter().enumerate() {
        match token.as_str() {
            "<" => nesting += 1,
            ">" => nesting -= 1,
            _ => {}
        }
        if nesting == 0 {
            return &head[at + 1..];
        }
    }
    &[]
}

fn below(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn tokens(code: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let name = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let end = if rest.starts_with("::") { 2 } else { name.max(c.len_utf8()) };
        if !c.is_whitespace() {
            found.push(rest[..end].to_owned());
        }
        rest = &rest[end..];
    }
    found
}

/// The names that a `use` brings: `a::{b, c as d, e::*}`.
fn tree(tokens: &[String], prefix: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let mut path = prefix.to_vec();
    let mut name = None;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "::" => {}
            "as" => {
                name = tokens.get(at + 1).cloned();
                at += 1;
            }
            "{" => {
                let (mut nesting, mut start) = (0, at + 1);
                for (end, token) in tokens.iter().enumerate().skip(at) {
                    match token.as_str() {
                        "{" => nesting += 1,
                        "}" => nesting -= 1,
                        _ => {}
                    }
                    if (nesting == 1 && token == ",") || nesting == 0 {
                        if start < end {
                            tree(&tokens[start..end], &path, found);
                        }
                        start = end + 1;
                    }
                    if nesting == 0 {
                        break;
                    }
                }
                return;
            }
            "self" if !path.is_empty() => {}
            segment => path.push(segment.to_owned()),
        }
        at += 1;
    }
    if let Some(name) = name.or_else(|| path.last().cloned()) {
        found.push((path, name));
    }
}

/// Nodes that reach each other.
pub(crate) struct Circle<N> {
    /// The shortest way from the group's first node to itself.
    pub(crate) shortest: Vec<N>,
    pub(crate) group: BTreeSet<N>,
}

pub(crate) fn circles<N: Ord + Clone>(edges: &BTreeMap<N, BTreeSet<N>>) -> Vec<Circle<N>> {
    // What is reached from a node, each with the node before it.
    let reach = |from: &N| {
        let mut before: BTreeMap<N, N> = BTreeMap::new();
        let mut queue = VecDeque::from([from.clone()]);
        while let Some(node) = queue.pop_front() {
            for next in edges.get(&node).into_iter().flatten() {
                if !before.contains_key(next) {
                    before.insert(next.clone(), node.clone());
                    queue.push_back(next.clone());
                }
            }
        }
        before
    };
    let reached: BTreeMap<&N, _> = edges.keys().map(|node| (node, reach(node))).collect();
    let mut found: Vec<Circle<N>> = Vec::new();
    for (node, before) in &reached {
        let Some(mut at) = before.get(node).filter(|_| !found.iter().any(|circle| circle.group.contains(node))) else {
            continue;
        };
        let mut shortest = vec![N::clone(node)];
        while at != *node {
            shortest.push(at.clone());
            at = &before[at];
        }
        shortest.push(N::clone(node));
        shortest.reverse();
        let group = before.keys().filter(|other| reached[other].contains_key(node)).cloned().collect();
        found.push(Circle { shortest, group });
    }
    found
}
