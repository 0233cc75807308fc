//! Reads a TOML document key by key. Every value is typed where it is asked for; a key nobody asked for is unknown.
//!
//! A hand-driven reader over the spanned tree, rather than a derived one, so that every problem of a file is found at
//! once, each with its line and column, and so that flags and variables pass through the same checks.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Located, Place, Problem, ValueError};
use super::key::{Key, Kind};
use super::keys;
use super::overrides::{Override, Overrides};
use super::secret::Readers;
use super::units;
use super::words::nearest;

/// A document being read, with the problems found so far.
pub(super) struct Document<'d> {
    name: &'d str,
    text: &'d str,
    overrides: &'d Overrides,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    secret_readers: Cell<Readers>,
    secret_files: RefCell<Vec<PathBuf>>,
}

impl<'d> Document<'d> {
    pub(super) fn new(name: &'d str, text: &'d str, overrides: &'d Overrides) -> Self {
        Self {
            name,
            text,
            overrides,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            secret_readers: Cell::default(),
            secret_files: RefCell::default(),
        }
    }

    /// Notes a problem; reading goes on.
    pub(super) fn problem(&self, place: Place, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { place, message: message.into() });
    }

    /// Notes a problem of a line that is not TOML: what follows from the first one on a line is none of its own.
    pub(super) fn problem_of_line(&self, place: Place, message: impl Into<String>) {
        let line_of = |place: &Place| if let Place::At { line, .. } = place { Some(*line) } else { None };
        let is_known = self.problems.borrow().iter().any(|known| line_of(&known.place) == line_of(&place));
        if !is_known {
            self.problem(place, message);
        }
    }

    /// The line that a byte range begins in.
    pub(super) fn line(&self, span: &Range<usize>) -> &'d str {
        let at = span.start.min(self.text.len());
        let start = self.text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default()
    }

    /// Notes something an operator should know.
    pub(super) fn warning(&self, place: Place, message: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem { place, message: message.into() });
    }

    /// Who may read the files of secrets that the document names.
    pub(super) fn secret_readers(&self) -> Readers {
        self.secret_readers.get()
    }

    pub(super) fn set_secret_readers(&self, readers: Readers) {
        self.secret_readers.set(readers);
    }

    /// Notes a file that a secret is read from.
    pub(super) fn note_secret_file(&self, path: &Path) {
        self.secret_files.borrow_mut().push(path.to_owned());
    }

    /// The files that secrets were read from so far.
    pub(super) fn secret_files(&self) -> Vec<PathBuf> {
        self.secret_files.borrow().clone()
    }

    /// The file as a whole.
    pub(super) fn whole(&self) -> Place {
        Place::Source(self.name.to_owned())
    }

    /// The values of a flag or variable that replaces a whole section.
    pub(super) fn replacement(&self, key: &str) -> Option<&'d Override> {
        self.overrides.get(key)
    }

    /// Whether a problem was found.
    pub(super) fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// Line and column of a byte range's start.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).map_or(0, |line| line.chars().count()) + 1;
        Place::At { file: self.name.to_owned(), line: before.matches('\n').count() + 1, column }
    }

    /// The warnings, if there was no problem.
    pub(super) fn finish(self) -> Result<Vec<Problem>, ConfigError> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(self.warnings.into_inner());
        }
        problems.sort();
        problems.dedup();
        Err(ConfigError { problems })
    }
}

/// One table of the document. Which keys it may have, and how they are written, stands in `keys`.
pub(super) struct Section<'d, 'i> {
    document: &'d Document<'d>,
    /// `""`, `"relay"`, `"auth.secrets"`.
    path: &'static str,
    /// As shown: `at the top level`, `in [relay]`, `in [[auth.secrets]]`.
    shown: String,
    place: Place,
    table: Option<&'i DeTable<'i>>,
}

impl<'d, 'i> Section<'d, 'i> {
    pub(super) fn root(document: &'d Document<'d>, table: &'i DeTable<'i>) -> Self {
        let place = document.whole();
        Self { document, path: "", shown: "at the top level".to_owned(), place, table: Some(table) }
    }

