//! The container image: the last stage of its Dockerfile, built and run by podman without a network. The stage before it, which compiles
//! the program, wants an image from a registry; here the program is the one that was just built, with the libraries that it is linked with.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::build::build;
use crate::host::LIMIT;
use crate::support::{ContainerHost, require_tool, run, wait_until};

const SOURCES: &str = env!("CARGO_MANIFEST_DIR");
/// A container engine with all of its state in a folder of its own.
pub(crate) struct Engine {
    pub(crate) folder: TempDir,
    host: ContainerHost,
}

impl Engine {
    /// `None`, with a message, where there cannot be one.
    pub(crate) fn start() -> Option<Self> {
        let host = ContainerHost::start()?;
        require_tool("podman", "podman");
        Some(Self { folder: tempfile::tempdir().unwrap(), host })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn podman(&self, arguments: &[&str]) -> Output {
        self.host
            .command("podman")
            .args(["--storage-driver", "vfs"])
            .args(["--root", &self.path("images"), "--runroot", &self.path("run"), "--tmpdir", &self.path("tmp")])
            .args(["--cgroup-manager", "cgroupfs", "--network-config-dir", &self.path("networks")])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// What it prints; it must succeed.
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        let output = self.podman(arguments);
        assert!(output.status.success(), "podman {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Builds the image as [`IMAGE`].
    pub(crate) fn build(&self) {
        build(&["image"], "1.0", &self.folder.path().join("context"));
        let dockerfile = std::fs::read_to_string(Path::new(SOURCES).join("packaging/container/Dockerfile")).unwrap();
        let last_stage = &dockerfile[dockerfile.find("FROM scratch").unwrap()..];
        let last_stage = last_stage.replace("--from=build /source/target/dist/image", "image");
        std::fs::write(self.path("context/Dockerfile"), last_stage).unwrap();
        self.must(&["build", "--quiet", "--format", "docker", "--tag", IMAGE, &self.path("context")]);
    }

    /// What a container that ends by itself prints, with its exit code.
    fn run(&self, options: &[&str], command: &[&str]) -> (Option<i32>, String) {
        let output =
            self.podman(&[&["run", "--rm", "--network", "none"], &RUN[..], options, &[IMAGE], command].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.podman(&["rm", "--all", "--force", "--time", "0"]);
    }
}

pub(crate) const IMAGE: &str = "localhost/turnstone";
/// As the compose file has it; podman's timer for health wants a systemd, and its limits may be more than this machine's.
pub(crate) const RUN: [&str; 12] = [
    "--cgroups",
    "disabled",
    "--read-only",
    "--cap-drop",
    "all",
    "--security-opt",
    "no-new-privileges",
    "--no-healthcheck",
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=1024:1024",
];

#[test]
fn the_image_runs_as_nobody_on_a_read_only_root_without_a_shell_and_says_how_it_is() {
    let Some(engine) = Engine::start() else { return };
    engine.build();
    let image = engine.must(&["inspect", "--type", "image", IMAGE]);
    for words in ["\"User\": \"65532:65532\"", "/usr/bin/turnstone", "\"health\""] {
        assert!(image.contains(words), "no {words:?} in {image}");
    }

    // The modes that engines give secrets, and one that it refuses.
    let secret = engine.path("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    let mount = format!("{secret}:/run/secrets/turnstone-secret:ro");
    let services = services();
    let environment: Vec<_> =
        services["turnstone"].environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut options = vec!["--volume", &mount, "--env", "TURNSTONE_RELAY_IPV4=127.0.0.1"];
    options.extend(["--env", "TURNSTONE_RELAY_IPV6=off", "--env", "TURNSTONE_EXTERNAL_IP=203.0.113.5"]);
    options.extend(["--tmpfs", "/run/turnstone:mode=1777"]);
    options.extend(environment.iter().flat_map(|variable| ["--env", variable]));
    for (mode, owner, readers, accepted) in [
        (0o444, "0:0", "everybody", true),
        (0o440, "0:65532", "group", true),
        (0o444, "0:0", "owner", false),
        (0o446, "0:0", "everybody", false),
    ] {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(Command::new("chown").args([owner, &secret]).status().unwrap().success());
        let readers = format!("TURNSTONE_SECRET_FILES_READABLE_BY={readers}");
        let (code, said) = engine.run(&[&options[..], &["--env", &readers]].concat(), &["config", "show"]);
        assert_eq!(code == Some(0), accepted, "{mode:o} {readers}: {said}");
        assert!(accepted || said.contains("is open to"), "{said}");
    }

    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o444)).unwrap();
    engine.must(&[&["run", "--detach", "--name", "turn", "--network", "none"], &RUN[..], &options, &[IMAGE]].concat());
    let ask = |command: &[&str]| engine.podman(&[&["exec", "turn"], command].concat());
    let line = wait_until("health", LIMIT, || {
        let output = ask(&["/usr/bin/turnstone", "health"]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    assert!(line.starts_with("ok: the admin API at unix:/run/turnstone/admin.sock"), "{line}");
    assert!(ask(&["/usr/bin/turnstone", "status"]).status.success());
    assert!(!ask(&["/bin/sh", "-c", "true"]).status.success(), "there is a shell");
    let logs = engine.podman(&["logs", "turn"]);
    assert!(String::from_utf8_lossy(&logs.stdout).contains("listening on"), "{logs:?}");

    let pid = engine.must(&["inspect", "--format", "{{.State.Pid}}", "turn"]);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in ["Uid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "no {line:?} in {status}");
    }
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    assert!(mounts.lines().any(|line| line.split(' ').nth(1) == Some("/") && line.contains(" ro,")), "{mounts}");
    engine.must(&["stop", "--time", "20", "turn"]);
    let code = engine.must(&["inspect", "--format", "{{.State.ExitCode}}", "turn"]);
    assert_eq!(code, "0", "it had to be killed");
}

#[test]
fn a_program_that_does_not_compile_ends_the_build_of_the_image_and_one_that_does_is_in_it() {
    let dockerfile = std::fs::read_to_string(Path::new(SOURCES).join("packaging/container/Dockerfile")).unwrap();
    let step =
        dockerfile.lines().filter_map(|line| line.strip_prefix("RUN ")).find(|step| step.contains("packaging/static"));
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .args(["-R", "packaging", "Cargo.toml", "LICENSE-MIT", "LICENSE-APACHE"])
        .arg(folder.path())
        .current_dir(SOURCES)
        .status();
    assert!(copied.unwrap().success());
    let program = env!("CARGO_BIN_EXE_turnstone");
    for (compiler, succeeds) in [("exit 101".to_owned(), false), (format!("echo {program}"), true)] {
        std::fs::write(folder.path().join("packaging/static"), format!("#!/bin/sh\n{compiler}\n")).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", step.unwrap()]).current_dir(&folder).env("SOURCE_DATE_EPOCH", "1764000000");
        let finished = run(&mut shell, LIMIT);
        assert_eq!(finished.code == Some(0), succeeds, "{}", finished.all_output());
        assert_eq!(folder.path().join("target/dist/image/usr/bin/turnstone").exists(), succeeds);
    }
}

/// What a service of the compose file asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Service {
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) ports: Vec<String>,
    pub(crate) has_host_network: bool,
}

/// The services of the compose file, whose EXTERNAL_IP is not set.
pub(crate) fn services() -> BTreeMap<String, Service> {
    let text = std::fs::read_to_string(Path::new(SOURCES).join("packaging/container/compose.yaml")).unwrap();
    let mut sections: BTreeMap<String, Service> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines() {
        let name = line.trim().split(':').next().unwrap();
        match line.len() - line.trim_start().len() {
            0 if line.contains(':') => section = name.to_owned(),
            2 if !name.starts_with("TURNSTONE_") && !line.trim().starts_with('#') => section = name.to_owned(),
            _ => {}
        }
        let common = sections.get("x-environment").map(|common| common.environment.clone()).unwrap_or_default();
        let service = sections.entry(section.clone()).or_default();
        match line.trim().split_once(": ") {
            Some((name, value)) if name.starts_with("TURNSTONE_") => {
                let value = value.trim_matches('"').replace("${EXTERNAL_IP:-203.0.113.5}", "203.0.113.5");
                service.environment.push((name.to_owned(), value));
            }
            Some(("<<", "*environment")) => service.environment.extend(common),
            Some(("ports", list)) => service.ports = serde_json::from_str(list).unwrap(),
            Some(("network_mode", mode)) => service.has_host_network = mode == "host",
            _ => {}
        }
    }
    sections.retain(|name, service| !name.starts_with("x-") && !service.environment.is_empty());
    sections
}

#[test]
fn every_service_of_the_compose_file_has_an_environment_that_is_a_configuration() {
    let services = services();
    assert_eq!(
        services.keys().collect::<Vec<_>>(),
        ["turnstone", "turnstone-one-port", "turnstone-published"],
        "{services:?}"
    );
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (service, Service { environment: variables, ports, has_host_network }) in services {
        assert!(variables.len() >= 4, "{service}: {variables:?}");
        assert_eq!(has_host_network, ports.is_empty(), "{service}: {ports:?}");
        let output = Command::new(env!("CARGO_BIN_EXE_turnstone"))
            .args(["check", "--strict"])
            .env("TURNSTONE_CONFIG", "/dev/null")
            .envs(variables)
            .env("TURNSTONE_SECRET_FILE", &secret)
            .env("TURNSTONE_RELAY_IPV4", "127.0.0.1")
            .env("TURNSTONE_RELAY_IPV6", "off")
            .env("TURNSTONE_EXTERNAL_IP", "203.0.113.5")
            .output()
            .unwrap();
        assert_ne!(output.status.code(), Some(2), "{service}: {output:?}");
    }
}
