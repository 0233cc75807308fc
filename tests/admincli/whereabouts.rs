//! How the commands find the server, and what they say when they do not.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use crate::support::{TestServer, require_root, run, wait_until};
use crate::{LIMIT, TOKEN, config, on, printed, turnstone, with_admin};

#[test]
fn a_server_is_found_by_flag_variable_and_configuration() {
    let server = TestServer::start(&config(""));
    let address = format!("unix:{}", server.file("admin.sock"));
    let no_server = "unix:/nowhere/admin.sock";
    let level = |command: &mut std::process::Command| {
        let finished = run(command, LIMIT);
        (finished.code, finished.stdout)
    };
    let found = (Some(0), "info\n".to_owned());
    assert_eq!(level(&mut turnstone(&["log-level", "--admin", &address])), found);
    assert_eq!(level(turnstone(&["log-level"]).env("TURNSTONE_ADMIN", &address)), found);
    assert_eq!(level(turnstone(&["log-level"]).env("TURNSTONE_CONFIG", server.file("turnserver.toml"))), found);
    assert_eq!(
        level(on(&server, &["log-level"]).env("TURNSTONE_ADMIN", "").env("TURNSTONE_CONFIG", "/nowhere")),
        found
    );
    // The flag wins over the variable, the variable over the file.
    assert_eq!(level(turnstone(&["log-level", "--admin", &address]).env("TURNSTONE_ADMIN", no_server)), found);
    assert_eq!(level(on(&server, &["log-level"]).env("TURNSTONE_ADMIN", no_server)).0, Some(3));
}

#[test]
fn where_nobody_is_the_message_says_what_to_look_at() {
    let failed = |command: &mut std::process::Command| {
        let finished = run(command, LIMIT);
        assert_eq!(finished.stdout, "");
        (finished.code, finished.stderr)
    };
    let (code, message) = failed(&mut turnstone(&["status", "--admin", "unix:/nowhere/admin.sock"]));
    assert_eq!(code, Some(3));
    assert!(message.contains("no admin API at unix:/nowhere/admin.sock: there is no such socket\nhint: "), "{message}");

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let stale = folder.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let configured = file("turnserver.toml", "[admin]\nlisten = \"unix:stale.sock\"\n");
    for args in [
        &["status", "--config", &configured][..],
        &["top", "--once", "--config", &configured],
        &["drain", "--wait", "--config", &configured],
        &["kick", "--yes", "--user", "alice", "--config", &configured],
    ] {
        let (code, message) = failed(&mut turnstone(args));
        assert_eq!(code, Some(3), "{message}");
        assert!(message.contains("stale.sock: nobody listens there\nhint: is the server running?"), "{message}");
    }
    let none = file("none.toml", "workers = 1\n");
    let (code, message) = failed(&mut turnstone(&["status", "--config", &none]));
    assert_eq!(code, Some(3));
    let section = "none.toml has no [admin] listen, without which a server has no admin API; add this to it and restart the \
                   server:\n\n[admin]\nlisten = \"unix:/run/turnstone/admin.sock\"\n";
    assert!(message.contains(section), "{message}");

    for (args, problem) in [
        (&["status", "--admin", "192.0.2.1:80"][..], "not a loopback address"),
        (&["status", "--admin", "here"], "expected \"unix:/run/turnstone/admin.sock\""),
        (&["status", "--config", "/nowhere/turnserver.toml"], "cannot read the file"),
        (&["status", "--config", &file("zero.toml", "[admin]\nlisten = \"127.0.0.1:0\"\n")], "port 0"),
        (&["status", "--config", &file("bad.toml", "[admin]\nlisten = 5\n")], "bad.toml:2:10: "),
        (&["status", "--admin-token-file", "/nowhere/token"], "--admin-token-file: cannot read"),
    ] {
        let (code, message) = failed(&mut turnstone(args));
        assert_eq!(code, Some(2), "{args:?}: {message}");
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn whoever_may_not_use_the_socket_is_told_who_may() {
    require_root("a process of another user");
    let server = TestServer::start(&config(""));
    let others = tempfile::tempdir().unwrap();
    let program = others.path().join("turnstone");
    std::fs::copy(env!("CARGO_BIN_EXE_turnstone"), &program).unwrap();
    std::fs::set_permissions(others.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let ask = |path: &str| {
        let mut command = std::process::Command::new(&program);
        command.args(["status", "--admin", &format!("unix:{path}")]).env_clear().current_dir("/").uid(65534).gid(65534);
        let finished = run(&mut command, LIMIT);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(3), ""), "{finished:?}");
        finished.stderr
    };
    // The directory is closed first, then only the socket itself.
    let socket = server.file("admin.sock");
    let folder = std::path::Path::new(&socket).parent().unwrap();
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).unwrap();
    let message = ask(&socket);
    let hint =
        format!("permission denied\nhint: {} is for its owner root and the group root (mode 0700)", folder.display());
    assert!(message.contains(&hint), "{message}");
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    let message = ask(&socket);
    let hint = format!("permission denied\nhint: {socket} is for its owner root and the group root (mode 0660)");
    assert!(message.contains(&hint), "{message}");
}