    /// Where the section begins, for what it lacks.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    /// The section's name as shown, e.g. `in [relay]`.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// A value written as text; the default where nothing is written. `parse` says what is wrong.
    pub(super) fn text<T, E: Display>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Located<T>> {
        self.texts(name, parse).into_iter().next()
    }

    /// One text or, where the key may have several, an array of texts.
    pub(super) fn texts<T, E: Display>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<Located<T>> {
        let Some(key) = self.key(name) else { return Vec::new() };
        if let Some(winner) = self.winner(key) {
            let parsed = winner.values.iter().map(|text| parse(text));
            return parsed.filter_map(|parsed| self.overridden(key, winner, parsed)).collect();
        }
        let Some(value) = self.value(name) else {
            let parsed = key.default.and_then(|text| self.accept(key, self.place(), parse(text)));
            return parsed.into_iter().collect();
        };
        let one = |value: &Spanned<DeValue<'i>>| {
            let DeValue::String(text) = value.get_ref() else { return self.mismatch(key, value) };
            self.accept(key, self.document.place(value.span()), parse(text))
        };
        match value.get_ref() {
            DeValue::Array(items) if matches!(key.kind, Kind::Texts(_)) => items.iter().filter_map(one).collect(),
            _ => one(value).into_iter().collect(),
        }
    }

    /// A duration within the key's bounds.
    pub(super) fn duration(&self, name: &'static str) -> Option<Located<Duration>> {
        let Some(Kind::Duration(range)) = self.key(name).map(|key| &key.kind) else { return None };
        self.text(name, |text| within(text, units::parse_duration, range, units::duration_text))
    }

    /// A duration within the key's bounds, or `"off"`.
    pub(super) fn duration_or_off(&self, name: &'static str) -> Option<Located<Option<Duration>>> {
        let Some(Kind::DurationOrOff(range)) = self.key(name).map(|key| &key.kind) else { return None };
        self.text(name, unless("off", |text| within(text, units::parse_duration, range, units::duration_text)))
    }

    /// A size in bytes within the key's bounds.
    pub(super) fn size(&self, name: &'static str) -> Option<Located<u64>> {
        let Some(Kind::Size(range)) = self.key(name).map(|key| &key.kind) else { return None };
        self.text(name, |text| within(text, units::parse_size, range, units::size_text))
    }

    /// A size in bytes within the key's bounds, or `"off"`.
    pub(super) fn size_or_off(&self, name: &'static str) -> Option<Located<Option<u64>>> {
        let Some(Kind::SizeOrOff(range)) = self.key(name).map(|key| &key.kind) else { return None };
        self.text(name, unless("off", |text| within(text, units::parse_size, range, units::size_text)))
    }

    /// A rate in bytes per second; `"unlimited"` is `None`.
    pub(super) fn rate(&self, name: &'static str) -> Option<Located<Option<u64>>> {
        /// Less than one packet a second is no cap but a refusal.
        const RATE_MIN_BYTES: u64 = 1000;
        self.text(
            name,
            unless("unlimited", |text| match units::parse_rate(text)? {
                0..RATE_MIN_BYTES => Err(ValueError::unfit(text, "less than one packet a second (8kbit/s)")),
                rate => Ok(rate),
            }),
        )
    }

    /// A whole number within the key's bounds.
    pub(super) fn number(&self, name: &'static str) -> Option<Located<u64>> {
        let key = self.key(name)?;
        if let Some(winner) = self.winner(key) {
            let parsed = in_range(winner.values.first()?, 10, key);
            return self.overridden(key, winner, parsed);
        }
        match self.value(name) {
            Some(value) => self.accept_number(key, value),
            None => self.accept(key, self.place(), in_range(key.default?, 10, key)),
        }
    }

    /// A whole number within the key's bounds; `"unlimited"` is `None`.
    pub(super) fn limit(&self, name: &'static str) -> Option<Located<Option<u64>>> {
        let key = self.key(name)?;
        if let Some(winner) = self.winner(key).filter(|winner| winner.values == ["unlimited"]) {
            return Some(Located { value: None, place: winner.place.clone() });
        }
        let number = match self.value(name) {
            _ if self.winner(key).is_some() => self.number(name)?,
            Some(value) if value.get_ref().as_str() == Some("unlimited") => {
                return Some(Located { value: None, place: self.document.place(value.span()) });
            }
            None if key.default == Some("unlimited") => return Some(Located { value: None, place: self.place() }),
            _ => self.number(name)?,
        };
        Some(Located { value: Some(number.value), place: number.place })
    }

    /// An array of whole numbers within the key's bounds.
    pub(super) fn numbers(&self, name: &'static str) -> Vec<u64> {
        let Some(key) = self.key(name) else { return Vec::new() };
        if let Some(winner) = self.winner(key) {
            let parsed = winner.values.iter().map(|text| in_range(text, 10, key));
            return parsed.filter_map(|parsed| Some(self.overridden(key, winner, parsed)?.value)).collect();
        }
        let Some(value) = self.value(name) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.mismatch::<()>(key, value);
            return Vec::new();
        };
        items.iter().filter_map(|item| Some(self.accept_number(key, item)?.value)).collect()
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, name: &'static str) -> bool {
        let Some(key) = self.key(name) else { return false };
        if let Some(winner) = self.winner(key) {
            let text = winner.values.first().map_or("", String::as_str);
            let parsed = text.parse().map_err(|_| ValueError::is_not(text, "true or false"));
            return self.overridden(key, winner, parsed).is_some_and(|located| located.value);
        }
        match self.value(name).map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Boolean(boolean))) => *boolean,
            Some((value, _)) => self.mismatch(key, value).unwrap_or_default(),
            None => key.default == Some("true"),
        }
    }

    /// A sub-table. Flags reach its keys also when it is absent.
    pub(super) fn section(&self, name: &'static str) -> Section<'d, 'i> {
        self.subsection(name)
    }

    /// A sub-table of a table that is one of several, by its path from the top: `realm.quota`.
    pub(super) fn subsection(&self, path: &'static str) -> Section<'d, 'i> {
        let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
        let value = self.value(name);
        let table = match value.map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Table(table))) => Some(table),
            Some((value, _)) => {
                self.refuse(name, value, &format!("a table, written as [{path}]"));
                None
            }
            None => None,
        };
        let place = value.map_or_else(|| self.document.whole(), |value| self.document.place(value.span()));
        Section { document: self.document, path, shown: format!("in [{path}]"), place, table }
    }

    /// The tables of an array of tables.
    pub(super) fn sections(&self, name: &'static str) -> Vec<Section<'d, 'i>> {
        let (Some(key), Some(value)) = (self.key(name), self.value(name)) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.mismatch::<()>(key, value);
            return Vec::new();
        };
        let section = |item: &'i Spanned<DeValue<'i>>| {
            let DeValue::Table(table) = item.get_ref() else { return self.mismatch(key, item) };
            let (place, shown) = (self.document.place(item.span()), format!("in [[{}]]", key.name));
            Some(Section { document: self.document, path: key.name, shown, place, table: Some(table) })
        };
        items.iter().filter_map(section).collect()
    }

    /// Whether the key has a value, good or bad, in the file or from a flag or variable.
    pub(super) fn has(&self, name: &'static str) -> bool {
        self.value(name).is_some() || self.key(name).is_some_and(|key| self.winner(key).is_some())
    }

    /// Whether the key's value is `[]`.
    pub(super) fn is_empty_array(&self, name: &'static str) -> bool {
        self.value(name).is_some_and(|value| matches!(value.get_ref(), DeValue::Array(items) if items.is_empty()))
    }

    /// Notes a problem of one of its keys.
    pub(super) fn problem(&self, name: &str, place: Place, message: impl Display) {
        self.document.problem(place, format!("{name} {}: {message}", self.shown));
    }

    /// What a key's value should be.
    pub(super) fn expected(&self, name: &str) -> String {
        self.key(name).map(Key::expected).unwrap_or_default()
    }

    /// Reports that a key which every such table needs is not there.
    pub(super) fn report_missing(&self, name: &str) {
        let message = format!("[[{}]] has no {name}; expected {}", self.path, self.expected(name));
        self.document.problem(self.place(), message);
    }

    /// Reports the keys that there are not.
    pub(super) fn report_unknown_keys(&self) {
        let known = keys::names_in(self.path);
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let meant = match nearest(name, &known) {
                    Some(key) => format!(" (did you mean {key:?}?)"),
                    None => keys::elsewhere(name, self.path)
                        .map_or_else(String::new, |tables| format!(" (there is one in {tables})")),
                };
                let expected = known.join(", ");
                let message = format!("unknown key {name:?} {}{meant}; expected one of {expected}", self.shown);
                self.document.problem(self.document.place(key.span()), message);
            }
        }
    }

    /// What is known of one of its keys.
    fn key(&self, name: &str) -> Option<&'static Key> {
        let key = if self.path.is_empty() { keys::find(name) } else { keys::find(&format!("{}.{name}", self.path)) };
        debug_assert!(key.is_some(), "{name} {} is not in keys::KEYS", self.shown);
        key
    }

    fn value(&self, name: &str) -> Option<&'i Spanned<DeValue<'i>>> {
        self.table?.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
    }

    /// The flag or variable that wins over this key.
    fn winner(&self, key: &Key) -> Option<&'d Override> {
        self.document.overrides.get(key.name)
    }

    fn overridden<T, E: Display>(&self, key: &Key, winner: &Override, parsed: Result<T, E>) -> Option<Located<T>> {
        let place = winner.place.clone();
        match parsed {
            Ok(value) => Some(Located { value, place }),
            Err(problem) => {
                self.document.problem(place, format!("{problem}; expected {}", key.expected()));
                None
            }
        }
    }

    fn accept<T, E: Display>(&self, key: &Key, place: Place, parsed: Result<T, E>) -> Option<Located<T>> {
        match parsed {
            Ok(value) => Some(Located { value, place }),
            Err(problem) => {
                self.problem(key.last_name(), place, format_args!("{problem}; expected {}", key.expected()));
                None
            }
        }
    }

    fn accept_number(&self, key: &Key, value: &Spanned<DeValue<'i>>) -> Option<Located<u64>> {
        let DeValue::Integer(number) = value.get_ref() else { return self.mismatch(key, value) };
        self.accept(key, self.document.place(value.span()), in_range(number.as_str(), number.radix(), key))
    }

    fn mismatch<T>(&self, key: &Key, value: &Spanned<DeValue<'i>>) -> Option<T> {
        self.refuse(key.last_name(), value, &key.expected());
        None
    }

    fn refuse(&self, name: &str, value: &Spanned<DeValue<'i>>, expected: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fractional number",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        // Such as `realm = "..."`, which stands before the first table.
        let is_table_key = self.path.is_empty() && matches!(keys::find(name).map(|key| &key.kind), Some(Kind::Tables));
        let elsewhere = keys::elsewhere(name, self.path).filter(|_| is_table_key);
        let hint = elsewhere.map_or_else(String::new, |tables| format!("; a key of this name is in {tables}"));
        self.problem(name, self.document.place(value.span()), format_args!("found {found}; expected {expected}{hint}"));
    }
}

