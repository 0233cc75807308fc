//! What the unit's sandbox lets through: which paths the service sees, and which it may write to (systemd.exec(5)).

use std::path::Path;

use super::unit::{ProtectHome, ProtectSystem, Unit};

const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// Never read-only by ProtectSystem=strict.
const API: [&str; 3] = ["/dev", "/proc", "/sys"];

impl Unit {
    /// Why the service does not see a path that is there; `None` if it does.
    pub(super) fn hides(&self, path: &Path) -> Option<String> {
        let within = |top: &str| path.starts_with(top);
        if self.bound.iter().any(|bound| path.starts_with(bound)) {
            return None;
        }
        if let Some(hidden) = self.hidden.iter().find(|hidden| path.starts_with(hidden)) {
            return Some(format!("InaccessiblePaths= or TemporaryFileSystem= hides {} from it", hidden.display()));
        }
        if self.protect_home == ProtectHome::Hidden && HOMES.into_iter().any(within) {
            return Some("ProtectHome= hides /home, /root and /run/user from it".to_owned());
        }
        if self.has_private_tmp && TEMPORARY.into_iter().any(within) {
            return Some("PrivateTmp= gives it a /tmp and a /var/tmp of its own".to_owned());
        }
        None
    }

    /// Why the service may not write below a path; `None` if the sandbox lets it. The longest rule that covers it counts.
    pub(super) fn forbids_writing(&self, path: &Path) -> Option<String> {
        if let Some(hidden) = self.hides(path) {
            return Some(hidden);
        }
        let longest = |paths: &mut dyn Iterator<Item = &Path>| {
            paths.filter(|top| path.starts_with(top)).map(|top| top.components().count()).max()
        };
        let mut writable: Vec<&Path> = self.writable.iter().map(AsRef::as_ref).collect();
        writable.extend(self.own_directories.iter().map(|(directory, _)| directory.as_path()));
        let mut read_only: Vec<(&Path, &str)> =
            self.read_only.iter().map(|top| (top.as_path(), "ReadOnlyPaths=")).collect();
        let protected: &[&str] = match self.protect_system {
            ProtectSystem::No => &[],
            ProtectSystem::Yes => &["/usr", "/boot", "/efi"],
            ProtectSystem::Full => &["/usr", "/boot", "/efi", "/etc"],
            ProtectSystem::Strict => {
                writable.extend(API.map(Path::new));
                &["/"]
            }
        };
        read_only.extend(protected.iter().map(|top| (Path::new(*top), "ProtectSystem=")));
        if self.protect_home == ProtectHome::ReadOnly {
            read_only.extend(HOMES.map(|top| (Path::new(top), "ProtectHome=")));
        }
        let allowed = longest(&mut writable.into_iter());
        let denied = longest(&mut read_only.iter().map(|(top, _)| *top));
        if denied.is_none() || allowed >= denied {
            return None;
        }
        let (_, key) = read_only
            .iter()
            .filter(|(top, _)| path.starts_with(top))
            .max_by_key(|(top, _)| top.components().count())?;
        Some(format!("{key} makes it read-only for it"))
    }

    /// What makes the directory that a path is in, if the manager does.
    pub(super) fn makes(&self, path: &Path) -> Option<(&Path, &'static str)> {
        let of = |(directory, key): &'_ (std::path::PathBuf, &'static str)| path.starts_with(directory).then_some(*key);
        self.own_directories.iter().find_map(|own| Some((own.0.as_path(), of(own)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_unit_names_is_writable_and_homes_and_tmp_are_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("turnstone.service");
        std::fs::write(&path, include_str!("../../../systemd/turnstone.service")).unwrap();
        let drop_ins = folder.path().join("turnstone.service.d");
        std::fs::create_dir(&drop_ins).unwrap();
        let more = "[Service]\nReadWritePaths=/srv/usage\nReadOnlyPaths=/srv/usage/old\nBindReadOnlyPaths=/run/user/1/key.pem\n\
                    InaccessiblePaths=-/mnt\n";
        std::fs::write(drop_ins.join("a.conf"), more).unwrap();
        let unit = Unit::at(&path).unwrap();
        let hides = |path: &str| unit.hides(Path::new(path)).is_some();
        let forbids = |path: &str| unit.forbids_writing(Path::new(path)).is_some();
        for path in ["/root", "/home", "/tmp/k", "/var/tmp/k", "/mnt/k", "/run/user/1/k"] {
            assert!(hides(path) && forbids(path), "{path}");
        }
        for path in ["/etc/turnstone/k", "/roots/k", "/run/user/1/key.pem", "/opt/k"] {
            assert!(!hides(path) && forbids(path), "{path}");
        }
        for path in ["/srv/usage/u", "/var/log/turnstone/u", "/run/turnstone/admin.sock", "/var/lib/turnstone/spool"] {
            assert!(!forbids(path), "{path}");
        }
        assert!(forbids("/srv/usage/old/u") && forbids("/srv/usages/u") && forbids("/var/log/u"));
        let words = unit.forbids_writing(Path::new("/srv/usage/old/u")).unwrap();
        assert!(words.starts_with("ReadOnlyPaths="), "{words}");
        assert_eq!(unit.makes(Path::new("/var/log/turnstone/u")).unwrap().1, "LogsDirectory=");
        assert!(Unit::default().forbids_writing(Path::new("/usr/x")).is_none());
    }
}
