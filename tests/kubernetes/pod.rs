//! The pod of the manifests, run as a kubelet would have it run: its command, variables, user, mounts and file modes, by crun.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helm::{documents, render};
use crate::support::{ContainerHost, Credentials, TestAuthority, free_port, hold_allocation, time_limited, wait_until};

pub(crate) const LIMIT: Duration = Duration::from_secs(40);
pub(crate) const SECRETS: [&str; 2] = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
/// What a cluster gives a pod.
pub(crate) struct Given {
    pub(crate) ip: IpAddr,
    pub(crate) name_server: Option<IpAddr>,
    /// What is in Secrets, by the names of their keys; [`SECRETS`] under any other.
    pub(crate) files: Vec<(&'static str, String)>,
}

impl Given {
    fn nothing() -> Self {
        Self { ip: Ipv4Addr::LOCALHOST.into(), name_server: None, files: Vec::new() }
    }

    fn file(&self, name: &str) -> &str {
        self.files.iter().find(|(key, _)| *key == name).map_or(SECRETS[0], |(_, text)| text)
    }
}

/// A pod whose one container runs.
pub(crate) struct Pod {
    folder: TempDir,
    host: ContainerHost,
    container: Value,
    ip: IpAddr,
}

impl Pod {
    /// `None`, with a message, where there cannot be one.
    pub(crate) fn start(pod: &Value, config: &str, given: &Given) -> Option<Self> {
        let host = ContainerHost::start()?;
        let folder = tempfile::tempdir().unwrap();
        let pod_runs = Self { folder, host, container: pod["containers"][0].clone(), ip: given.ip };
        pod_runs.run(pod, config, given);
        Some(pod_runs)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn crun(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command("crun");
        command.arg("--cgroup-manager=disabled").arg("--root").arg(self.path("state")).args(arguments);
        command
    }

    /// A command in the container, as its user, whom crun would not take by itself.
    pub(crate) fn exec(&self, command: &[&str]) -> Command {
        let security = &self.container["securityContext"];
        let user = format!("{}:{}", security["runAsUser"], security["runAsGroup"]);
        self.crun(&[&["exec", "--user", &user, "pod"], command].concat())
    }

    fn run(&self, pod: &Value, config: &str, given: &Given) {
        let root = self.path("root");
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().map(|each| each.as_str().unwrap().to_owned()).collect()
        };
        let group = pod["securityContext"]["fsGroup"].clone();
        let security = &self.container["securityContext"];
        let mut mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }),
        ];
        let bind = |from: &str, to: &str| json!({ "destination": to, "type": "bind", "source": from, "options": ["rbind", "ro"] });
        // The libraries of the program, which is linked statically in the image.
        mounts.extend([bind("/usr/lib", "/usr/lib"), bind("/usr/lib", "/lib"), bind("/usr/lib64", "/lib64")]);
        mounts.push(bind(env!("CARGO_BIN_EXE_turnstone"), "/usr/bin/turnstone"));
        if let Some(ip) = given.name_server {
            std::fs::write(self.path("resolv.conf"), format!("nameserver {ip}\n")).unwrap();
            mounts.push(bind(self.path("resolv.conf").to_str().unwrap(), "/etc/resolv.conf"));
        }
        for mount in self.container["volumeMounts"].as_array().unwrap() {
            let volumes = pod["volumes"].as_array().unwrap();
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
            let to = mount["mountPath"].as_str().unwrap();
            if volume["emptyDir"].is_object() {
                let mode = format!("gid={group}");
                mounts.push(
                    json!({ "destination": to, "type": "tmpfs", "source": "tmpfs", "options": ["mode=2777", mode] }),
                );
            } else {
                let name = volume["name"].as_str().unwrap();
                mounts.push(bind(self.path(name).to_str().unwrap(), to));
                let items: Vec<_> = match &volume["secret"] {
                    Value::Null => vec![("turnserver.toml", config)],
                    secret => {
                        assert_eq!(secret["defaultMode"], 0o440, "{name}");
                        let items = secret["items"].as_array().unwrap();
                        let file = |key: &Value| given.file(key.as_str().unwrap());
                        items.iter().map(|item| (item["path"].as_str().unwrap(), file(&item["key"]))).collect()
                    }
                };
                self.give(name, &items, &group);
            }
        }
        for folder in ["proc", "dev", "etc", "usr/lib", "usr/bin", "lib", "lib64", "run/turnstone"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["etc/resolv.conf", "usr/bin/turnstone"] {
            std::fs::write(root.join(file), "").unwrap();
        }
        let entries = self.container["env"].as_array().unwrap();
        let env: Vec<String> = entries.iter().map(|entry| variable(entry, given.ip)).collect();
        let command = [strings(&self.container["command"]), strings(&self.container["args"])].concat();
        let config = json!({
            "ociVersion": "1.0.2",
            "root": { "path": root, "readonly": security["readOnlyRootFilesystem"] },
            "process": {
                "user": { "uid": security["runAsUser"], "gid": security["runAsGroup"], "additionalGids": [group] },
                "args": command,
                "cwd": "/",
                "env": env,
                "capabilities": {},
                "noNewPrivileges": true,
            },
            "mounts": mounts,
            "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }] },
        });
        std::fs::write(self.path("config.json"), config.to_string()).unwrap();
        let log = std::fs::File::create(self.path("log")).unwrap();
        let mut command = self.crun(&["run", "--detach", "--bundle"]);
        command.arg(self.folder.path()).arg("pod").stdout(log.try_clone().unwrap()).stderr(log);
        assert!(command.status().unwrap().success(), "{}", self.log());
    }

    /// The files of a Secret or a ConfigMap, all of which change at once, as a kubelet changes them: by a link to another folder.
    pub(crate) fn give(&self, volume: &str, files: &[(&str, &str)], group: &Value) {
        let folder = self.path(volume);
        let earlier = folder.join("..data").read_link().ok();
        let fresh = folder.join(if earlier.is_some_and(|link| link == Path::new("..1")) { "..2" } else { "..1" });
        let _ = std::fs::remove_dir_all(&fresh);
        std::fs::create_dir_all(&fresh).unwrap();
        for (name, text) in files {
            let file = fresh.join(name);
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o440)).unwrap();
            let group = group.as_u64().and_then(|group| u32::try_from(group).ok());
            std::os::unix::fs::chown(&file, Some(0), group).unwrap();
            if !folder.join(name).exists() {
                let _ = symlink(Path::new("..data").join(name), folder.join(name));
            }
        }
        symlink(fresh.file_name().unwrap(), folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    pub(crate) fn is_ready(&self, metrics: u16) {
        wait_until("readiness", LIMIT, || {
            assert!(!self.has_ended(), "{}", self.log());
            (self.probe("readinessProbe", metrics) == Some(200)).then_some(())
        });
    }

    /// Its preStop, which is told by nobody but the manifest.
    pub(crate) fn stop_hook(&self) -> Child {
        let stop = self.container["lifecycle"]["preStop"]["exec"]["command"].as_array().unwrap();
        let stop: Vec<_> = stop.iter().map(|word| word.as_str().unwrap()).collect();
        self.exec(&stop).stdout(Stdio::null()).spawn().unwrap()
    }

    fn state(&self) -> Output {
        self.crun(&["state", "pod"]).output().unwrap()
    }

    fn has_ended(&self) -> bool {
        let output = self.state();
        !output.status.success() || String::from_utf8_lossy(&output.stdout).contains("\"stopped\"")
    }

    /// What a kubelet hears from a probe.
    fn probe(&self, name: &str, port: u16) -> Option<u16> {
        let path = self.container[name]["httpGet"]["path"].as_str().unwrap();
        let address = SocketAddr::new(self.ip, port);
        let mut stream = TcpStream::connect(address).ok()?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.crun(&["delete", "--force", "pod"]).output();
    }
}

