//! Object literals as people paste them from code: JSON, and the JavaScript around it that is plain data.

use serde_json::{Map, Number, Value};
use thiserror::Error;

/// The longest text that is read, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 64 * 1024;
/// What is pasted nests four deep.
const DEPTH_MAX: u32 = 16;

/// Why a text is not such a literal, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct ScriptError {
    line: usize,
    column: usize,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum Problem {
    #[error("there is no [ or {{ with servers in it")]
    NoBlock,
    #[error("the text is longer than {TEXT_BYTES_MAX} bytes; give the iceServers block alone")]
    TooLong,
    #[error("the text ends within the block")]
    End,
    #[error("{0:?} does not belong here")]
    Unexpected(char),
    #[error("{0} is a variable of the code: put its value there")]
    Variable(String),
    #[error("{} has no value beside it: write it as name: value", .0.escape_debug())]
    NoValue(String),
    #[error("a value that the code computes: put the result there")]
    Computed,
    #[error("this is not a number")]
    Number,
    #[error("this escape in a text is not known")]
    Escape,
    #[error("the text in quotes has no end on its line")]
    OpenText,
    #[error("the comment has no end")]
    OpenComment,
    #[error("more than {DEPTH_MAX} levels")]
    Depth,
    #[error("something follows the block: give the iceServers block alone")]
    After,
}

/// Reads the one array or object in a text. Before it may stand what leads to it (`const pc = new RTCPeerConnection(`), after it
/// what closes that.
pub(super) fn read(text: &str) -> Result<Value, ScriptError> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let bound = if text.len() > TEXT_BYTES_MAX { Err(Problem::TooLong) } else { Ok(()) };
    bound.and_then(|()| reader.document()).map_err(|problem| reader.error(problem))
}

