//! What the README and the pages in `docs/` tell people to copy works as it stands.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const README: &str = include_str!("../README.md");
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The first block of a language that has `needle` in it.
fn block(language: &str, needle: &str) -> &'static str {
    README
        .split(&format!("```{language}\n"))
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap())
        .find(|block| block.contains(needle))
        .unwrap_or_else(|| panic!("the README has no {language} block with {needle}"))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error} (tests/run installs it)"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `username password` on one line must pass the server's own judgement.
fn must_be_valid(printed: &str) {
    let (username, password) = printed.trim().split_once(' ').unwrap_or_else(|| panic!("{printed:?}"));
    assert!(username.ends_with(":alice"), "{username}");
    let verdict = Command::new(env!("CARGO_BIN_EXE_turnstone"))
        .args(["credentials", "verify", username, password])
        .env("TURNSTONE_SECRET", SECRET)
        .env("TURNSTONE_CONFIG", empty_config().path())
        .output()
        .unwrap();
    assert!(verdict.status.success(), "{verdict:?}");
}

fn empty_config() -> &'static tempfile::NamedTempFile {
    static FILE: std::sync::OnceLock<tempfile::NamedTempFile> = std::sync::OnceLock::new();
    FILE.get_or_init(|| tempfile::NamedTempFile::new().unwrap())
}

/// The line that `serve --dev` prints for a page.
fn line_of_serve_dev() -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(["serve", "--dev"]).env_clear().stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("RTCPeerConnection"));
    server.kill().unwrap();
    server.wait().unwrap();
    line.unwrap()
}

/// A browser's view of a line: every RTCIceServer has its fields (W3C WebRTC, RTCConfiguration), and prints their form.
const PAGE: &str = r#"
class RTCPeerConnection {
  constructor(config) {
    for (const server of config.iceServers) {
      const urls = [server.urls].flat();
      if (urls.length === 0 || urls.some((url) => !/^turns?:[^ ]+:[0-9]+[?]transport=(udp|tcp)$/.test(url))) throw new TypeError(urls);
      if (typeof server.username !== "string" || typeof server.credential !== "string") throw new TypeError("no credential");
    }
    console.log(config.iceTransportPolicy, Object.keys(config).join(), config.iceServers.map((s) => Object.keys(s).join()).join());
  }
}
"#;

#[test]
fn the_line_of_serve_dev_works_as_it_stands_and_is_what_is_shown() {
    let printed = line_of_serve_dev();
    let shown = block("js", "RTCPeerConnection");
    assert_eq!(shown.lines().count(), 1, "{shown}");
    let forms = [&printed, shown].map(|line| output(Command::new("node").args(["-e", &format!("{PAGE}\n{line}")])));
    assert_eq!(forms[0], forms[1], "{printed}\n{shown}");
    assert!(forms[0].starts_with("relay "), "{}", forms[0]);
}

#[test]
fn the_credentials_made_in_node_are_valid() {
    let code = format!(
        "{}\nconst made = turnCredentials({SECRET:?}, 'alice');\nconsole.log(made.username, made.credential);",
        block("js", "createHmac")
    );
    must_be_valid(&output(Command::new("node").args(["--input-type=module", "-e", &code])));
}

