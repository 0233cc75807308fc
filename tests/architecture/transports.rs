//! What a transport promises cannot be left open: one more does not compile until every question has its answer.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::source::root;

/// The questions that every transport answers.
const QUESTIONS: [&str; 5] = ["framing", "is_reliable", "proves_address", "is_encrypted", "socket_kind"];

/// What the compiler says to the file of the transports with some list of them.
fn compile(text: &str, folder: &Path) -> (bool, String) {
    let file = folder.join("transport.rs");
    fs::write(&file, text).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--color=never", "-o"]);
    let output = command.arg(folder.join("transport.rmeta")).arg(&file).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_transport_more_does_not_compile_until_every_question_has_its_answer() {
    let folder = std::env::temp_dir().join(format!("transports-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let text = fs::read_to_string(root().join("crates/turn/src/addr/transport.rs")).unwrap();
    let (compiles, errors) = compile(&text, &folder);
    assert!(compiles, "{errors}");

    let last = "    Dtls = \"dtls\",\n";
    let one_more = text.replace(last, &format!("{last}    /// Datagrams over QUIC.\n    Quic = \"quic\",\n"));
    assert_ne!(one_more, text, "the list of transports ends otherwise");
    let (compiles, errors) = compile(&one_more, &folder);
    fs::remove_dir_all(&folder).unwrap();
    assert!(!compiles);
    let open = errors
        .lines()
        .filter(|line| line.starts_with("error[E0004]") && line.contains("`Transport::Quic` not covered"));
    assert_eq!(open.count(), QUESTIONS.len(), "{errors}");
    for question in QUESTIONS {
        assert!(text.contains(&format!("pub fn {question}(self)")), "{question} is asked no more");
    }
}