struct Reader<'t> {
    text: &'t str,
    /// Up to where it is read, in bytes; always the beginning of a character.
    at: usize,
    depth: u32,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Value, Problem> {
        loop {
            self.skip_blanks()?;
            match self.peek() {
                Some('[' | '{') => break,
                Some(c) if is_of_word(c) || "=:(.,<>'\"".contains(c) => self.take(c),
                _ => return Err(Problem::NoBlock),
            }
        }
        let value = self.value()?.ok_or(Problem::NoBlock)?;
        loop {
            self.skip_blanks()?;
            match self.peek() {
                None => return Ok(value),
                Some(c @ (')' | ';' | ',')) => self.take(c),
                Some(_) => return Err(Problem::After),
            }
        }
    }

    /// A value; `None` is `undefined`.
    fn value(&mut self) -> Result<Option<Value>, Problem> {
        self.skip_blanks()?;
        match self.peek().ok_or(Problem::End)? {
            '[' => self.nested(Self::array).map(Some),
            '{' => self.nested(Self::object).map(Some),
            quote @ ('"' | '\'' | '`') => self.quoted(quote).map(|text| Some(Value::String(text))),
            '.' if self.rest().starts_with("...") => Err(Problem::Computed),
            c if c.is_ascii_digit() || "-+.".contains(c) => self.number().map(Some),
            c if is_of_word(c) => {
                let start = self.at;
                match self.word() {
                    "true" => Ok(Some(Value::Bool(true))),
                    "false" => Ok(Some(Value::Bool(false))),
                    "null" => Ok(Some(Value::Null)),
                    "undefined" => Ok(None),
                    name => {
                        let name = name.to_owned();
                        self.at = start;
                        Err(Problem::Variable(name))
                    }
                }
            }
            c => Err(Problem::Unexpected(c)),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, Problem>) -> Result<Value, Problem> {
        if self.depth == DEPTH_MAX {
            return Err(Problem::Depth);
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn array(&mut self) -> Result<Value, Problem> {
        self.take('[');
        let mut items = Vec::new();
        loop {
            self.skip_blanks()?;
            if self.takes(']') {
                return Ok(Value::Array(items));
            }
            items.push(self.value()?.unwrap_or_default());
            self.separator(']')?;
        }
    }

    fn object(&mut self) -> Result<Value, Problem> {
        self.take('{');
        let mut fields = Map::new();
        loop {
            self.skip_blanks()?;
            if self.takes('}') {
                return Ok(Value::Object(fields));
            }
            let start = self.at;
            let name = match self.peek().ok_or(Problem::End)? {
                quote @ ('"' | '\'') => self.quoted(quote)?,
                c if is_of_word(c) => self.word().to_owned(),
                '.' | '[' => return Err(Problem::Computed),
                c => return Err(Problem::Unexpected(c)),
            };
            self.skip_blanks()?;
            if !self.takes(':') {
                return Err(match self.peek() {
                    Some(',' | '}') => {
                        self.at = start;
                        Problem::NoValue(name)
                    }
                    Some(c) => Problem::Unexpected(c),
                    None => Problem::End,
                });
            }
            // As in JavaScript, the last one of a name counts.
            match self.value()? {
                Some(value) => drop(fields.insert(name, value)),
                None => drop(fields.remove(&name)),
            }
            self.separator('}')?;
        }
    }

    /// A comma, or the end, which is left.
    fn separator(&mut self, end: char) -> Result<(), Problem> {
        self.skip_blanks()?;
        match self.peek().ok_or(Problem::End)? {
            ',' => self.take(','),
            c if c == end => {}
            '+' | '?' | '.' | '(' | '|' | '&' | '[' | '`' => return Err(Problem::Computed),
            c => return Err(Problem::Unexpected(c)),
        }
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<String, Problem> {
        let start = self.at;
        self.take(quote);
        let mut text = String::new();
        loop {
            match self.peek() {
                Some(c) if c == quote => {
                    self.take(c);
                    return Ok(text);
                }
                Some('$') if quote == '`' && self.rest().starts_with("${") => return Err(Problem::Computed),
                Some('\\') => {
                    self.take('\\');
                    text.extend(self.escape()?);
                }
                Some(c) if c != '\n' || quote == '`' => {
                    self.take(c);
                    text.push(c);
                }
                _ => {
                    self.at = start;
                    return Err(Problem::OpenText);
                }
            }
        }
    }

    /// What a backslash stands for; nothing before a line's end.
    fn escape(&mut self) -> Result<Option<char>, Problem> {
        let c = self.peek().ok_or(Problem::OpenText)?;
        self.take(c);
        Ok(Some(match c {
            '\n' => return Ok(None),
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'x' => char::from_u32(self.hex(2)?).ok_or(Problem::Escape)?,
            'u' => self.unicode()?,
            '0'..='9' => return Err(Problem::Escape),
            other => other,
        }))
    }

    fn unicode(&mut self) -> Result<char, Problem> {
        if self.takes('{') {
            let digits = self.rest().find('}').filter(|digits| (1..=6).contains(digits)).ok_or(Problem::Escape)?;
            let code = self.hex(digits)?;
            self.take('}');
            return char::from_u32(code).ok_or(Problem::Escape);
        }
        let first = self.hex(4)?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first).ok_or(Problem::Escape);
        }
        if !self.rest().starts_with("\\u") {
            return Err(Problem::Escape);
        }
        self.at += 2;
        let second = self.hex(4)?.checked_sub(0xDC00).filter(|low| *low < 0x400).ok_or(Problem::Escape)?;
        char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + second).ok_or(Problem::Escape)
    }

    fn hex(&mut self, digits: usize) -> Result<u32, Problem> {
        let text = self.rest().get(..digits).ok_or(Problem::Escape)?;
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Problem::Escape);
        }
        let code = u32::from_str_radix(text, 16).map_err(|_| Problem::Escape)?;
        self.at += digits;
        Ok(code)
    }

    fn number(&mut self) -> Result<Value, Problem> {
        let length = self.rest().find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
        let (digits, _) = self.rest().split_at(length.unwrap_or(self.rest().len()));
        let number: Number = serde_json::from_str(digits).map_err(|_| Problem::Number)?;
        self.at += digits.len();
        Ok(Value::Number(number))
    }

    fn word(&mut self) -> &str {
        let start = self.at;
        let length = self.rest().find(|c| !is_of_word(c)).unwrap_or(self.rest().len());
        self.at += length;
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn skip_blanks(&mut self) -> Result<(), Problem> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').len();
            self.at += blank;
            let comment = match self.rest() {
                line if line.starts_with("//") => line.find('\n').unwrap_or(line.len()),
                block if block.starts_with("/*") => block.find("*/").ok_or(Problem::OpenComment)? + 2,
                _ => return Ok(()),
            };
            self.at += comment;
        }
    }

    fn takes(&mut self, c: char) -> bool {
        let is_next = self.peek() == Some(c);
        if is_next {
            self.take(c);
        }
        is_next
    }

    /// Goes past the character that comes next.
    fn take(&mut self, c: char) {
        self.at += c.len_utf8();
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, problem: Problem) -> ScriptError {
        let before = self.text.get(..self.at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        ScriptError { line, column, problem }
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_pasted_from_code_is_read() {
        let expected =
            json!({ "iceServers": [{ "urls": ["stun:a", "turn:b"], "username": "u's", "credential": "p" }] });
        for text in [
            r#"{"iceServers": [{"urls": ["stun:a", "turn:b"], "username": "u's", "credential": "p"}]}"#,
            "const pc = new RTCPeerConnection({\n  iceServers: [ // ours\n    { urls: ['stun:a', `turn:b`], username: 'u\\'s', /* x */ credential: \"p\", },\n  ],\n});\n",
            "config = {'iceServers': [{urls: ['stun:a', 'turn:b'], username: 'u\\x27s', credential: '\\u0070', url: undefined}]}",
            "// let x = 1\nexport const config: RTCConfiguration = {iceServers:[{urls:['stun:a','turn:b'],username:\"u's\",credential:\"\\u{70}\"}]};",
        ] {
            assert_eq!(read(text).as_ref(), Ok(&expected), "{text}");
        }
        assert_eq!(
            read("iceServers: [{urls: 'stun:a', n: 1.5e3, t: true, z: null}],"),
            Ok(json!([{ "urls": "stun:a", "n": 1500.0, "t": true, "z": null }]))
        );
        assert_eq!(read(r#"["\ud83d\ude00", "\/"]"#), Ok(json!(["\u{1f600}", "/"])));
        let printed = crate::credentials::peer_connection(&["turn:a".to_owned()], "9:u", "p/+=");
        assert_eq!(read(&printed).unwrap()["iceServers"][0]["credential"], "p/+=");
    }

    #[test]
    fn what_code_would_compute_and_what_is_no_block_is_refused_with_its_place() {
        let deep = "[".repeat(100);
        let long = format!("[{}]", " ".repeat(TEXT_BYTES_MAX));
        for (text, words) in [
            ("", "line 1, column 1: there is no ["),
            ("turn.example.org", "there is no ["),
            ("[{\n  urls: TURN_URLS }]", "line 2, column 9: TURN_URLS is a variable"),
            ("[{urls, username}]", "column 3: urls has no value"),
            ("[{urls: 'turn:' + host}]", "the code computes"),
            ("[{urls: `turn:${host}`}]", "the code computes"),
            ("[{urls: process.env.URL}]", "process is a variable"),
            ("[...servers]", "the code computes"),
            ("[{...server}]", "the code computes"),
            ("[{urls: 'turn:a}]", "no end on its line"),
            ("[{urls: 'turn:a'}", "ends within"),
            ("[{urls: \"a\\u12\"}]", "escape"),
            ("[{urls: '\\ud800'}]", "escape"),
            ("[/* {}]", "comment has no end"),
            ("[1, 2x]", "not a number"),
            ("[{}] [{}]", "something follows"),
            ("[,]", "',' does not belong"),
            ("{a b}", "'b' does not belong"),
            (&deep, "more than 16 levels"),
            (&long, "longer than"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text:.40}: {error}");
        }
    }
}