/// NAME=VALUE, with the address of the pod in it.
fn variable(entry: &Value, ip: IpAddr) -> String {
    let name = entry["name"].as_str().unwrap();
    let value = match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
        Some("status.podIP") => ip.to_string(),
        Some(other) => other.to_owned(),
        None => entry["value"].as_str().unwrap().replace("$(POD_IP)", &ip.to_string()),
    };
    format!("{name}={value}")
}

/// The spec of the pod that these values make, and its turnserver.toml.
fn pod_of(arguments: &[&str]) -> Option<(Value, String)> {
    Some(pod_in(&documents(&render(arguments)?)))
}

/// The same of what has been rendered.
pub(crate) fn pod_in(documents: &[Value]) -> (Value, String) {
    let of_kind = |kind: &str| documents.iter().find(|each| each["kind"] == kind);
    let of_pods = of_kind("DaemonSet").or_else(|| of_kind("Deployment")).unwrap();
    let config = of_kind("ConfigMap").map_or("", |map| map["data"]["turnserver.toml"].as_str().unwrap());
    (of_pods["spec"]["template"]["spec"].clone(), config.to_owned())
}

#[test]
fn the_pod_runs_changes_its_secrets_without_refusing_anybody_and_drains_before_it_stops() {
    let (turn, metrics) = (free_port(), free_port());
    let values = [
        format!(
            "--set=listeners={{udp://127.0.0.1:{turn}}},metrics.listen=$(POD_IP):{metrics},relay.ports=10000-29999"
        ),
        "--set-string=env.TURNSTONE_RELAY_IPV4=127.0.0.1,env.TURNSTONE_RELAY_IPV6=off,env.TURNSTONE_WORKERS=1"
            .to_owned(),
        "--set=secret.keys={secret,other},nonceKey.secretName=nonces".to_owned(),
    ];
    let Some((spec, config)) = pod_of(&values.each_ref().map(String::as_str)) else { return };
    assert_eq!(spec["hostNetwork"], true);
    let Some(pod) = Pod::start(&spec, &config, &Given::nothing()) else { return };
    pod.is_ready(metrics);
    assert_eq!(pod.probe("startupProbe", metrics), Some(200));

    // As docs/kubernetes.md has it: the new one comes beside the old one, then they change places, and each is good all the time.
    let allocate = |credentials: Credentials| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", turn)).unwrap();
        hold_allocation(&socket, credentials);
    };
    let of = |secret: &str| time_limited(secret, "alice", 600);
    allocate(of(SECRETS[0]));
    let group = &spec["securityContext"]["fsGroup"];
    for (reloads, [first, second]) in [(1, SECRETS), (2, [SECRETS[1], SECRETS[0]])] {
        pod.give("secret", &[("secret", first), ("other", second)], group);
        let has_reloaded = || (pod.log().matches("configuration reloaded").count() == reloads).then_some(());
        wait_until("the new secret", LIMIT, has_reloaded);
        SECRETS.into_iter().for_each(|secret| allocate(of(secret)));
    }
    // What the pod makes itself, it makes with the first.
    let made = pod.exec(&["/usr/bin/turnstone", "credentials", "--user", "alice", "--json"]).output().unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap_or_else(|_| panic!("{made:?}"));
    let [username, password] = ["username", "password"].map(|key| made[key].as_str().unwrap().to_owned());
    let verify = ["/usr/bin/turnstone", "credentials", "verify", &username, &password];
    let verdict = pod.exec(&verify).output().unwrap();
    let verdict = String::from_utf8_lossy(&verdict.stdout).into_owned();
    assert!(verdict.contains("made with secret \"secret\""), "{verdict}");

    let mut hook = pod.stop_hook();
    wait_until("the end of readiness", LIMIT, || (pod.probe("readinessProbe", metrics) == Some(503)).then_some(()));
    assert_eq!(pod.probe("livenessProbe", metrics), Some(200), "it would be killed while it drains");
    assert!(hook.try_wait().unwrap().is_none(), "the hook does not wait for the call");
    assert!(!pod.has_ended());

    let kick = pod.exec(&["/usr/bin/turnstone", "kick", "--user", "alice", "--yes"]).output().unwrap();
    assert!(kick.status.success(), "{kick:?}");
    wait_until("the end of the pod", LIMIT, || pod.has_ended().then_some(()));
    wait_until("the end of the hook", LIMIT, || hook.try_wait().unwrap());
}