/// What was read. Of what was refused it does not matter: the whole configuration is.
pub(super) fn or_default<T: Default>(read: Option<Located<T>>) -> T {
    read.map_or_else(T::default, |read| read.value)
}

/// `word` is `None`, everything else is parsed.
fn unless<T>(
    word: &'static str,
    parse: impl Fn(&str) -> Result<T, ValueError>,
) -> impl Fn(&str) -> Result<Option<T>, ValueError> {
    move |text| if text == word { Ok(None) } else { parse(text).map(Some) }
}

fn within<T: PartialOrd + Copy>(
    text: &str,
    parse: fn(&str) -> Result<T, ValueError>,
    range: &RangeInclusive<T>,
    show: fn(T) -> String,
) -> Result<T, ValueError> {
    let value = parse(text)?;
    if range.contains(&value) {
        return Ok(value);
    }
    Err(ValueError::NotWithin(text.to_owned(), show(*range.start()), show(*range.end())))
}

fn in_range(text: &str, radix: u32, key: &Key) -> Result<u64, ValueError> {
    let (Kind::Number(range, _) | Kind::Limit(range, _) | Kind::Numbers(range, _)) = &key.kind else {
        return Err(ValueError::OutOfRange(text.to_owned()));
    };
    match u64::from_str_radix(text, radix) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(ValueError::OutOfRange(text.to_owned())),
    }
}
