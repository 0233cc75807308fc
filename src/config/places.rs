//! Where a key is written, for what turns out wrong only after the configuration was read.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Place;
use super::overrides::Overrides;
use super::reader::Document;
use super::source::Source;

impl Source {
    /// Where the value of a key such as `tls.key` comes from: a flag, a variable, its line, or the file as a whole where it is
    /// not written. Of a list of tables, the first one that has it.
    pub fn place_of(&self, key: &str, overrides: &Overrides) -> Place {
        if let Some(winner) = overrides.get(key) {
            return winner.place.clone();
        }
        let document = Document::new(&self.name, &self.text, overrides);
        let (table, _) = DeTable::parse_recoverable(&self.text);
        let names: Vec<_> = key.split('.').collect();
        find(table.get_ref(), &names).map_or_else(|| document.whole(), |value| document.place(value.span()))
    }
}

/// The value of a key, by the names that lead to it.
pub(super) fn find<'t, 'i>(table: &'t DeTable<'i>, names: &[&str]) -> Option<&'t Spanned<DeValue<'i>>> {
    let (first, rest) = names.split_first()?;
    let value = table.get(*first)?;
    match value.get_ref() {
        _ if rest.is_empty() => Some(value),
        DeValue::Table(inner) => find(inner, rest),
        DeValue::Array(items) => items.iter().find_map(|item| match item.get_ref() {
            DeValue::Table(inner) => find(inner, rest),
            _ => None,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_is_written_or_set() {
        let text = "workers = 1\n[tls]\nkey = \"k\"\n[[listen]]\naddress = \"a\"\n[usage]\nfile = \"f\"\n".to_owned();
        let source = Source { name: "f.toml".to_owned(), text, ..Source::default() };
        let mut overrides = Overrides::default();
        let place = |key: &str, overrides: &Overrides| source.place_of(key, overrides).to_string();
        for (key, expected) in [
            ("tls.key", "f.toml:3:7"),
            ("usage.file", "f.toml:7:8"),
            ("listen.address", "f.toml:5:11"),
            ("metrics.listen", "f.toml"),
            ("workers.x", "f.toml"),
        ] {
            assert_eq!(place(key, &overrides), expected);
        }
        overrides.set_flag("tls-key", vec!["other".to_owned()]);
        assert_eq!(place("tls.key", &overrides), "--tls-key");
    }
}