#[test]
fn the_deadline_of_a_drain_is_within_the_grace_period() {
    for values in [&[][..], &["FOR-A-DEPLOYMENT"], &["--set=drain.seconds=86400"]] {
        let Some((spec, _)) = pod_of(values) else { return };
        let env = spec["containers"][0]["env"].as_array().unwrap();
        let deadline = env.iter().find(|each| each["name"] == "TURNSTONE_DRAIN_DEADLINE").unwrap();
        let deadline: u64 = deadline["value"].as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap();
        assert!(spec["terminationGracePeriodSeconds"].as_u64().unwrap() > deadline, "{values:?}");
    }
}

#[test]
fn turnstone_check_takes_the_variables_and_the_file_of_each_shape() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("secrets");
    let issued = TestAuthority::issue(&["turn.example.org"]);
    for (name, text) in [
        ("turnstone/secret", SECRETS[0]),
        ("turnstone/other", SECRETS[0]),
        ("nonce-key/nonce-key", SECRETS[0]),
        ("store/password", SECRETS[0]),
        ("more/turnstone-users/users", "alice:wonderland\n"),
        ("fleet/token", SECRETS[0]),
        ("fleet-ca/ca.crt", &issued.authority_pem),
        ("tls/tls.crt", &issued.certificate_pem),
        ("tls/tls.key", &issued.key_pem),
        ("tls-inside/tls.crt", &issued.certificate_pem),
        ("tls-inside/tls.key", &issued.key_pem),
    ] {
        let file = secrets.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o440)).unwrap();
    }
    let here = |text: &str| text.replace("/run/secrets", secrets.to_str().unwrap());
    let file = folder.path().join("turnserver.toml");
    let hash = format!("--set-string=credentials.keys[0].sha256={}", "0f".repeat(32));
    let shared = "--set=replicas=1,relay.ports=shared:3480-3481,relay.externalIp={203.0.113.5},peers.mode=p2p,peers.allowed=null";
    for (values, known) in [
        (&[][..], ""),
        (&["--set-string=config=[quota]\nallocations-per-user = 7\n"], "allocations-per-user = 7"),
        (&["FOR-A-DEPLOYMENT"], ""),
        (&["FOR-A-DEPLOYMENT", shared], "ports = \"shared:3480-3481\""),
        (&["--set=secret.keys={secret,other}"], "id = \"other\""),
        (
            &[
                "--set=secret.keys={secret,other}",
                "--set-string=config=[[realm]]\nname = \"b\"\n[[realm.secrets]]\nid = \"b\"\nfile = \"/run/secrets/turnstone/other\"\n",
            ],
            "id = \"other\"",
        ),
        (&["--set=nonceKey.secretName=nonces"], "# nonce-key: there is one"),
        (&["--set=store.url=redis://store,store.passwordSecret=store"], "url = \"redis://store\""),
        (&["FOR-A-FLEET"], "nodes = [\"_fleet._tcp.turnstone-fleet.turnstone.svc.cluster.local\"]"),
        (&["FOR-A-FLEET"], "# token: there is one"),
        (
            &[
                "--set=secretFiles={turnstone-users},env.TURNSTONE_AUTH_USERS_FILE=/run/secrets/more/turnstone-users/users",
                "--set=env.TURNSTONE_QUOTA_ALLOCATIONS_TOTAL=1000000",
            ],
            "allocations-total = 1000000",
        ),
        (
            &[
                "FOR-A-FLEET",
                "--set=tls.secretName=turn-tls,fleet.certificateName=turn.example.org,listeners={udp://*:3478,tls://*:5349}",
                "--set=credentials.plainHttp=true,credentials.keys[0].max-ttl=1h,credentials.keys[0].requests-per-second=7",
                "--set=credentials.keys[0].id=page,credentials.keys[0].origins={https://app.example.org},credentials.keys[0].user-prefix=p-",
                &hash,
            ],
            "requests-per-second = 7",
        ),
    ] {
        let Some((spec, config)) = pod_of(values) else { return };
        std::fs::write(&file, here(&config)).unwrap();
        let entries = spec["containers"][0]["env"].as_array().unwrap();
        let variables: Vec<String> =
            entries.iter().map(|entry| here(&variable(entry, Ipv4Addr::LOCALHOST.into()))).collect();
        let has_file = variables.iter().any(|variable| variable == "TURNSTONE_CONFIG=/etc/turnstone/turnserver.toml");
        assert_eq!(has_file, !config.is_empty(), "{values:?}");
        let said = told(&["check"], &variables, &file);
        assert!(!said.contains("not a variable"), "{values:?}: {said}");
        let said = told(&["config", "show"], &variables, &file);
        assert!(said.contains(known), "{values:?}: no {known} in {said}");
    }
}

/// What the program says to a command with these variables, which must succeed.
fn told(arguments: &[&str], variables: &[String], file: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(arguments).envs(variables.iter().map(|variable| variable.split_once('=').unwrap()));
    command.env("TURNSTONE_CONFIG", file).env_remove("TURNSTONE_WRITE_MANIFESTS");
    command.env("TURNSTONE_RELAY_IPV4", "127.0.0.1").env("TURNSTONE_RELAY_IPV6", "off");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} {variables:?}: {said}");
    said
}
