//! The blocks for typing that a page has, and what is to be typed of them.

use std::path::Path;

/// A block of `sh` or `console`.
#[derive(Debug)]
pub(crate) struct Block {
    /// For messages: page and line.
    pub(crate) place: String,
    pub(crate) run: Run,
    pub(crate) commands: Vec<Typed>,
}

/// How a block is run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Here,
    Outside,
    Until(String),
    Not(String),
}

/// One command of a block, or the whole of a script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) text: String,
    /// What is shown below it.
    pub(crate) shown: Vec<String>,
}

/// Those of a page; a mistake in how they are written is a message.
pub(crate) fn blocks_of(page: &str, text: &str) -> Result<Vec<Block>, String> {
    let mut found = Vec::new();
    let mut before = "";
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            if !line.trim().is_empty() {
                before = line;
            }
            continue;
        };
        let inside: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let place = format!("{page}:{}", number + 1);
        let run = run_of(before).map_err(|why| format!("{place}: {why}"))?;
        before = "";
        let commands = match language {
            "console" => console(&inside).map_err(|why| format!("{place}: {why}"))?,
            "sh" => vec![Typed { text: inside.join("\n"), shown: Vec::new() }],
            "bash" | "shell" => return Err(format!("{place}: write sh or console in place of {language}")),
            _ if inside.iter().any(|line| line.starts_with("$ ")) => {
                return Err(format!("{place}: commands for typing are a block of console, not of {language:?}"));
            }
            _ => continue,
        };
        found.push(Block { place, run, commands });
    }
    Ok(found)
}

/// The commands of the program that the text of a page has between backquotes, whole ones: a name alone, or with a word in capitals in place of
/// what the reader has, is left out.
pub(crate) fn in_the_text(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2).collect::<Vec<_>>().join(" ");
    let quoted = prose.split('`').skip(1).step_by(2).map(|quoted| quoted.replace('\n', " "));
    let is_placeholder = |word: &str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
    let is_whole = |command: &String| {
        let command = command.strip_prefix("sudo ").unwrap_or(command);
        let words: Vec<&str> = command.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
        command.starts_with("turnstone ") && words.len() > 2 && !words.iter().any(|word| is_placeholder(word))
    };
    quoted.filter(is_whole).collect()
}

/// What the line before a block says of it.
fn run_of(before: &str) -> Result<Run, String> {
    let Some(comment) = before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else {
        return Ok(Run::Here);
    };
    if comment == "run outside" {
        return Ok(Run::Outside);
    }
    if let Some(text) = comment.strip_prefix("run until \"").and_then(|rest| rest.strip_suffix('"')) {
        return Ok(Run::Until(text.to_owned()));
    }
    match comment.strip_prefix("not run: ").map(str::trim) {
        Some(reason) if reason.len() >= 10 => Ok(Run::Not(reason.to_owned())),
        _ => Err(format!("no such mark: {comment}")),
    }
}

fn console(lines: &[&str]) -> Result<Vec<Typed>, String> {
    let mut commands: Vec<Typed> = Vec::new();
    let mut goes_on = false;
    for line in lines {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push(Typed { text: command.to_owned(), shown: Vec::new() });
        } else {
            let last = commands.last_mut().ok_or_else(|| format!("output before any command: {line}"))?;
            if goes_on {
                last.text = format!("{}\n{line}", last.text);
            } else {
                last.shown.push((*line).to_owned());
                continue;
            }
        }
        goes_on = line.ends_with(['\\', '|']) || line.ends_with("&&");
    }
    // Blank lines between commands are no output.
    for command in &mut commands {
        while command.shown.last().is_some_and(|line| line.trim().is_empty()) {
            command.shown.pop();
        }
    }
    if commands.is_empty() { Err("no command".to_owned()) } else { Ok(commands) }
}

/// Whether output is like what a page shows: its lines, in order, with others between them. What differs from run to run need not be equal:
/// numbers, and long words without a blank (keys, credentials); `...` stands for anything.
pub(crate) fn is_like(shown: &[String], output: &str) -> bool {
    let mut lines = output.lines();
    shown.iter().filter(|line| !line.trim().is_empty()).all(|shown| lines.any(|line| line_is_like(shown, line)))
}

