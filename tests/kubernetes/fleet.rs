//! Pods of a fleet, and the credentials API: two pods that run, the names that a cluster has for them, and a back end.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helm::{blocks_of_the_page, documents, render};
use crate::names::{Service, name_server};
use crate::namespace::Namespace;
use crate::pod::{Given, LIMIT, Pod, SECRETS, pod_in};
use crate::support::{Credentials, Finished, hold_allocation, require_tool, run, time_limited, wait_until};

/// The certificate for the names of both Services, as docs/kubernetes.md makes it.
struct Inside(TempDir);

impl Inside {
    fn make() -> Self {
        require_tool("openssl", "openssl");
        let [recipe] = &blocks_of_the_page("sh")[..] else { panic!("one recipe, for one certificate") };
        let folder = tempfile::tempdir().unwrap();
        let made = run(Command::new("sh").args(["-ec", recipe]).current_dir(&folder), LIMIT);
        assert_eq!(made.code, Some(0), "{}", made.all_output());
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("tls.crt")
    }

    /// The keys of its Secret.
    fn files(&self) -> Vec<(&'static str, String)> {
        let files = [("tls.crt", "tls.crt"), ("tls.key", "tls.key"), ("ca.crt", "tls.crt")];
        files.map(|(key, name)| (key, std::fs::read_to_string(self.0.path().join(name)).unwrap())).into()
    }
}

#[test]
fn pods_find_each_other_by_their_service_and_back_ends_get_credentials_by_another_one() {
    let key = Command::new(env!("CARGO_BIN_EXE_turnstone")).args(["credentials", "key", "--id", "backend"]).output();
    let key = String::from_utf8(key.unwrap().stdout).unwrap();
    let hash = key.split('"').nth(3).unwrap();
    let key = key.lines().find(|line| line.starts_with("tsk_")).unwrap();
    let hash = format!("--set-string=credentials.keys[0].id=backend,credentials.keys[0].sha256={hash}");
    let values = [
        "FOR-A-FLEET",
        "--set=listeners={udp://$(POD_IP):3478}",
        "--set-string=env.TURNSTONE_RELAY_IPV4=$(POD_IP),env.TURNSTONE_RELAY_IPV6=off,env.TURNSTONE_WORKERS=1",
        &hash,
    ];
    let Some(manifests) = render(&values) else { return };
    let documents = documents(&manifests);
    let (spec, config) = pod_in(&documents);
    let services: Vec<_> = documents.iter().filter(|each| each["kind"] == "Service").map(Service::of).collect();
    let named = |name: &str| services.iter().find(|service| service.name == name).unwrap();
    let (fleet, api) = (named("turnstone-fleet"), named("turnstone-credentials"));
    assert!(fleet.is_headless && !api.is_headless);
    let names = [format!("*.{}", fleet.domain), format!("{}.turnstone.svc", api.name)];
    let for_cert_manager = blocks_of_the_page("yaml").into_iter().find(|block| block.contains("kind: Certificate"));
    assert!(names.iter().all(|name| for_cert_manager.as_ref().unwrap().contains(name)), "{names:?}");

    // An address on loopback would be asked without TLS.
    let network = Namespace::create("pods");
    let addresses = ["10.96.0.10", "10.244.1.5", "10.244.2.5"];
    addresses.iter().for_each(|address| network.ip(&["address", "add", address, "dev", "lo"]));
    let [name_server_ip, one, other] = addresses.map(|address| address.parse::<IpAddr>().unwrap());
    let inside = Inside::make();
    let start =
        |ip| Pod::start(&spec, &config, &Given { ip, name_server: Some(name_server_ip), files: inside.files() });
    network.enter(|| {
        let Some(pods) = [one, other].map(start).into_iter().collect::<Option<Vec<_>>>() else { return };
        name_server(name_server_ip, fleet, fleet.port_of(&spec), vec![one, other]);
        pods.iter().for_each(|pod| pod.is_ready(9641));
        allocate(one, other, time_limited(SECRETS[0], "alice", 600));
        let answer = status(&pods[0]);
        assert_eq!(
            answer["sums"],
            json!({
                "nodes": 2, "answering": 2, "sessions": 1, "bytes_per_sec": 0, "refused_last_minute": 0,
                "redirected_last_minute": 0
            })
        );

        // A back end knows one name and one authority for all of them, whichever pod it is led to.
        let ask = |ip, inside: &Inside| credentials(key, (ip, api.port_of(&spec)), inside);
        let answer = ask(one, &inside);
        let answer: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{answer:?}"));
        assert_eq!(answer["iceServers"][0]["urls"], json!(["turn:turn.example.org:3478?transport=udp"]), "{answer}");
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        allocate(one, other, Credentials { username: text("username"), password: text("credential") });

        // The certificate is renewed, by another authority even.
        let renewed = Inside::make();
        assert_ne!(ask(one, &renewed).code, Some(0), "anybody is trusted");
        let files = renewed.files();
        let files: Vec<_> = files.iter().map(|(key, text)| (*key, text.as_str())).collect();
        for pod in &pods {
            pod.give("tls-inside", &files[..2], &spec["securityContext"]["fsGroup"]);
            pod.give("fleet-ca", &files[2..], &spec["securityContext"]["fsGroup"]);
        }
        for ip in [one, other] {
            wait_until("the new certificate", LIMIT, || (ask(ip, &renewed).code == Some(0)).then_some(()));
        }
        assert_eq!(status(&pods[0])["sums"]["sessions"], 2);

        // Who drains is still seen.
        let mut hook = pods[1].stop_hook();
        wait_until("the drain to be seen", LIMIT, || {
            let answer = status(&pods[0]);
            answer["nodes"].as_array().unwrap().iter().any(|node| node["report"]["state"] == "draining").then_some(())
        });
        for user in ["alice", "bob"] {
            let kick = pods[1].exec(&["/usr/bin/turnstone", "kick", "--user", user, "--yes"]).output().unwrap();
            assert!(kick.status.success(), "{kick:?}");
        }
        wait_until("the end of the hook", LIMIT, || hook.try_wait().unwrap());
    });
}

fn allocate(client: IpAddr, server: IpAddr, credentials: Credentials) {
    let socket = UdpSocket::bind((client, 0)).unwrap();
    socket.connect((server, 3478)).unwrap();
    hold_allocation(&socket, credentials);
}

/// What a pod says of all of them, each of which must answer.
fn status(pod: &Pod) -> Value {
    let output = pod.exec(&["/usr/bin/turnstone", "status", "--all", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the API answers a back end that is led to this pod by the Service's name.
fn credentials(key: &str, (ip, port): (IpAddr, u16), inside: &Inside) -> Finished {
    require_tool("curl", "curl");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert"]).arg(inside.path());
    curl.args(["--connect-to", &format!("::{ip}:{port}"), "--header", &format!("Authorization: Bearer {key}")]);
    curl.args(["--json", r#"{"user": "bob", "ttl": 600}"#]);
    run(curl.arg("https://turnstone-credentials.turnstone.svc/v1/credentials"), LIMIT)
}
