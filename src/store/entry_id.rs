//! Whom an entry of the store is about, and its line in the state directory.
//!
//! An id is the object that says who, without times and with the name of the realm, and the name of the server's run that made it; behind
//! that, whether the credentials API asked for it: that one has less room, and gives way to the operator.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::auth::Revoked;
use crate::config::{RevocationError, WrittenRevocation};
use crate::text::json;

/// The longest name of a run.
const BY_BYTES_MAX: usize = 64;
/// The longest text: names of 508 bytes and of their realm, most of them escaped.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

/// What stands behind the run's name where the credentials API asked.
const OF_API: &str = ":api";

/// Who has asked for something to be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// By the command, the admin API, or the page.
    Operator,
    /// An application or a browser, with a key.
    CredentialsApi,
}

/// Whom an entry is about, and who has made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryId {
    /// The realm, by its name.
    pub realm: Arc<str>,
    /// Whose credentials.
    pub whose: Revoked,
    /// The run of a server that revoked it.
    pub by: Arc<str>,
    /// Who asked it to.
    pub asker: Asker,
}

/// A line of the state directory.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    of: WrittenRevocation,
    by: String,
    is: String,
}

impl EntryId {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_text(text: &str) -> Result<Self, RevocationError> {
        let form = || RevocationError::Form("no entry".to_owned());
        if text.len() > TEXT_BYTES_MAX {
            return Err(RevocationError::TooLong);
        }
        let (of, by) = text.rsplit_once(' ').ok_or_else(form)?;
        let id = Self::of(&WrittenRevocation::of_line(of)?, by)?;
        // There is one text for each.
        if id.text() == text { Ok(id) } else { Err(form()) }
    }

    /// What it is called in the store.
    pub fn text(&self) -> String {
        format!("{}{}", start_of_ids(&self.realm, &self.whose), self.made_by())
    }

    fn made_by(&self) -> String {
        match self.asker {
            Asker::Operator => self.by.to_string(),
            Asker::CredentialsApi => format!("{}{OF_API}", self.by),
        }
    }

    fn of(of: &WrittenRevocation, by: &str) -> Result<Self, RevocationError> {
        let form = || RevocationError::Form("no entry".to_owned());
        let realm = of.realm.as_deref().ok_or_else(form)?;
        let (by, asker) = match by.strip_suffix(OF_API) {
            Some(by) => (by, Asker::CredentialsApi),
            None => (by, Asker::Operator),
        };
        if by.is_empty() || by.len() > BY_BYTES_MAX || !by.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(form());
        }
        Ok(Self { realm: realm.into(), whose: of.whose()?, by: by.into(), asker })
    }
}

/// What the ids of all entries about somebody begin with, and those of nobody else.
pub fn start_of_ids(realm: &str, whose: &Revoked) -> String {
    format!("{} ", json(&written(realm, whose)))
}

/// Reads a line of the state directory; `None` if it is none of an entry.
///
/// # Errors
/// What is wrong with it.
pub fn entry_of_line(line: &str) -> Option<Result<(EntryId, Entry), RevocationError>> {
    let Line { of, by, is } = serde_json::from_str(line).ok()?;
    let state = is.parse().map_err(|error| RevocationError::Form(format!("{error}")));
    Some(state.and_then(|state: Entry| Ok((EntryId::of(&of, &by)?, state))))
}

/// The line of an entry.
pub fn line_of_entry(id: &EntryId, entry: &Entry) -> String {
    json(&Line { of: written(&id.realm, &id.whose), by: id.made_by(), is: entry.to_string() })
}

fn written(realm: &str, whose: &Revoked) -> WrittenRevocation {
    WrittenRevocation { realm: Some(realm.to_owned()), ..WrittenRevocation::of_whom(whose) }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Counts;
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_has_one_text() {
        let users = [Revoked::User("al\"ice \u{e9}".into()), Revoked::Key("old".into()), Revoked::Everybody];
        for (whose, asker) in users
            .into_iter()
            .flat_map(|whose| [Asker::Operator, Asker::CredentialsApi].map(|asker| (whose.clone(), asker)))
        {
            let id = EntryId { realm: "turn.test".into(), whose, by: "0123456789abcdef".into(), asker };
            assert_eq!(EntryId::of_text(&id.text()).as_ref(), Ok(&id));
            assert!(id.text().starts_with(&start_of_ids("turn.test", &id.whose)));
            let entry = Entry { all: Counts { revoked: 2, undone: 1 }, all_until_unix: 5, ..Entry::default() };
            assert_eq!(entry_of_line(&line_of_entry(&id, &entry)), Some(Ok((id, entry))));
        }
        for text in [
            "",
            "~ junk",
            r#"{"user":"alice","realm":"turn.test"}"#,
            r#"{"user":"alice","realm":"turn.test"} "#,
            r#"{"user":"alice"} 0123456789abcdef"#,
            r#"{"user":"alice","realm":"turn.test"} :api"#,
            r#"{"user":"alice","realm":"turn.test"} 0123456789abcdef:app"#,
            r#"{"user": "alice","realm":"turn.test"} 0123456789abcdef"#,
            r#"{"user":"alice","realm":"turn.test","until":5} 0123456789abcdef"#,
            r#"{"user":"alice","key":"a","realm":"turn.test"} 0123456789abcdef"#,
        ] {
            assert!(EntryId::of_text(text).is_err(), "{text}");
        }
        assert_eq!(entry_of_line(r#"{"user": "alice"}"#), None);
        assert!(
            entry_of_line(r#"{"of":{"user":"alice","realm":"a"},"by":"b","is":"1"}"#).is_some_and(|read| read.is_err())
        );
    }
}
