//! The systemd unit that the server is installed with, as far as it decides what the server may do: its fragment and drop-ins
//! (systemd.unit(5)), read as text, so that it can be judged before it has ever run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name of the unit.
const NAME: &str = "turnstone.service";
/// Where units are, the first one wins (systemd.unit(5)).
const PLACES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// How much of the file system is read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ProtectSystem {
    #[default]
    No,
    Yes,
    Full,
    Strict,
}

/// What becomes of /home, /root and /run/user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ProtectHome {
    #[default]
    No,
    ReadOnly,
    /// Not there.
    Hidden,
}

/// What the unit says.
#[derive(Clone, Debug, Default)]
pub(super) struct Unit {
    /// Its file.
    pub(super) path: PathBuf,
    /// The user it runs as; root without one.
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) groups: Vec<String>,
    /// The user is made up at every start.
    pub(super) has_dynamic_user: bool,
    /// The configuration that it starts the server with.
    pub(super) config: Option<PathBuf>,
    /// The file system is another one.
    pub(super) has_own_root: bool,
    pub(super) protect_system: ProtectSystem,
    pub(super) protect_home: ProtectHome,
    pub(super) has_private_tmp: bool,
    pub(super) writable: Vec<PathBuf>,
    pub(super) read_only: Vec<PathBuf>,
    pub(super) hidden: Vec<PathBuf>,
    /// Mounted from elsewhere on the host: there for certain.
    pub(super) bound: Vec<PathBuf>,
    /// Made by the manager for the service, with what makes them.
    pub(super) own_directories: Vec<(PathBuf, &'static str)>,
    /// Credentials, each with the file that it comes from, if it is one.
    pub(super) credentials: Vec<(String, Option<PathBuf>)>,
    pub(super) may_bind_low_ports: bool,
}

impl Unit {
    /// The unit that is installed; `None` where there is none. `top` stands in front of every path.
    pub(super) fn installed(top: &Path) -> Option<Self> {
        let places = PLACES.map(|place| top.join(place.trim_start_matches('/')));
        let path = places.iter().map(|place| place.join(NAME)).find(|path| path.exists())?;
        let folders: Vec<_> = [NAME, "service"]
            .iter()
            .flat_map(|name| places.iter().map(move |place| place.join(folder_of(name))))
            .collect();
        Self::read(&path, &folders).ok()
    }

