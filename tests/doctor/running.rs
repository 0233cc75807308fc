//! A server that runs, well or not, and one that does not.

use std::net::TcpListener;
use std::process::Command;

use super::support::{Spec, TestServer, free_address, run};
use super::{LIMIT, config_of, doctor, examine, write_config};

/// On loopback of IPv4, with relays of both families.
fn server(more: &str) -> TestServer {
    TestServer::start(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = [\"udp\", \"tcp\", \"tls\"]\n\
         [tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n\
         [relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"::1\"\nports = \"10000-29999\"\n\
         [[auth.secrets]]\nid = \"test\"\nfile = \"@DIR@/secret\"\n{more}"
    ))
}

#[test]
fn a_healthy_server_is_found_and_every_listener_relays_both_families() {
    let server = server("");
    let examined = doctor(&config_of(&server, ""), &["--ca", &server.file("authority.pem")]);
    // The test authority signs directly.
    let complaints = examined.complaints();
    assert!(complaints.len() == 1 && complaints[0].1.contains("no intermediate certificate"), "{complaints:?}");
    examined
        .expect("server", "ok", &format!("process {} runs, and all 3 listeners are open", server.process_id()))
        .expect("files", "ok", "secret can be read and changed by nobody else")
        .expect("key", "ok", "it belongs to the certificate")
        .expect("relay-address", "note", "127.0.0.1 is a loopback address")
        .expect("relay ports", "ok", "20000 relay ports");
    assert_eq!(examined.code, 0);
    for transport in ["udp", "tcp", "tls"] {
        let steps = examined.steps_at(transport);
        for step in ["binding", "unauthenticated"] {
            assert!(steps.contains(&(step, "ok")), "{transport}: {steps:?}");
        }
        for step in ["allocate", "permission", "echo-send", "echo-channel", "safety", "release", "integrity"] {
            assert_eq!(
                steps.iter().filter(|found| **found == (step, "ok")).count(),
                2,
                "{transport} {step}: {steps:?}"
            );
        }
    }
    assert!(examined.steps_at("tls").contains(&("certificate", "ok")));
}

#[test]
fn a_static_user_serves_where_there_is_no_secret() {
    let server = Spec { knows_secret: false, ..Spec::local() }.user("alice", "wonderland").start();
    let examined = doctor(&config_of(&server, ""), &["--ca", &server.file("authority.pem")]);
    assert!(examined.steps_at("udp").contains(&("echo-channel", "ok")), "{:#}", examined.json);
}

#[test]
fn a_stopped_server_is_one_finding_and_the_host_is_looked_at_all_the_same() {
    let server = server("");
    let config = config_of(&server, "[metrics]\nlisten = \"127.0.0.1:1\"\n");
    let addresses = (server.udp(), server.tcp());
    let certificate = std::fs::read(server.file("certificate.pem")).unwrap();
    let kept = tempfile::tempdir().unwrap();
    let file = |name: &str| kept.path().join(name).to_str().unwrap().to_owned();
    for name in ["doctor.toml", "secret", "key.pem"] {
        std::fs::copy(server.file(name), file(name)).unwrap();
    }
    std::fs::write(file("certificate.pem"), certificate).unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let old = std::path::Path::new(&config).parent().unwrap().to_str().unwrap().to_owned();
    std::fs::write(file("doctor.toml"), text.replace(&old, kept.path().to_str().unwrap())).unwrap();
    drop(server);
    let examined = doctor(&file("doctor.toml"), &[]);
    assert_eq!(examined.code, 2);
    let (udp, tcp) = addresses;
    let list = format!("the server does not run: nothing listens on udp {udp}, tcp {tcp}, tls ");
    examined.expect("server", "fail", &list).expect("key", "ok", "belongs");
    assert_eq!(examined.of("server").len(), 1);
    let failed = |step: &&serde_json::Value| step["status"] == "fail";
    assert_eq!(examined.json["checks"].as_array().unwrap().iter().filter(failed).count(), 1, "{:#}", examined.json);
    for check in ["clock-sync", "descriptors", "buffers", "firewall", "relay-address"] {
        assert!(!examined.of(check).is_empty(), "no {check} in {:#}", examined.json);
    }
    assert!(examined.json["listeners"].as_array().unwrap().is_empty());
}

