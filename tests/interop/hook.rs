//! `[hook]` with an application that we did not write much of: the one in docs/hook.md, on Python's http.server, and coturn's client.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Credentials, Running, Spec, Transport, free_port, require_tool, wait_until};
use crate::uclient::{Peer, assert_nothing_lost, spec, uclient};

#[test]
fn uclient_is_a_user_of_the_application_in_the_documentation() {
    let text = include_str!("../../docs/hook.md");
    let (_, program) = text.split_once("```python\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    let port = free_port();
    let program = program.replace("8080", &port.to_string());
    assert!(program.contains(&format!("(\"127.0.0.1\", {port})")), "{program}");
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("hook-token");
    std::fs::write(&token_file, "a-token-of-thirty-two-characters\n").unwrap();
    std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut python = Command::new(require_tool("python3", "python3"));
    let python = python.args(["-c", &program]).current_dir(&directory).stdout(Stdio::null()).stderr(Stdio::null());
    let _application = Running(python.spawn().unwrap());
    wait_until("the application", Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", port)).ok());

    let hook = format!("[hook]\nurl = \"http://127.0.0.1:{port}/\"\ntoken-file = \"{}\"\n", token_file.display());
    let server = Spec { extra_toml: hook, ..spec() }.start();
    let erin = Credentials { username: "erin".to_owned(), password: "correct horse battery staple".to_owned() };
    let peer = Peer::start("127.0.0.1");
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let flags = [&peer.flags()[..], &["-c"]].concat();
        assert_nothing_lost(&uclient(&server, transport, "127.0.0.1", &erin, &flags));
        let nobody = Credentials { username: "mallory".to_owned(), ..erin.clone() };
        let finished = uclient(&server, transport, "127.0.0.1", &nobody, &["-y"]);
        assert!(finished.all_output().contains("Cannot complete Allocation"), "{}", finished.all_output());
    }
}
