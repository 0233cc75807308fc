//! Packages of the program that was just built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::{require_tool, skipped, target_dir};

/// What can be made here.
fn kinds() -> Vec<&'static str> {
    if has_rpm_tool() { vec!["deb", "tar", "rpm"] } else { vec!["deb", "tar"] }
}

/// Whether there is what setup.sh installs.
pub(crate) fn has_rpm_tool() -> bool {
    target_dir().join("tools/bin/cargo-generate-rpm").exists()
}

/// The folder with all packages of version 1.0, and that with those of 2.0; made once.
pub(crate) fn packages() -> &'static [PathBuf; 2] {
    static MADE: OnceLock<[PathBuf; 2]> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
        let _ = std::fs::remove_dir_all(&folder);
        ["1.0", "2.0"].map(|version| {
            build(&kinds(), version, &folder.join(version));
            folder.join(version)
        })
    })
}

/// Makes packages of some kinds in a folder.
pub(crate) fn build(kinds: &[&str], version: &str, out: &Path) {
    require_tool("dpkg-shlibdeps", "dpkg-dev");
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/build"))
        .args(kinds)
        .env("BINARY", env!("CARGO_BIN_EXE_turnstone"))
        .env("OUT", out)
        .env("VERSION", version)
        .env("SOURCE_DATE_EPOCH", "1764000000")
        .env("DPKG_DEB_COMPRESSOR_TYPE", "none")
        .env("RPM_COMPRESSOR_TYPE", "none")
        .env("CARGO_TARGET_DIR", target_dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The file in a folder with this beginning and this end.
pub(crate) fn find(folder: &Path, beginning: &str, end: &str) -> PathBuf {
    let names = || std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(beginning) && name.ends_with(end)
    };
    names().find(is_it).unwrap_or_else(|| panic!("no {beginning}...{end} in {:?}", names().collect::<Vec<_>>()))
}

#[test]
fn the_same_program_makes_the_same_packages_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path(), &packages()[0]);
    build(&kinds(), "1.0", one);
    let mut names: Vec<_> = std::fs::read_dir(one).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), if has_rpm_tool() { 5 } else { 4 }, "{names:?}");
    for name in names {
        let is_same = std::fs::read(one.join(&name)).unwrap() == std::fs::read(other.join(&name)).unwrap();
        assert!(is_same, "{name:?} differs");
    }
}

/// What a command prints.
fn printed(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_program_in_a_package_has_no_symbols_and_those_beside_it_are_found_by_its_build_id() {
    let folder = tempfile::tempdir().unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let [package, symbols] = ["turnstone_1.0", "turnstone-dbgsym_1.0"].map(|name| find(&packages()[0], name, ".deb"));
    let root = text(&folder.path().join("root"));
    for package in [&package, &symbols] {
        printed(&["dpkg-deb", "--extract", &text(package), &root]);
    }
    let program = format!("{root}/usr/bin/turnstone");
    assert!(!printed(&["readelf", "--sections", "--wide", &program]).contains(".symtab"), "symbols in the program");
    let notes = printed(&["readelf", "--notes", &program]);
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap().to_owned();
    let file = format!("{root}/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
    assert!(printed(&["readelf", "--sections", "--wide", &file]).contains(".debug_line"), "no lines in {file}");
    assert!(printed(&["dpkg-deb", "--field", &text(&symbols), "Build-Ids"]).contains(&id));
    let documents = format!("{root}/usr/share/doc/turnstone");
    for document in ["copyright", "README.md", "docs/grafana-dashboard.json", "docs/usage-records.md", "docs/deploy.md"]
    {
        assert!(Path::new(&documents).join(document).is_file(), "{document} is missing");
    }
    // Whatever has to be asked of an administrator, dpkg does not.
    assert!(!printed(&["dpkg-deb", "--contents", &text(&package)]).contains("/etc/"), "a file in /etc");
}

#[test]
fn the_bill_of_materials_is_the_same_each_time_and_names_what_is_linked_statically() {
    if !target_dir().join("tools/bin/cargo-cyclonedx").exists() {
        skipped("cargo-cyclonedx is not installed (tests/packages/setup.sh)");
        return;
    }
    require_tool("jq", "jq");
    let sbom = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/sbom");
        let output = Command::new(script).env("CARGO_TARGET_DIR", target_dir()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = sbom();
    assert_eq!(text, sbom());
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "a path of this machine");
    let bill: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((bill["bomFormat"].as_str(), bill["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    let components = bill["components"].as_array().unwrap();
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let locked = |name: &str| {
        let entry =
            lock.split("[[package]]\n").find(|entry| entry.starts_with(&format!("name = \"{name}\"\n"))).unwrap();
        entry.split('"').nth(3).unwrap().to_owned()
    };
    for name in ["rustls", "aws-lc-rs", "openssl-sys", "turnstone-turn"] {
        let found =
            components.iter().find(|component| component["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(found["version"], locked(name), "{name}");
    }
    for name in ["openssl", "glibc"] {
        let purl = |component: &serde_json::Value| {
            component["purl"].as_str().unwrap().starts_with(&format!("pkg:generic/{name}@"))
        };
        assert!(components.iter().any(purl), "no {name}");
    }
}