/// README, CONTRIBUTING and each page of `docs/`, with its path from the top.
fn pages() -> Vec<(PathBuf, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(top.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    paths.extend([top.join("README.md"), top.join("CONTRIBUTING.md")]);
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The blocks of a language on a page.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    page.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// Files that an example names are not here; everything else in it is judged.
fn judged(text: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str, bytes: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["turn.example.org", "turn.a.example", "turn.b.example"].map(str::to_owned);
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let chain = written("fullchain.pem", &certificate.pem());
    let private = written("privkey.pem", &key.serialize_pem());
    let secret = written("secret", SECRET);
    let replaced = text.lines().map(|line| match line.split_once(" = \"/etc/turnstone/") {
        Some(("certificate", _)) => format!("certificate = \"{chain}\""),
        Some(("key", _)) => format!("key = \"{private}\""),
        Some((name, _)) => format!("{name} = \"{secret}\""),
        None => line.to_owned(),
    });
    let mut text = replaced
        .collect::<Vec<_>>()
        .join("\n")
        .replace("sha256 = \"...\"", &format!("sha256 = \"{}\"", "0".repeat(64)));
    text = text.replace("SHA-256 of the key", &"0".repeat(64));
    // A fragment of the pages stands in a file that has the rest.
    if text.contains("[[credentials.keys]]") && !text.contains("[credentials]") {
        text = format!("[credentials]\nlisten = \"127.0.0.1:8443\"\n{text}");
    }
    let needs_tls = text.contains("\"tls\"") || text.contains("[credentials]");
    if needs_tls && !text.lines().any(|line| line == "[tls]") {
        text = format!("{text}\n[tls]\ncertificate = \"{chain}\"\nkey = \"{private}\"\n");
    }
    let file = written("turnserver.toml", &text);
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(["config", "show", "--config", &file]);
    if !text.contains("ipv4 = [") {
        command.args(["--relay-ipv4", "192.0.2.1"]);
    }
    if !text.contains("secrets]]") {
        command.env("TURNSTONE_SECRET", SECRET);
    }
    let checked = command.output().unwrap();
    if checked.status.success() {
        Ok(())
    } else {
        Err(format!(
            "{text}
{}",
            String::from_utf8_lossy(&checked.stderr)
        ))
    }
}

#[test]
fn the_toml_of_every_page_is_accepted() {
    let pages = pages();
    // The examples of the reference name more files and variables: they are looked at in `tests/config/documented`.
    let tasks = || pages.iter().filter(|(path, _)| !path.ends_with("docs/reference.md"));
    let all = || tasks().flat_map(|(path, page)| blocks(page, "toml").into_iter().map(move |block| (path, block)));
    let refused = all().filter_map(|(path, block)| judged(block).err().map(|why| format!("{}: {why}", path.display())));
    let refused: Vec<_> = refused.collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(all().count() >= 10, "{} blocks of toml", all().count());
}

#[test]
fn production_in_five_minutes_is_a_script_with_a_configuration_that_is_accepted() {
    let script = block("sh", "systemd/install.sh");
    let read = Command::new("sh").args(["-n", "-c", script]).output().unwrap();
    assert!(read.status.success(), "{read:?}");
    let written = script.split_once("<<END\n").unwrap().1.split_once("\nEND\n").unwrap().0;
    let shell = format!("{}\ncat <<END\n{written}\nEND\n", script.split_once("\n\n").unwrap().0);
    let text = output(Command::new("sh").args(["-c", &shell]));
    assert!(text.contains("public-host = \"turn.example.org\"") && !text.contains('$'), "{text}");
    judged(&text).unwrap();
}

/// The command lines of a page's console blocks, without what continues them, and of its text between backquotes.
fn command_lines(page: &str) -> Vec<String> {
    let consoles = blocks(page, "console").join("\n").replace("|\n", "| ").replace("\\\n", " ");
    let scripts = blocks(page, "sh").join("\n");
    let typed = consoles.lines().filter_map(|line| line.strip_prefix("$ ")).chain(scripts.lines()).map(str::to_owned);
    let prose = page.split("```").step_by(2).collect::<Vec<_>>().join(" ");
    let quoted = prose.split('`').skip(1).step_by(2).map(|quoted| quoted.replace('\n', " "));
    typed
        .chain(quoted)
        .flat_map(|line| line.split(['|', '&', ';', ')']).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn every_command_on_every_page_has_the_options_that_it_is_shown_with() {
    let help = |command: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_turnstone")).args(command).arg("--help").output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    let mut shown = 0;
    let mut wrong = Vec::new();
    for (path, page) in pages() {
        for line in command_lines(&page) {
            let line = line.trim();
            let as_root = line.rsplit_once("sudo ").filter(|(_, rest)| rest.starts_with("turnstone "));
            let line = as_root.map_or(line, |(_, rest)| rest);
            let line = line.strip_prefix("target/release/").unwrap_or(line);
            let Some(rest) = line.strip_prefix("turnstone ") else { continue };
            let words: Vec<&str> = rest.split_whitespace().collect();
            let Some(first) = words.first().filter(|word| !word.starts_with('-')) else { continue };
            shown += 1;
            let Some(text) = help(&[first]) else {
                wrong.push(format!("{}: there is no command {first}: {line}", path.display()));
                continue;
            };
            let below = words.get(1).filter(|_| *first == "credentials" || *first == "config");
            let text = below.and_then(|second| help(&[first, second])).unwrap_or(text);
            // `bench --forwarder` is for the comparison alone, and in no help.
            let options = words.iter().take_while(|word| **word != "--").filter(|word| word.starts_with("--"));
            for option in options.filter(|option| **option != "--forwarder") {
                let option = option.trim_end_matches([',', '.', ':']).split('=').next().unwrap();
                if !text.contains(option) {
                    wrong.push(format!("{}: no {option} in the help of: {line}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(shown > 40, "{shown} commands");
}

#[test]
fn pictures_are_small_and_say_what_they_show_to_whoever_does_not_see_them() {
    let mut seen = 0;
    for (path, page) in pages() {
        for picture in page.split("![").skip(1) {
            let (words, rest) = picture.split_once("](").unwrap();
            let file = path.parent().unwrap().join(rest.split(')').next().unwrap());
            let size = file.metadata().unwrap_or_else(|error| panic!("{}: {error}", file.display())).len();
            assert!(words.len() > 20 && size < 120_000, "{}: {size} bytes, {words:?}", file.display());
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn every_file_that_a_page_links_to_exists() {
    for (path, page) in pages() {
        for link in page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            if link.starts_with("http") || file.is_empty() {
                continue;
            }
            let target = path.parent().unwrap().join(file);
            assert!(target.exists(), "{}: {link} does not exist", path.display());
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap().to_lowercase().replace(' ', "-");
                // GitHub drops what is neither letter nor digit.
                let text = text.replace(['[', ']', '.', ',', '`', '\'', ':'], "");
                let is_there = text.lines().any(|line| line.trim_start_matches('#') == format!("-{heading}"));
                assert!(is_there, "{}: {link} names no heading", path.display());
            }
        }
    }
}