fn line_is_like(shown: &str, line: &str) -> bool {
    let (shown, line) = (without_chance(shown), without_chance(line));
    let mut rest = line.as_str();
    let parts: Vec<&str> = shown.split("...").collect();
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    if parts.len() == 1 {
        return shown == line;
    }
    if !rest.starts_with(first) || !rest.ends_with(last) || rest.len() < first.len() + last.len() {
        return false;
    }
    rest = &rest[first.len()..rest.len() - last.len()];
    parts[1..parts.len() - 1].iter().all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// `@` for each long word with digits, `#` for each other number.
fn without_chance(line: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for character in line.trim_end().chars().chain([' ']) {
        if character.is_ascii_alphanumeric() || "-_+/=".contains(character) {
            word.push(character);
            continue;
        }
        if word.len() >= 20 && word.contains(|c: char| c.is_ascii_digit()) {
            out.push('@');
        } else {
            let mut of_text = word.split(|c: char| c.is_ascii_digit()).filter(|text| !text.is_empty()).peekable();
            if word.starts_with(|c: char| c.is_ascii_digit()) {
                out.push('#');
            }
            while let Some(text) = of_text.next() {
                out.push_str(text);
                if of_text.peek().is_some() || word.ends_with(|c: char| c.is_ascii_digit()) {
                    out.push('#');
                }
            }
        }
        word.clear();
        out.push(character);
    }
    out.pop();
    out
}

/// README and each page of `docs/`: its path from the top, and its text.
pub(crate) fn pages() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = std::fs::read_dir(top.join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().into_string().unwrap()))
        .filter(|name| name.ends_with(".md"))
        .collect();
    names.sort();
    names.insert(0, "README.md".to_owned());
    names.into_iter().map(|name| (name.clone(), std::fs::read_to_string(top.join(&name)).unwrap())).collect()
}

#[test]
fn every_block_for_typing_is_run_or_says_why_not() {
    let mut wrong = Vec::new();
    let (mut run, mut not_run) = (0, Vec::new());
    for (name, text) in pages() {
        match blocks_of(&name, &text) {
            Ok(blocks) => {
                for block in blocks {
                    match &block.run {
                        Run::Not(reason) => not_run.push(format!("{}: {reason}", block.place)),
                        _ => run += 1,
                    }
                }
            }
            Err(why) => wrong.push(why),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{run} blocks are run; not run:\n{}", not_run.join("\n"));
    assert!(run > 15 && not_run.len() * 5 <= run, "{run} are run, and not run:\n{}", not_run.join("\n"));
}

#[test]
fn a_page_is_read_as_it_is_meant() {
    let text = "a\n\n```console\n$ one |\n    two\nshown 1\n\n$ three\n```\n<!-- not run: needs the moon -->\n\n```sh\nx\ny\n```\n";
    let blocks = blocks_of("page", text).unwrap();
    let typed = |text: &str, shown: &[&str]| Typed {
        text: text.to_owned(),
        shown: shown.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(blocks[0].place, "page:3");
    assert_eq!(blocks[0].commands, [typed("one |\n    two", &["shown 1"]), typed("three", &[])]);
    assert_eq!(
        (&blocks[1].run, &blocks[1].commands[..]),
        (&Run::Not("needs the moon".to_owned()), &[typed("x\ny", &[])][..])
    );
    for (wrong, why) in [
        ("```\n$ a\n```\n", "page:1: commands for typing are a block of console"),
        ("```console\na\n```\n", "page:1: output before any command"),
        ("<!-- skip -->\n```sh\na\n```\n", "page:2: no such mark: skip"),
        ("<!-- not run: no -->\n```sh\na\n```\n", "page:2: no such mark"),
        ("```bash\na\n```\n", "page:1: write sh or console"),
    ] {
        let error = blocks_of("page", wrong).unwrap_err();
        assert!(error.starts_with(why), "{error}");
    }
}

#[test]
fn commands_in_the_text_are_found_where_they_are_whole() {
    let text = "`turnstone explain` and `sudo turnstone explain\n10.1.2.3`, `turnstone show ID`, `top -b`\n```sh\nturnstone a b\n```\n`turnstone a -b`";
    assert_eq!(in_the_text(text), ["sudo turnstone explain 10.1.2.3", "turnstone a -b"]);
}

#[test]
fn output_is_compared_but_for_what_chance_makes() {
    let shown = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let key = "tsk_2n-yGJ0dM9o3mB0v3cZ4mWcO8r1b5Q7t6u8x9y0zABC";
    assert!(is_like(&shown("a 12 b\n\nid = \"...\""), "zero\na 7 b\nmore\nid = \"abc\"\n"));
    assert!(is_like(&shown(key), "tsk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa9"));
    assert!(is_like(&shown("{\"x\":\"...\",\"y\":12,\"z\":\"...\"}"), "{\"x\":\"1\",\"y\":99,\"z\":\"\"}"));
    assert!(!is_like(&shown("{\"x\":\"...\",\"y\":12,\"z\":\"...\"}"), "{\"x\":\"1\",\"w\":99,\"z\":\"\"}"));
    assert!(is_like(&shown("1 a2b 3"), "12 a7b 45") && !is_like(&shown("1 a2b"), "1 ab"));
    assert!(!is_like(&shown("a 12 b"), "a 12 c"));
    assert!(!is_like(&shown("one\ntwo"), "two\none"));
    assert!(!is_like(&shown("...ab"), "b"));
}