    /// A unit's file, with the drop-ins beside it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn at(path: &Path) -> std::io::Result<Self> {
        let mut folder = path.as_os_str().to_owned();
        folder.push(".d");
        Self::read(path, &[folder.into()])
    }

    fn read(path: &Path, folders: &[PathBuf]) -> std::io::Result<Self> {
        let mut texts = vec![std::fs::read_to_string(path)?];
        // Of drop-ins with one name the first is taken; their names make the order.
        let mut drop_ins: BTreeMap<_, PathBuf> = BTreeMap::new();
        for entry in folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "conf") {
                drop_ins.entry(entry.file_name()).or_insert_with(|| entry.path());
            }
        }
        texts.extend(drop_ins.values().filter_map(|path| std::fs::read_to_string(path).ok()));
        Ok(Self { path: path.to_owned(), ..Self::parse(&texts) })
    }

    fn parse(texts: &[String]) -> Self {
        let mut unit = Self::default();
        let (mut ambient, mut bounding) = (Vec::new(), None);
        for (key, value) in texts.iter().flat_map(|text| assignments(text)) {
            let value = value.as_str();
            let paths = |list: &mut Vec<PathBuf>| match value {
                "" => list.clear(),
                _ => list.extend(words(value).filter_map(|word| path(&word))),
            };
            match key.as_str() {
                "User" => unit.user = non_empty(value),
                "Group" => unit.group = non_empty(value),
                "SupplementaryGroups" if value.is_empty() => unit.groups.clear(),
                "SupplementaryGroups" => unit.groups.extend(words(value)),
                "DynamicUser" => unit.has_dynamic_user = is_true(value),
                "RootDirectory" | "RootImage" => unit.has_own_root = !value.is_empty() && value != "/",
                "ExecStart" => unit.config = config_of(value).or(unit.config),
                "ProtectSystem" => {
                    unit.protect_system = match value {
                        "strict" => ProtectSystem::Strict,
                        "full" => ProtectSystem::Full,
                        _ if is_true(value) => ProtectSystem::Yes,
                        _ => ProtectSystem::No,
                    }
                }
                "ProtectHome" => {
                    unit.protect_home = match value {
                        "read-only" => ProtectHome::ReadOnly,
                        "tmpfs" => ProtectHome::Hidden,
                        _ if is_true(value) => ProtectHome::Hidden,
                        _ => ProtectHome::No,
                    }
                }
                "PrivateTmp" => unit.has_private_tmp = is_true(value) || value == "disconnected",
                "ReadWritePaths" | "ReadWriteDirectories" => paths(&mut unit.writable),
                "ReadOnlyPaths" | "ReadOnlyDirectories" => paths(&mut unit.read_only),
                "InaccessiblePaths" | "InaccessibleDirectories" | "TemporaryFileSystem" => paths(&mut unit.hidden),
                "BindPaths" => bind(value, &mut unit.bound, Some(&mut unit.writable)),
                "BindReadOnlyPaths" => bind(value, &mut unit.bound, None),
                "RuntimeDirectory" => unit.own("RuntimeDirectory=", "/run", value),
                "StateDirectory" => unit.own("StateDirectory=", "/var/lib", value),
                "CacheDirectory" => unit.own("CacheDirectory=", "/var/cache", value),
                "LogsDirectory" => unit.own("LogsDirectory=", "/var/log", value),
                "ConfigurationDirectory" => unit.own("ConfigurationDirectory=", "/etc", value),
                "LoadCredential" | "LoadCredentialEncrypted" | "SetCredential" | "SetCredentialEncrypted" => {
                    match value {
                        "" => unit.credentials.retain(|(_, file)| file.is_some() == key.starts_with("Set")),
                        _ => {
                            let (name, rest) = value.split_once(':').unwrap_or((value, ""));
                            let file = if key.starts_with("Load") { path(rest) } else { None };
                            unit.credentials.push((name.to_owned(), file));
                        }
                    }
                }
                "AmbientCapabilities" => ambient.push(value.to_owned()),
                "CapabilityBoundingSet" => bounding.get_or_insert_with(Vec::new).push(value.to_owned()),
                _ => {}
            }
        }
        let is_root = unit.user.as_deref().is_none_or(|user| user == "root" || user == "0");
        let bounded = bounding.as_deref().is_none_or(has_low_ports);
        unit.may_bind_low_ports = bounded && (is_root || has_low_ports(&ambient));
        unit
    }

    fn own(&mut self, key: &'static str, below: &str, value: &str) {
        if value.is_empty() {
            self.own_directories.retain(|(_, of)| *of != key);
        }
        // `turnstone:alias` makes a link, too.
        let name = |word: String| Path::new(below).join(word.split(':').next().unwrap_or_default());
        self.own_directories.extend(words(value).map(|word| (name(word), key)));
    }
}

fn folder_of(name: &str) -> String {
    if name == "service" { "service.d".to_owned() } else { format!("{name}.d") }
}

/// Keys and values of the section `[Service]`.
fn assignments(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut section, mut whole) = (String::new(), String::new());
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(begun) = line.strip_suffix('\\') {
            whole += begun;
            whole.push(' ');
            continue;
        }
        let line = std::mem::take(&mut whole) + line;
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=')
            && section == "Service"
        {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

fn words(value: &str) -> impl Iterator<Item = String> + '_ {
    value.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned())
}

fn non_empty(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn is_true(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// A path without the marks in front of it and what follows a colon; `None` for one that the manager makes up (`%`).
fn path(word: &str) -> Option<PathBuf> {
    let bare = word.trim_start_matches(['-', '+', '!']).split(':').next()?;
    (bare.starts_with('/') && !bare.contains('%')).then(|| PathBuf::from(bare))
}

/// `SOURCE:DESTINATION:OPTIONS`.
fn bind(value: &str, bound: &mut Vec<PathBuf>, writable: Option<&mut Vec<PathBuf>>) {
    let to = |word: String| {
        let mut parts = word.trim_start_matches('-').split(':').map(str::to_owned);
        let source = parts.next()?;
        path(&parts.next().unwrap_or(source))
    };
    let paths: Vec<_> = words(value).filter_map(to).collect();
    bound.extend(paths.iter().cloned());
    if let Some(writable) = writable {
        writable.extend(paths);
    }
}

/// The configuration that a command line names.
fn config_of(command: &str) -> Option<PathBuf> {
    let mut words = words(command);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--config" | "-c" => return words.next().and_then(|word| path(&word)),
            _ => {
                if let Some(named) = word.strip_prefix("--config=") {
                    return path(named);
                }
            }
        }
    }
    None
}