#[test]
fn a_token_comes_from_a_file_a_variable_or_the_configuration_and_goes_to_its_own_server_only() {
    let file = config("").replace("admin.sock\"", &format!("admin.sock\"\ntoken = \"{TOKEN}\""));
    let by_socket = TestServer::start(&file);
    assert_eq!(printed(&by_socket, &["log-level"]), "info\n");
    assert_eq!(
        run(turnstone(&["log-level"]).env("TURNSTONE_CONFIG", by_socket.file("turnserver.toml")), LIMIT).code,
        Some(0)
    );

    let address = format!("unix:{}", by_socket.file("admin.sock"));
    let token = by_socket.file("admin-token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let with_file =
        |file: &str| run(&mut turnstone(&["log-level", "--admin", &address, "--admin-token-file", file]), LIMIT);
    assert_eq!(with_file(&token).code, Some(0));
    let with_variable = |token: &str| {
        let mut command = turnstone(&["log-level", "--admin", &address]);
        run(command.env("TURNSTONE_ADMIN_TOKEN", token), LIMIT)
    };
    assert_eq!(with_variable(TOKEN).code, Some(0));
    for (finished, problem) in [
        (with_variable(""), "error: expected the header Authorization"),
        (with_variable("b7c1f0a4d2e94c55a0c4"), "error: the token is wrong\nhint: give the token of [admin]"),
        (with_variable("short"), "TURNSTONE_ADMIN_TOKEN: "),
        (with_variable("b7c1f0a4d2e94c55\r\nX-Other: 1"), "printable ASCII"),
    ] {
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{}", finished.stderr);
        assert!(finished.stderr.contains(problem) && !finished.stderr.contains(TOKEN), "{}", finished.stderr);
    }
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(with_file(&token).stderr.contains("chmod 600"));

    // A port, whose number the configuration does not tell.
    let by_port = TestServer::start(&with_admin(&format!("listen = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\""), ""));
    let line = wait_until("the admin API in the log", LIMIT, || {
        by_port.log().lines().find(|line| line.contains("serving the admin API")).map(str::to_owned)
    });
    let port = format!("127.0.0.1:{}", line.rsplit_once("127.0.0.1:").unwrap().1.trim());
    assert_eq!(printed(&by_port, &["log-level", "--admin", &port]), "info\n");
    // The token of a file that nobody named for this server stays here.
    let mut elsewhere = turnstone(&["log-level", "--admin", &port]);
    let refused = run(elsewhere.env("TURNSTONE_CONFIG", by_socket.file("turnserver.toml")), LIMIT);
    assert!(refused.code == Some(2) && refused.stderr.contains("expected the header"), "{refused:?}");
}

#[test]
fn a_server_that_does_not_answer_or_talks_nonsense_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let address = format!("unix:{}", path.display());
    let ask = || run(&mut turnstone(&["status", "--admin", &address]), LIMIT);
    let started = Instant::now();
    let silent = ask();
    assert_eq!((silent.code, silent.stdout.as_str()), (Some(3), ""));
    assert!(silent.stderr.contains("no answer within 10 s"), "{}", silent.stderr);
    assert!(started.elapsed() >= Duration::from_secs(10));
    drop(listener.accept().unwrap());
    for (answer, problem) in [
        ("", "closed without an answer"),
        ("SSH-2.0-OpenSSH\r\n", "error: "),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "not that of an admin API"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"version\":", "the answer broke off"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is not understood"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "not that of an admin API"),
        (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 70\r\n\r\n\
             {\"error\":{\"code\":\"worker_stuck\",\"message\":\"worker 1 does not answer\"}}",
            "error: worker 1 does not answer",
        ),
    ] {
        let refused = std::thread::scope(|scope| {
            let asked = scope.spawn(ask);
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = std::io::Read::read(&mut stream, &mut request);
            stream.write_all(answer.as_bytes()).unwrap();
            drop(stream);
            asked.join().unwrap()
        });
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(3), ""), "{answer:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(problem), "{answer:?}: {}", refused.stderr);
    }
}

#[test]
fn a_socket_that_takes_no_connection_holds_no_command_up() {
    use socket2::{Domain, SockAddr, Socket, Type};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.sock");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
        socket.connect(&SockAddr::unix(&path).unwrap()).map(|()| socket)
    };
    let waiting: Vec<_> = std::iter::repeat_with(connect).map_while(Result::ok).collect();
    let address = format!("unix:{}", path.display());
    std::thread::scope(|scope| {
        for args in [&["status"][..], &["explain", "alice"], &["revoke", "--list"], &["sessions"], &["log-level"]] {
            let address = &address;
            scope.spawn(move || {
                let given_up = run(&mut turnstone(&[args, &["--admin", address]].concat()), LIMIT);
                assert_eq!((given_up.code, given_up.stdout.as_str()), (Some(3), ""), "{args:?}: {}", given_up.stderr);
                assert!(given_up.stderr.contains("no answer within 10 s"), "{args:?}: {}", given_up.stderr);
            });
        }
    });
    drop(waiting);
}
