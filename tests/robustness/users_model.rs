//! What a file of users means, written a second time and in another way. Shared with the fuzz target.

use turnstone::auth::{StoredKeys, TimeLimited, Users, prepare};
use turnstone::config::read_users;

const REALM: &str = "realm";
const LINE_MAX: usize = 4096;
/// Problems of one file that are told, and the line that says that there are more.
const TOLD: usize = 21;

/// Reads a file by the program and by the model, and compares. Returns how many users it has, and how many lines were refused.
pub(crate) fn check(bytes: &[u8]) -> (usize, usize) {
    let (mut users, mut refused) = (Users::of_realm(REALM), Vec::new());
    let is_whole = read_users(bytes, &mut users, |line, _| refused.push(line)).unwrap();
    assert!(is_whole, "too large");
    let (names, wrong) = model(bytes);
    assert_eq!(refused, wrong, "lines refused");
    assert_eq!(users.len(), names.len());
    for (name, is_stored) in &names {
        assert_eq!(users.is_stored_as_key(name), *is_stored, "{name:?}");
    }
    (names.len(), wrong.len())
}

/// The users, each with whether it is stored as a key, and the numbers of the lines that are refused.
fn model(bytes: &[u8]) -> (Vec<(String, bool)>, Vec<usize>) {
    let (mut users, mut wrong) = (Vec::<(String, bool)>::new(), Vec::new());
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if wrong.len() == TOLD {
            break;
        }
        let is_last = number + 1 == bytes.split(|byte| *byte == b'\n').count();
        if is_last && line.is_empty() {
            break;
        }
        let bare = line.strip_suffix(b"\r").unwrap_or(line);
        if bare.len() > LINE_MAX {
            wrong.push(number + 1);
            // What was read of it has no end; where exactly it was cut, nobody needs to know.
            if line.len() + usize::from(!is_last) > LINE_MAX + 2 || is_last {
                break;
            }
            continue;
        }
        match of_line(bare) {
            Ok(None) => {}
            Ok(Some((name, is_stored))) if users.iter().all(|(known, _)| *known != name) => {
                users.push((name, is_stored))
            }
            _ => wrong.push(number + 1),
        }
    }
    (users, wrong)
}

fn of_line(line: &[u8]) -> Result<Option<(String, bool)>, ()> {
    if line.first() == Some(&b'#') {
        let text = std::str::from_utf8(line).unwrap_or("#");
        let words = text[1..].trim();
        let named = words.strip_prefix("realm:").map(str::trim);
        return if named.is_none_or(|name| prepare(name).as_deref() == Ok(REALM)) { Ok(None) } else { Err(()) };
    }
    if line.is_empty() {
        return Ok(None);
    }
    let mut parts = line.splitn(2, |byte| *byte == b':');
    let name = std::str::from_utf8(parts.next().ok_or(())?).map_err(drop)?;
    let password = std::str::from_utf8(parts.next().ok_or(())?).map_err(drop)?;
    let prepared = prepare(name).map_err(drop)?;
    if TimeLimited::parse(name).is_some() || prepared.len() > 508 {
        return Err(());
    }
    match StoredKeys::is_meant(password) {
        true => {
            let keys: StoredKeys = password.parse().map_err(drop)?;
            assert_eq!(
                keys.to_text().parse(),
                Ok(keys),
                "what is read is written so that it is read again as the same"
            );
            Ok(Some((prepared, true)))
        }
        false => {
            assert!(password.parse::<StoredKeys>().is_err(), "a key is not taken for a password");
            prepare(password).map(|_| Some((prepared, false))).map_err(drop)
        }
    }
}