/// Whether CAP_NET_BIND_SERVICE is in a set of capabilities, of which each line adds some, `~` takes some away.
fn has_low_ports(lines: &[String]) -> bool {
    let mut has = false;
    for (index, line) in lines.iter().enumerate() {
        let named = line.trim_start_matches('~').split_whitespace().any(|name| name == "CAP_NET_BIND_SERVICE");
        match line.strip_prefix('~') {
            _ if line.is_empty() => has = false,
            // The first line, if it takes away, takes from all.
            Some(_) if index == 0 => has = !named,
            Some(_) => has &= !named,
            None => has |= named,
        }
    }
    has
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_unit_is_read_with_its_drop_ins() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        assert!(Unit::installed(folder.path()).is_none());
        let shipped = include_str!("../../../systemd/turnstone.service");
        std::fs::write(place("usr/lib/systemd/system/turnstone.service"), shipped).unwrap();
        let unit = Unit::installed(folder.path()).unwrap();
        assert_eq!((unit.user.as_deref(), unit.group.as_deref()), (Some("turnstone"), Some("turnstone")));
        assert_eq!(unit.config, Some("/etc/turnstone/turnserver.toml".into()));
        assert_eq!((unit.protect_system, unit.protect_home), (ProtectSystem::Strict, ProtectHome::Hidden));
        assert!(unit.has_private_tmp && unit.may_bind_low_ports && !unit.has_own_root);
        let directories: Vec<_> = unit.own_directories.iter().map(|(path, _)| path.to_str().unwrap()).collect();
        assert_eq!(directories, ["/run/turnstone", "/var/log/turnstone", "/var/lib/turnstone"]);
        assert_eq!(unit.credentials, [("secret".to_owned(), Some("/etc/turnstone/secret".into()))]);

        let drop_in = "[Service]\n# comment\nUser=turn\nReadWritePaths=/srv/a \\\n  -/srv/b\nLogsDirectory=\n\
                       LoadCredential=key:/k.pem\nAmbientCapabilities=\nProtectHome=no\n[Other]\nUser=nobody\n";
        std::fs::write(place("etc/systemd/system/turnstone.service.d/50-local.conf"), drop_in).unwrap();
        std::fs::write(place("usr/lib/systemd/system/turnstone.service.d/50-local.conf"), "[Service]\nUser=x\n")
            .unwrap();
        std::fs::write(place("etc/systemd/system/service.d/60.conf"), "[Service]\nPrivateTmp=no\n").unwrap();
        let unit = Unit::installed(folder.path()).unwrap();
        assert_eq!(unit.user.as_deref(), Some("turn"));
        assert_eq!(unit.writable, [Path::new("/srv/a"), Path::new("/srv/b")]);
        assert_eq!((unit.own_directories.len(), unit.credentials.len()), (2, 2));
        assert!(!unit.may_bind_low_ports && !unit.has_private_tmp && unit.protect_home == ProtectHome::No);
    }

    #[test]
    fn what_is_written_in_other_ways_means_the_same() {
        let parsed = |text: &str| Unit::parse(&[format!("[Service]\n{text}")]);
        assert!(parsed("").may_bind_low_ports, "root");
        assert!(!parsed("CapabilityBoundingSet=CAP_CHOWN").may_bind_low_ports);
        assert!(parsed("CapabilityBoundingSet=~CAP_CHOWN").may_bind_low_ports);
        assert!(!parsed("CapabilityBoundingSet=~CAP_NET_BIND_SERVICE").may_bind_low_ports);
        assert!(!parsed("User=turn").may_bind_low_ports);
        assert_eq!(parsed("ExecStart=/usr/bin/turnstone serve -c /a.toml").config, Some("/a.toml".into()));
        assert_eq!(parsed("ExecStart=/usr/bin/turnstone serve --config=/a.toml").config, Some("/a.toml".into()));
        let bound = parsed("BindReadOnlyPaths=/src:/dst:rbind\nBindPaths=/w");
        assert_eq!((bound.bound.len(), bound.writable.len()), (2, 1));
        assert!(parsed("ReadWritePaths=%t/x").writable.is_empty());
        for text in ["", "[", "x\\", "[Service]\n=\nLoadCredential\nLoadCredential=\nUser", "\u{fc}=\\\n\\"] {
            Unit::parse(&[text.to_owned()]);
        }
    }
}
