//! The files that a configuration takes secrets from, read without the rest of it: for those who judge files.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Place;
use super::keys::KEYS;
use super::overrides::Overrides;
use super::places::find;
use super::reader::Document;
use super::source::Source;

/// Where a secret comes from, if not from a variable or the file itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSecret {
    /// The key, with its section: `file in [[auth.secrets]]`.
    pub key: String,
    /// The credential of the service manager, which wins where there are credentials.
    pub credential: Option<String>,
    /// The file.
    pub file: Option<PathBuf>,
    /// Where it is written.
    pub place: Place,
}

impl Source {
    /// The files and credentials that it takes secrets, passwords, users and tokens from, as far as it can be read at all.
    pub fn named_secrets(&self) -> Vec<NamedSecret> {
        let overrides = Overrides::default();
        let document = Document::new(&self.name, &self.text, &overrides);
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if !errors.is_empty() {
            return Vec::new();
        }
        let named = |table: &DeTable<'_>, section: &str, prefix: &str| {
            let text = |key: String| {
                let value: &Spanned<DeValue<'_>> = table.get(key.as_str())?;
                let DeValue::String(text) = value.get_ref() else { return None };
                Some((text.to_string(), document.place(value.span()), key))
            };
            let (file, credential) = (text(format!("{prefix}file")), text(format!("{prefix}credential")));
            let (_, place, key) = file.clone().or_else(|| credential.clone())?;
            Some(NamedSecret {
                key: format!("{key} in {section}"),
                credential: credential.map(|(name, ..)| name),
                file: file.map(|(path, ..)| self.directory.join(path)),
                place,
            })
        };
        // Beside a credential there may be a file; of users there is a file alone.
        let prefixes = KEYS.iter().filter_map(|key| match key.name {
            "auth.users-file" => Some("auth.users-"),
            name => name.strip_suffix("credential"),
        });
        let mut found = Vec::new();
        for (section, prefix) in prefixes.filter_map(|prefix| prefix.rsplit_once('.')) {
            let names: Vec<_> = section.split('.').collect();
            match find(table.get_ref(), &names).map(Spanned::get_ref) {
                Some(DeValue::Table(table)) => found.extend(named(table, &format!("[{section}]"), prefix)),
                Some(DeValue::Array(items)) => {
                    let tables = items.iter().filter_map(|item| match item.get_ref() {
                        DeValue::Table(table) => Some(table),
                        _ => None,
                    });
                    found.extend(tables.filter_map(|table| named(table, &format!("[[{section}]]"), prefix)));
                }
                _ => {}
            }
        }
        found
    }

    /// The files among them.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        self.named_secrets().into_iter().filter_map(|secret| secret.file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_secrets_and_users_are_found_wherever_the_file_is() {
        let text = r#"
            [auth]
            users-file = "/var/lib/users"
            [[auth.secrets]]
            id = "a"
            credential = "secret"
            file = "secret"
            [[auth.secrets]]
            id = "b"
            env = "SECRET"
            [[auth.users]]
            name = "alice"
            password-file = "alice"
            [admin]
            token-file = "admin-token"
            [usage]
            webhook-token-credential = "webhook-token"
        "#;
        let source = Source {
            name: "f.toml".to_owned(),
            text: text.to_owned(),
            directory: PathBuf::from("/etc/turnstone"),
            ..Source::default()
        };
        let expected = ["secret", "alice", "/var/lib/users", "admin-token"];
        assert_eq!(source.secret_files(), expected.map(|path| source.directory.join(path)));
        let named = source.named_secrets();
        assert_eq!(
            (named[0].credential.as_deref(), named[0].place.to_string()),
            (Some("secret"), "f.toml:7:20".to_owned())
        );
        assert_eq!(named[4].key, "webhook-token-credential in [usage]");
        for text in ["", "auth = 1", "[[auth", "[auth]\nsecrets = 3\nusers = [1]"] {
            assert!(Source { text: text.to_owned(), ..Source::default() }.secret_files().is_empty(), "{text}");
        }
    }
}
