//! Reads a TOML document key by key. Every value is typed where it is asked for; a key nobody asked for is unknown.
//!
//! A hand-driven reader over the spanned tree, rather than a derived one, so that every problem of a file is found at
//! once, each with its line and column, and so that flags and variables pass through the same checks.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Located, Place, Problem};
use super::overrides::{Override, Overrides};
use super::secret::Readers;
use super::words::nearest;

/// A document being read, with the problems found so far.
pub(super) struct Document<'d> {
    name: &'d str,
    text: &'d str,
    overrides: &'d Overrides,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    secret_readers: Cell<Readers>,
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

/// One table of the document; the keys asked for are the keys it may have.
pub(super) struct Section<'d, 'i> {
    document: &'d Document<'d>,
    /// `""`, `"relay"`, `"auth.secrets"`.
    path: &'static str,
    /// As shown: `at the top level`, `in [relay]`, `in [[auth.secrets]]`.
    shown: String,
    place: Place,
    table: Option<&'i DeTable<'i>>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'d, 'i> Section<'d, 'i> {
    pub(super) fn root(document: &'d Document<'d>, table: &'i DeTable<'i>) -> Self {
        let place = document.whole();
        let asked = RefCell::default();
        Self { document, path: "", shown: "at the top level".to_owned(), place, table: Some(table), asked }
    }

    /// Where the section begins, for what it lacks.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    /// The section's name as shown, e.g. `in [relay]`.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// A value written as text. `parse` says what is wrong, `expected` what would be right.
    pub(super) fn text<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Located<T>> {
        if let Some(winner) = self.winner(key) {
            return self.parse_override(winner, expected, &parse).into_iter().next();
        }
        let value = self.value(key)?;
        self.parse_text(key, value, expected, &parse)
    }

    /// One text or an array of texts.
    pub(super) fn texts<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<Located<T>>> {
        if let Some(winner) = self.winner(key) {
            return Some(self.parse_override(winner, expected, &parse));
        }
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            return Some(self.parse_text(key, value, expected, &parse).into_iter().collect());
        };
        Some(items.iter().filter_map(|item| self.parse_text(key, item, expected, &parse)).collect())
    }

    /// A whole number.
    pub(super) fn number(&self, key: &'static str, expected: &str, range: RangeInclusive<u64>) -> Option<Located<u64>> {
        if let Some(winner) = self.winner(key) {
            let parse = |text: &str| in_range(text, 10, &range);
            return self.parse_override(winner, expected, &parse).into_iter().next();
        }
        let value = self.value(key)?;
        self.parse_number(key, value, expected, &range)
    }

    /// A whole number or `"unlimited"`, which is `None`.
    pub(super) fn limit(
        &self,
        key: &'static str,
        expected: &str,
        range: RangeInclusive<u64>,
    ) -> Option<Located<Option<u64>>> {
        let value = self.value(key)?;
        if let DeValue::String(text) = value.get_ref()
            && text == "unlimited"
        {
            return Some(Located { value: None, place: self.document.place(value.span()) });
        }
        let number = self.parse_number(key, value, expected, &range)?;
        Some(Located { value: Some(number.value), place: number.place })
    }

