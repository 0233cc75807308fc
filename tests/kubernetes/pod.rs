//! The pod of the manifests, run as a kubelet would have it run: its command, variables, user, mounts and file modes, by crun.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helm::{documents, render};
use crate::support::{hold_allocation, require_tool, skipped, time_limited, wait_until};

const LIMIT: Duration = Duration::from_secs(40);
const SECRETS: [&str; 2] = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
/// crun wants one kind of control groups; a machine may have two.
const NAMESPACE: &str =
    "umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo mounted && exec sleep 600";

/// A pod whose one container runs.
struct Pod {
    folder: TempDir,
    namespace: Child,
    container: Value,
}

impl Pod {
    /// `None`, with a message, where there cannot be one.
    fn start(container: Value, pod: &Value) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped("only root can run a container of its own here");
            return None;
        }
        require_tool("crun", "crun");
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("output");
        let namespace = Command::new("unshare")
            .args(["--mount", "sh", "-c", NAMESPACE])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&output).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut pod_runs = Self { folder, namespace, container };
        let is_mounted = wait_until("a mount namespace", LIMIT, || {
            let is_mounted = std::fs::read_to_string(&output).unwrap().contains("mounted");
            let is_over = pod_runs.namespace.try_wait().unwrap().is_some();
            (is_mounted || is_over).then_some(is_mounted)
        });
        if !is_mounted {
            skipped("this machine does not allow the control groups that crun wants");
            return None;
        }
        pod_runs.run(pod);
        Some(pod_runs)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn crun(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.namespace.id().to_string(), "--mount", "crun", "--cgroup-manager=disabled"]);
        command.arg("--root").arg(self.path("state")).args(arguments).stdin(Stdio::null());
        command
    }

    /// A command in the container, as its user, whom crun would not take by itself.
    fn exec(&self, command: &[&str]) -> Command {
        let security = &self.container["securityContext"];
        let user = format!("{}:{}", security["runAsUser"], security["runAsGroup"]);
        self.crun(&[&["exec", "--user", &user, "pod"], command].concat())
    }

    fn run(&self, pod: &Value) {
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
                let folder = self.path(volume["name"].as_str().unwrap());
                mounts.push(bind(folder.to_str().unwrap(), to));
                let mode = u32::try_from(volume["secret"]["defaultMode"].as_u64().unwrap()).unwrap();
                assert_eq!(mode, 0o440);
                self.give_secret(SECRETS[0], mode, &group);
            }
        }
        for folder in ["proc", "dev", "usr/lib", "usr/bin", "lib", "lib64", "run/turnstone", "run/secrets/turnstone"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join("usr/bin/turnstone"), "").unwrap();
        let env: Vec<String> = self.container["env"].as_array().unwrap().iter().map(variable).collect();
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

    /// The files of a Secret, which change as a kubelet changes them: by a link to another folder.
    fn give_secret(&self, secret: &str, mode: u32, group: &Value) {
        let folder = self.path("secret");
        let fresh = folder.join(format!("..{}", &secret[..4]));
        std::fs::create_dir_all(&fresh).unwrap();
        let file = fresh.join("secret");
        std::fs::write(&file, secret).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(&file, Some(0), group.as_u64().and_then(|group| u32::try_from(group).ok())).unwrap();
        symlink(fresh.file_name().unwrap(), folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        if !folder.join("secret").exists() {
            symlink("..data/secret", folder.join("secret")).unwrap();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
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
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").as_bytes())
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.crun(&["delete", "--force", "pod"]).output();
        let _ = self.namespace.kill();
        let _ = self.namespace.wait();
    }
}

/// NAME=VALUE, with the address of the pod in it.
fn variable(entry: &Value) -> String {
    let name = entry["name"].as_str().unwrap();
    let value = match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
        Some("status.podIP") => "127.0.0.1".to_owned(),
        Some(other) => other.to_owned(),
        None => entry["value"].as_str().unwrap().replace("$(POD_IP)", "127.0.0.1"),
    };
    format!("{name}={value}")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The spec of the pod that these values make.
fn pod_of(arguments: &[&str]) -> Option<Value> {
    let documents = documents(&render(arguments)?);
    let of_pods = documents.into_iter().find(|each| each["kind"] == "DaemonSet" || each["kind"] == "Deployment");
    Some(of_pods.unwrap()["spec"]["template"]["spec"].clone())
}

#[test]
fn the_pod_runs_takes_a_new_secret_and_drains_before_it_stops() {
    let (turn, metrics) = (free_port(), free_port());
    let values = [
        format!(
            "--set=listeners={{udp://127.0.0.1:{turn}}},metrics.listen=$(POD_IP):{metrics},relay.ports=10000-29999"
        ),
        "--set-string=env.TURNSTONE_RELAY_IPV4=127.0.0.1,env.TURNSTONE_RELAY_IPV6=off,env.TURNSTONE_WORKERS=1"
            .to_owned(),
    ];
    let Some(spec) = pod_of(&[&values[0], &values[1]]) else { return };
    assert_eq!(spec["hostNetwork"], true);
    let Some(pod) = Pod::start(spec["containers"][0].clone(), &spec) else { return };
    wait_until("readiness", LIMIT, || {
        assert!(!pod.has_ended(), "{}", pod.log());
        (pod.probe("readinessProbe", metrics) == Some(200)).then_some(())
    });
    assert_eq!(pod.probe("startupProbe", metrics), Some(200));

    pod.give_secret(SECRETS[1], 0o440, &spec["securityContext"]["fsGroup"]);
    wait_until("the new secret", LIMIT, || pod.log().contains("configuration reloaded").then_some(()));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", turn)).unwrap();
    hold_allocation(&socket, time_limited(SECRETS[1], "alice", 600));

    let stop = &pod.container["lifecycle"]["preStop"]["exec"]["command"];
    let stop: Vec<_> = stop.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let mut hook = pod.exec(&stop).stdout(Stdio::null()).spawn().unwrap();
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
        let Some(spec) = pod_of(values) else { return };
        let env = spec["containers"][0]["env"].as_array().unwrap();
        let deadline = env.iter().find(|each| each["name"] == "TURNSTONE_DRAIN_DEADLINE").unwrap();
        let deadline: u64 = deadline["value"].as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap();
        assert!(spec["terminationGracePeriodSeconds"].as_u64().unwrap() > deadline, "{values:?}");
    }
}

