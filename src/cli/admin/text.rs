//! Figures and tables for people.

use std::fmt::Write;

use super::super::output::printable;
use crate::traffic::Traffic;

/// The longest cell of a table, in characters.
const CELL_CHARS_MAX: usize = 48;

/// A user's name as it is listed: with the realm, if that is not the one of `[auth]`.
pub(super) fn with_realm(user: &str, realm: Option<&str>) -> String {
    realm.map_or_else(|| user.to_owned(), |realm| format!("{user} in {realm}"))
}

/// Bytes, such as `1.2 MB`; the units are powers of 1000, as those of the configuration.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, ["B", "kB", "MB", "GB", "TB", "PB"])
}

/// Bits per second, such as `1.2 Mbit/s`.
pub(super) fn bit_rate(bytes_per_sec: f64) -> String {
    scaled(bytes_per_sec * 8.0, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s"])
}

/// Events per second, such as `12/s`.
pub(super) fn rate(per_sec: f64) -> String {
    if per_sec >= 10.0 || per_sec == 0.0 { format!("{per_sec:.0}/s") } else { format!("{per_sec:.1}/s") }
}

/// `2 packets, 123 B`.
pub(super) fn traffic(traffic: Traffic) -> String {
    format!("{}, {}", count(traffic.packets, "packet"), bytes(traffic.bytes))
}

/// `1 session`, `2 sessions`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn scaled(value: f64, units: [&str; 6]) -> String {
    let (mut value, mut units) = (value, units.into_iter().peekable());
    let mut unit = units.next().unwrap_or_default();
    let mut is_whole = true;
    // What would be shown as 1000 belongs to the next unit.
    while value >= 999.5 && units.peek().is_some() {
        value /= 1000.0;
        unit = units.next().unwrap_or_default();
        is_whole = false;
    }
    match is_whole || value >= 99.95 {
        true => format!("{value:.0} {unit}"),
        false => format!("{value:.1} {unit}"),
    }
}

/// Rows under a head; columns of figures are aligned to the right.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    is_right: Vec<bool>,
}

impl Table {
    /// A table with these columns; a name that begins with `>` is that of figures.
    pub(super) fn new(columns: &[&str]) -> Self {
        let head = columns.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![head], is_right: columns.iter().map(|name| name.starts_with('>')).collect() }
    }

    /// Adds a row. Nothing in it can move the cursor; what is too long is cut, except for the last cell.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let last = self.is_right.len().saturating_sub(1);
        let cells = cells.into_iter().enumerate().map(|(index, cell)| {
            let cell = printable(&cell);
            if index == last { cell } else { cut(&cell, CELL_CHARS_MAX) }
        });
        self.rows.push(cells.collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.is_right.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), is_right) in row.iter().zip(&widths).zip(&self.is_right) {
                match is_right {
                    true => write!(line, "{cell:>width$}  ")?,
                    false => write!(line, "{cell:<width$}  ")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Names and values, a line each; further lines of a value stand below its first.
#[derive(Default)]
pub(super) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    pub(super) fn add(&mut self, name: &'static str, value: impl AsRef<str>) {
        self.0.push((name, printable(value.as_ref())));
    }

    /// Adds a list, a line for each of it.
    pub(super) fn list(&mut self, name: &'static str, values: impl IntoIterator<Item = String>) {
        let mut name = Some(name);
        for value in values {
            self.add(name.take().unwrap_or_default(), value);
        }
        if let Some(name) = name {
            self.add(name, "none");
        }
    }
}

impl std::fmt::Display for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name:<width$}  {value}"))
    }
}

/// At most so many characters.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_unit_that_keeps_them_short() {
        for (figure, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (12_345, "12.3 kB"),
            (123_456, "123 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(bytes(figure), text);
        }
        assert_eq!(bit_rate(125_000.0), "1.0 Mbit/s");
        assert_eq!((rate(0.0), rate(0.5), rate(12.4)), ("0/s".into(), "0.5/s".into(), "12/s".into()));
        assert_eq!((count(1, "session"), count(0, "session")), ("1 session".into(), "0 sessions".into()));
    }

    #[test]
    fn tables_are_aligned_and_nothing_in_them_moves_the_cursor() {
        let mut table = Table::new(&["USER", ">BYTES", "WHY"]);
        table.row(["zo\u{eb}\u{1b}[2J\n".to_owned(), "1".to_owned(), "x".repeat(60)]);
        table.row(["\u{202e}".to_owned() + &"b".repeat(60), "12345".to_owned(), String::new()]);
        let text = table.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("zo\u{eb}\\u{1b}[2J\\n "), "{text}");
        assert!(lines[1].ends_with(&"x".repeat(60)), "{text}");
        assert!(lines[2].starts_with("\\u{202e}bbb") && lines[2].contains("b…  12345"), "{text}");
        assert!(lines[0].contains(" BYTES  WHY"), "{text}");
        let mut fields = Fields::default();
        fields.add("user", "a\tb");
        fields.list("peers", ["1".to_owned(), "2".to_owned()]);
        fields.list("channels", []);
        assert_eq!(fields.to_string(), "user      a\\tb\npeers     1\n          2\nchannels  none\n");
    }
}
