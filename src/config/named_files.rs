//! The files that a configuration takes secrets from, read without the rest of it: for those who judge files.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Place;
use super::keys;
use super::overrides::Overrides;
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
        let prefixes = keys::all().filter_map(|key| match key.name {
            "auth.users-file" => Some("auth.users-"),
            "realm.users-file" => Some("realm.users-"),
            name => name.strip_suffix("credential"),
        });
        let mut found = Vec::new();
        for (section, prefix) in prefixes.filter_map(|prefix| prefix.rsplit_once('.')) {
            let names: Vec<_> = section.split('.').collect();
            let mut tables = Vec::new();
            tables_at(table.get_ref(), &names, false, &mut tables);
            found.extend(tables.into_iter().filter_map(|(table, is_one_of_many)| {
                let shown = if is_one_of_many { format!("[[{section}]]") } else { format!("[{section}]") };
                named(table, &shown, prefix)
            }));
        }
        found
    }

    /// The files among them.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        self.named_secrets().into_iter().filter_map(|secret| secret.file).collect()
    }
}

/// The tables that a path leads to, and whether each is one of many.
fn tables_at<'t, 'i>(
    table: &'t DeTable<'i>,
    names: &[&str],
    is_one_of_many: bool,
    found: &mut Vec<(&'t DeTable<'i>, bool)>,
) {
    let Some((first, rest)) = names.split_first() else { return found.push((table, is_one_of_many)) };
    match table.get(*first).map(Spanned::get_ref) {
        Some(DeValue::Table(inner)) => tables_at(inner, rest, false, found),
        Some(DeValue::Array(items)) => {
            for item in items.iter() {
                if let DeValue::Table(inner) = item.get_ref() {
                    tables_at(inner, rest, true, found);
                }
            }
        }
        _ => {}
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
            [[realm]]
            users-file = "/var/lib/others"
            [[realm]]
            [[realm.secrets]]
            file = "/var/lib/other-secret"
        "#;
        let source = Source {
            name: "f.toml".to_owned(),
            text: text.to_owned(),
            directory: PathBuf::from("/etc/turnstone"),
            ..Source::default()
        };
        let expected = ["/var/lib/others", "/var/lib/other-secret", "secret", "alice", "/var/lib/users", "admin-token"];
        let mut files = source.secret_files();
        files.sort();
        let mut expected = expected.map(|path| source.directory.join(path));
        expected.sort();
        assert_eq!(files, expected);
        let named = source.named_secrets();
        let of = |key: &str| named.iter().find(|secret| secret.key == key).unwrap();
        let secret = of("file in [[auth.secrets]]");
        assert_eq!(
            (secret.credential.as_deref(), secret.place.to_string()),
            (Some("secret"), "f.toml:7:20".to_owned())
        );
        assert_eq!(of("webhook-token-credential in [usage]").file, None);
        assert!(of("users-file in [[realm]]").file.is_some() && of("file in [[realm.secrets]]").file.is_some());
        for text in ["", "auth = 1", "[[auth", "[auth]\nsecrets = 3\nusers = [1]"] {
            assert!(Source { text: text.to_owned(), ..Source::default() }.secret_files().is_empty(), "{text}");
        }
    }
}