#[test]
fn turnstone_check_takes_the_variables_and_the_file_of_each_shape() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRETS[0]).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o440)).unwrap();
    let file = folder.path().join("turnserver.toml");
    let shared = "--set=replicas=1,relay.ports=shared:3480-3481,relay.externalIp={203.0.113.5},peers.mode=p2p,peers.allowed=null";
    for values in [
        &[][..],
        &["--set-string=config=[quota]\nallocations-per-user = 7\n"],
        &["FOR-A-DEPLOYMENT"],
        &["FOR-A-DEPLOYMENT", shared],
    ] {
        let Some(manifests) = render(values) else { return };
        let documents = documents(&manifests);
        let map = documents.iter().find(|each| each["kind"] == "ConfigMap");
        assert_eq!(map.is_some(), values.len() == 1 && values[0].contains("config"));
        std::fs::write(&file, map.map_or("", |map| map["data"]["turnserver.toml"].as_str().unwrap())).unwrap();
        let of_pods =
            documents.iter().find(|each| each["kind"] == "DaemonSet" || each["kind"] == "Deployment").unwrap();
        let entries = of_pods["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        let variables: Vec<String> = entries.iter().map(variable).collect();
        let said = told(&["check"], &variables, &secret, &file);
        assert!(!said.contains("not a variable"), "{values:?}: {said}");
        let said = told(&["config", "show"], &variables, &secret, &file);
        assert_eq!(said.contains("allocations-per-user = 7"), map.is_some(), "{values:?}: {said}");
    }
}

/// What the program says to a command with these variables, which must succeed.
fn told(arguments: &[&str], variables: &[String], secret: &Path, file: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(arguments).envs(variables.iter().map(|variable| variable.split_once('=').unwrap()));
    command.env("TURNSTONE_SECRET_FILE", secret).env("TURNSTONE_CONFIG", file);
    command.env("TURNSTONE_RELAY_IPV4", "127.0.0.1").env("TURNSTONE_RELAY_IPV6", "off");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} {variables:?}: {said}");
    said
}