    /// An array of whole numbers.
    pub(super) fn numbers(
        &self,
        key: &'static str,
        expected: &str,
        range: RangeInclusive<u64>,
    ) -> Option<Vec<Located<u64>>> {
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            self.mismatch(key, value, expected);
            return None;
        };
        Some(items.iter().filter_map(|item| self.parse_number(key, item, expected, &range)).collect())
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str) -> Option<Located<bool>> {
        let value = self.value(key)?;
        if let DeValue::Boolean(boolean) = value.get_ref() {
            return Some(Located { value: *boolean, place: self.document.place(value.span()) });
        }
        self.mismatch(key, value, "true or false");
        None
    }

    /// A sub-table. When it is absent its keys still count as asked for, and flags still reach them.
    pub(super) fn section(&self, key: &'static str) -> Section<'d, 'i> {
        let value = self.value(key);
        let table = match value.map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Table(table))) => Some(table),
            Some((value, _)) => {
                self.mismatch(key, value, &format!("a table, written as [{key}]"));
                None
            }
            None => None,
        };
        let place = value.map_or_else(|| self.document.whole(), |value| self.document.place(value.span()));
        let shown = format!("in [{key}]");
        Section { document: self.document, path: key, shown, place, table, asked: RefCell::default() }
    }

    /// The tables of an array of tables; `path` is its full name.
    pub(super) fn sections(&self, key: &'static str, path: &'static str) -> Vec<Section<'d, 'i>> {
        let expected = format!("tables, each written as [[{path}]]");
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.mismatch(key, value, &expected);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items.iter() {
            let DeValue::Table(table) = item.get_ref() else {
                self.mismatch(key, item, &expected);
                continue;
            };
            let place = self.document.place(item.span());
            let shown = format!("in [[{path}]]");
            let asked = RefCell::default();
            sections.push(Section { document: self.document, path, shown, place, table: Some(table), asked });
        }
        sections
    }

    /// Whether the key has a value, good or bad, in the file or from a flag or variable.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some() || self.winner(key).is_some()
    }

    /// Whether the key's value is `[]`.
    pub(super) fn is_empty_array(&self, key: &'static str) -> bool {
        self.value(key).is_some_and(|value| matches!(value.get_ref(), DeValue::Array(items) if items.is_empty()))
    }

    /// Reports the keys that nobody asked for. To be called last.
    pub(super) fn report_unknown_keys(&self) {
        let mut asked = self.asked.borrow().clone();
        asked.sort_unstable();
        asked.dedup();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !asked.contains(&name) {
                let meant = nearest(name, &asked).map_or(String::new(), |key| format!(" (did you mean {key:?}?)"));
                let expected = asked.join(", ");
                let message = format!("unknown key {name:?} {}{meant}; expected one of {expected}", self.shown);
                self.document.problem(self.document.place(key.span()), message);
            }
        }
    }

    fn value(&self, key: &'static str) -> Option<&'i Spanned<DeValue<'i>>> {
        self.asked.borrow_mut().push(key);
        self.table?.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// The flag or variable that wins over this key. Entries of an array of tables have none.
    fn winner(&self, key: &'static str) -> Option<&'d Override> {
        if self.shown.starts_with("in [[") {
            return None;
        }
        let full = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        let winner = self.document.overrides.get(&full)?;
        self.asked.borrow_mut().push(key);
        Some(winner)
    }

    fn parse_override<T>(
        &self,
        winner: &Override,
        expected: &str,
        parse: &dyn Fn(&str) -> Result<T, String>,
    ) -> Vec<Located<T>> {
        let mut parsed = Vec::new();
        for text in &winner.values {
            match parse(text) {
                Ok(value) => parsed.push(Located { value, place: winner.place.clone() }),
                Err(problem) => {
                    self.document.problem(winner.place.clone(), format!("{problem}; expected {expected}"));
                }
            }
        }
        parsed
    }

    fn parse_text<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'i>>,
        expected: &str,
        parse: &dyn Fn(&str) -> Result<T, String>,
    ) -> Option<Located<T>> {
        let DeValue::String(text) = value.get_ref() else {
            self.mismatch(key, value, expected);
            return None;
        };
        let place = self.document.place(value.span());
        match parse(text) {
            Ok(value) => Some(Located { value, place }),
            Err(problem) => {
                self.refuse(key, place, problem, expected);
                None
            }
        }
    }

    fn parse_number(
        &self,
        key: &str,
        value: &Spanned<DeValue<'i>>,
        expected: &str,
        range: &RangeInclusive<u64>,
    ) -> Option<Located<u64>> {
        let DeValue::Integer(number) = value.get_ref() else {
            self.mismatch(key, value, expected);
            return None;
        };
        let place = self.document.place(value.span());
        match in_range(number.as_str(), number.radix(), range) {
            Ok(value) => Some(Located { value, place }),
            Err(problem) => {
                self.refuse(key, place, problem, expected);
                None
            }
        }
    }

    fn refuse(&self, key: &str, place: Place, problem: impl Display, expected: &str) {
        let message = format!("{key} {}: {problem}; expected {expected}", self.shown);
        self.document.problem(place, message);
    }

    fn mismatch(&self, key: &str, value: &Spanned<DeValue<'i>>, expected: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fractional number",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.refuse(key, self.document.place(value.span()), format!("found {found}"), expected);
    }
}

fn in_range(text: &str, radix: u32, range: &RangeInclusive<u64>) -> Result<u64, String> {
    match u64::from_str_radix(text, radix) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("{text} is out of range")),
    }
}
