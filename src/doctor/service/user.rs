//! The user that the service runs as, and doing something as that user.

use std::path::Path;

use thiserror::Error;

use crate::net::sys;

/// A user with the groups that count when it opens a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    /// As in /etc/passwd, or the number that was given.
    pub(super) name: String,
    /// Its number.
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// Nobody has this name or number.
#[derive(Clone, Debug, Error)]
#[error("there is no user {0} in /etc/passwd")]
pub struct NoUser(String);

impl User {
    /// A user by name or number.
    ///
    /// # Errors
    /// There is none in /etc/passwd.
    pub(super) fn named(name: &str) -> Result<Self, NoUser> {
        let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
        Self::find(name, &read("/etc/passwd"), &read("/etc/group")).ok_or_else(|| NoUser(name.to_owned()))
    }

    fn find(name: &str, passwd: &str, group: &str) -> Option<Self> {
        let users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = users.into_iter().find(|fields| fields.first() == Some(&name) || fields.get(2) == Some(&name));
        let Some(fields) = found else {
            // A number needs no name.
            let uid = name.parse().ok()?;
            return Some(Self { name: name.to_owned(), uid, gid: uid, groups: Vec::new() });
        };
        let name = (*fields.first()?).to_owned();
        let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        let groups = group.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let members = fields.get(3)?;
            members.split(',').any(|member| member == name).then(|| fields.get(2)?.parse().ok()).flatten()
        });
        let groups = groups.collect();
        Some(Self { name, uid, gid, groups })
    }

    /// With the unit's `Group=` and `SupplementaryGroups=`, as far as there are such groups.
    pub(super) fn with_groups(mut self, main: Option<&str>, more: &[String]) -> Self {
        let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
        let number = |name: &str| {
            let of = |line: &str| {
                let mut fields = line.split(':');
                (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
            };
            text.lines().find_map(of).or_else(|| name.parse().ok())
        };
        self.gid = main.and_then(number).unwrap_or(self.gid);
        self.groups.extend(more.iter().filter_map(|name| number(name)));
        self
    }

    /// The user of this process, whose access needs no pretending.
    pub(super) fn own() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let named = Self::named(&uid.to_string());
        named.unwrap_or_else(|_| Self { name: uid.to_string(), uid, gid: 0, groups: Vec::new() })
    }

    /// Does something with this user's access to files; `None` where this process may not act for the user.
    pub(super) fn act<T: Send>(&self, what: impl FnOnce() -> T + Send) -> Option<T> {
        let own = rustix::process::geteuid();
        if own.as_raw() == self.uid {
            return Some(what());
        }
        if !own.is_root() {
            return None;
        }
        sys::with_files_of(self.uid, self.gid, &self.groups, what).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_user_is_found_with_its_groups() {
        let passwd = "root:x:0:0::/root:/bin/sh\nturn:x:990:991::/:/bin/false\nbroken\nb:x:y:z\n";
        let group = "turn:x:991:\nkeys:x:5:alice,turn\nother:x:6:turner\nbroken:x\n";
        let expected = User { name: "turn".to_owned(), uid: 990, gid: 991, groups: vec![5] };
        assert_eq!(User::find("turn", passwd, group), Some(expected.clone()));
        assert_eq!(User::find("990", passwd, group), Some(expected));
        assert_eq!(User::find("nobody", passwd, group), None);
        assert_eq!(User::find("b", passwd, group), None);
        assert_eq!(User::find("4711", passwd, group).map(|user| user.uid), Some(4711));
    }

    #[test]
    fn root_acts_for_a_user_in_one_thread_only() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || std::fs::File::open(file.path()).is_ok();
        let nobody = User { name: "nobody".to_owned(), uid: 65534, gid: 65534, groups: Vec::new() };
        assert_eq!((nobody.act(open), open()), (Some(false), true));
        // Groups count, and the file's access list would, too: the kernel judges.
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(file.path(), None, Some(4711)).unwrap();
        assert_eq!(nobody.act(open), Some(false));
        assert_eq!(User { groups: vec![4711], ..nobody.clone() }.act(open), Some(true));
        assert_eq!(User { gid: 4711, ..nobody }.act(open), Some(true));
        assert!(std::fs::write(file.path(), "root").is_ok());
    }
}
