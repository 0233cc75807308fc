//! A file of users, read line by line: there may be millions of them.
//!
//! A line is `name:password` or `name:0xKEY`, with the key as coturn's `turnadmin -k` prints it. Lines that begin with `#` say nothing,
//! but for `# realm: NAME`, which says for which realm the keys behind it were made: a key itself does not tell.

use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::Path;

use zeroize::Zeroizing;

use crate::auth::{StoredKeys, TimeLimited, Users, prepare};

use super::secret::{Readers, SecretError, USERS_FILE_MIB_MAX, open_users_file, unreadable};

/// The longest line; a name has at most 508 bytes.
const LINE_BYTES_MAX: usize = 4096;
/// What is read at once.
const BUFFER_BYTES: usize = 8 << 10;
/// Problems that are told one by one. A file of a million lines must not make a million of them.
const PROBLEMS_MAX: usize = 20;

/// Adds the users of a file. `problem` hears what is wrong with a line, by its number.
///
/// # Errors
/// The file cannot be read to its end.
pub(super) fn read_users_file(
    path: &Path,
    readers: Readers,
    users: &mut Users,
    problem: impl FnMut(usize, String),
) -> Result<(), SecretError> {
    let file = open_users_file(path, readers)?;
    match read_users(file, users, problem) {
        Ok(true) => Ok(()),
        Ok(false) => Err(SecretError::TooLarge(path.to_owned(), USERS_FILE_MIB_MAX)),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// The same of what is in a file. Returns whether that is no longer than may be.
///
/// # Errors
/// It cannot be read to its end.
pub fn read_users(file: impl Read, users: &mut Users, mut problem: impl FnMut(usize, String)) -> std::io::Result<bool> {
    let mut lines = Lines::of(file);
    let (mut number, mut total, mut problems) = (0, 0, 0);
    while let Some(line) = lines.next()? {
        number += 1;
        total += line.len() as u64;
        if total > USERS_FILE_MIB_MAX << 20 {
            return Ok(false);
        }
        if let Err(what) = take_line(line, users) {
            problems += 1;
            if problems > PROBLEMS_MAX {
                problem(number, "and so on: the rest of the file is not looked at".to_owned());
                return Ok(true);
            }
            problem(number, what);
            if line.len() > LINE_BYTES_MAX && line.last() != Some(&b'\n') {
                // What follows is no line of its own.
                return Ok(true);
            }
        }
    }
    Ok(true)
}

/// The lines of a file, in a buffer that is zeroed when dropped: passwords are in it.
struct Lines<R> {
    file: R,
    buffer: Zeroizing<Vec<u8>>,
    /// What of the buffer has been read and not been taken.
    filled: Range<usize>,
}

impl<R: Read> Lines<R> {
    fn of(file: R) -> Self {
        Self { file, buffer: Zeroizing::new(vec![0; BUFFER_BYTES]), filled: 0..0 }
    }

    /// The next line with its end, or so much of it that it is too long.
    fn next(&mut self) -> std::io::Result<Option<&[u8]>> {
        const LONGEST: usize = LINE_BYTES_MAX + 2;
        let length = loop {
            let filled = self.buffer.get(self.filled.clone()).unwrap_or_default();
            match filled.iter().take(LONGEST).position(|byte| *byte == b'\n') {
                Some(end) => break end + 1,
                None if filled.len() >= LONGEST => break LONGEST,
                None => {}
            }
            if self.fill()? == 0 {
                break self.filled.len();
            }
        };
        let line = self.filled.start..self.filled.start + length;
        self.filled.start = line.end;
        Ok(self.buffer.get(line).filter(|line| !line.is_empty()))
    }

    /// Reads more. There is always room: what is there is less than a line.
    fn fill(&mut self) -> std::io::Result<usize> {
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        loop {
            match self.file.read(self.buffer.get_mut(self.filled.end..).unwrap_or_default()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => {
                    let read = read?;
                    self.filled.end += read;
                    return Ok(read);
                }
            }
        }
    }
}

/// Adds a user by a password, or by what is written in its place.
pub(super) fn add_user(users: &mut Users, name: &str, password: &[u8]) -> Result<(), String> {
    match std::str::from_utf8(password) {
        Err(_) => Err(format!("the password of {name:?} is not UTF-8")),
        Ok(_) if TimeLimited::parse(name).is_some() => {
            Err(format!("{name:?} looks like the username of a time-limited credential; expected another name"))
        }
        Ok(keys) if StoredKeys::is_meant(keys) => match keys.parse() {
            Ok(keys) => users.insert_keys(name, &keys).map_err(|error| error.to_string()),
            Err(error) => Err(format!("user {name:?}: {error}")),
        },
        Ok(password) => users.insert(name, password).map_err(|error| error.to_string()),
    }
}

fn take_line(line: &[u8], users: &mut Users) -> Result<(), String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("the line is longer than {LINE_BYTES_MAX} bytes"));
    }
    if let Some(comment) = line.strip_prefix(b"#") {
        let realm = users.realm();
        return match std::str::from_utf8(comment).ok().and_then(|text| text.trim().strip_prefix("realm:")) {
            Some(name) if prepare(name.trim()).as_deref() != Ok(realm) => Err(format!(
                "the keys behind this line are for the realm {:?}, and this realm is {realm:?}: they are good only there; make them anew \
                 (turnstone credentials hash), or rename the realm",
                name.trim()
            )),
            _ => Ok(()),
        };
    }
    if line.is_empty() {
        return Ok(());
    }
    let colon = line.iter().position(|byte| *byte == b':');
    let parts = colon.and_then(|colon| Some((line.get(..colon)?, line.get(colon + 1..)?)));
    match parts.map(|(name, password)| (std::str::from_utf8(name), password)) {
        Some((Ok(name), password)) => add_user(users, name, password),
        _ => Err("expected name:password or name:0xKEY".to_owned()),
    }
}