#[test]
fn another_program_on_the_port_and_a_listener_that_is_not_there_are_told() {
    let server = server("");
    // This test has the port, and its name is not turnstone's.
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = free_address();
    let config = config_of(&server, "");
    let more: String = [foreign.local_addr().unwrap(), free]
        .iter()
        .map(|address| format!("[[listen]]\naddress = \"{address}\"\ntransport = \"tcp\"\n"))
        .collect();
    let text = more + &std::fs::read_to_string(config).unwrap();
    let examined = doctor(&write_config(&server, "more.toml", &text), &["--ca", &server.file("authority.pem")]);
    examined.expect("server", "fail", &format!("tcp {} belongs to ", foreign.local_addr().unwrap())).expect(
        "server",
        "fail",
        &format!("nothing listens on tcp {free}, though the server runs"),
    );
    assert_eq!(examined.json["listeners"].as_array().unwrap().len(), 3, "the others are probed");
}

#[test]
fn the_endpoint_of_the_metrics_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let metrics = format!("[metrics]\nlisten = \"{address}\"\n");
    let server = server(&metrics);
    let examined = doctor(&config_of(&server, ""), &["--ca", &server.file("authority.pem")]);
    examined.expect("health", "ok", &format!("/healthz at {address}: healthy")).expect("health", "ok", "/readyz");
    let text = std::fs::read_to_string(server.file("doctor.toml")).unwrap();
    let elsewhere = text.replace(&address.to_string(), "127.0.0.1:1");
    let examined = doctor(&write_config(&server, "elsewhere.toml", &elsewhere), &[]);
    examined.expect("health", "fail", "/healthz at 127.0.0.1:1 does not answer: ");
}

#[test]
fn a_configuration_that_is_not_valid_is_a_failure_with_its_place() {
    let server = server("");
    let path = write_config(&server, "bad.toml", "nonsense = 1\n");
    let examined = doctor(&path, &[]);
    examined.expect("configuration", "fail", &format!("{path}:1:1: unknown key \"nonsense\""));
    assert!(!examined.of("clock-sync").is_empty());
    let examined = doctor("/nowhere/turnserver.toml", &[]);
    examined.expect("configuration", "fail", "cannot read the file");
}

#[test]
fn too_few_descriptors_of_the_running_server_are_warned_about() {
    let server = server("");
    let config = config_of(&server, "");
    // The limit of the one process that the doctor is told to look at, which the shell lowers for it.
    let mut limited = Command::new("sh");
    let mut sleeper = limited.args(["-c", "ulimit -n 300; exec sleep 600"]).spawn().unwrap();
    let pid = sleeper.id().to_string();
    super::support::wait_until("the shell to become sleep", LIMIT, || {
        (std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() == "sleep").then_some(())
    });
    let examined = doctor(&config, &["--pid", &pid]);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let words = format!("but the server (process {pid}) may have 300");
    examined.expect("descriptors", "warn", &words);
    assert_eq!(examined.of("descriptors")[0]["facts"]["limit"], 300);
}

#[test]
fn warnings_count_with_strict_and_the_text_form_says_the_same() {
    let server = server("");
    let config = config_of(&server, "");
    let ca = server.file("authority.pem");
    let strict =
        examine(Command::new(env!("CARGO_BIN_EXE_turnstone")).arg("doctor"), &config, &["--ca", &ca, "--strict"]);
    assert_eq!(strict.code, 1, "the lone certificate is a warning: {:#}", strict.json);
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    let finished = run(command.args(["doctor", "--config", &config, "--ca", &ca, "--timeout", "20"]), LIMIT);
    assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    // What is well is counted, so that what is not can be seen.
    let folded = finished.stdout;
    for line in [
        "warn  chain ",
        "checks of this host: server, ",
        " steps of a client at turn:127.0.0.1:",
        "\nit works, with warnings: ",
    ] {
        assert!(folded.contains(line), "no {line:?} in {folded}");
    }
    assert!(folded.lines().count() < 20 && !folded.contains("echo-channel"), "{folded}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    let finished = run(command.args(["doctor", "--all", "--config", &config, "--ca", &ca, "--timeout", "20"]), LIMIT);
    for line in ["ok    server ", "    ok    echo-channel ipv4 ", "\nit works, with warnings: "] {
        assert!(finished.stdout.contains(line), "no {line:?} in {}", finished.all_output());
    }
}

#[test]
fn the_credentials_api_is_asked_and_a_key_for_everybody_is_told() {
    let api = format!(
        "[credentials]\nlisten = \"unix:credentials.sock\"\n[[credentials.keys]]\nid = \"page\"\nsha256 = \"{}\"\norigins = \"*\"\n",
        "0f".repeat(32)
    );
    let server = server(&api);
    let examined = doctor(&config_of(&server, ""), &["--ca", &server.file("authority.pem")]);
    examined
        .expect("credentials", "warn", "the key \"page\" is for pages, whose readers know it, and has no user-prefix")
        .expect("credentials", "ok", "credentials.sock answers");
}
