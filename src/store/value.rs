//! Values of which no more is read than there may be: a larger answer would end the connection, see `link`.

use redis::{Cmd, Value, cmd, from_redis_value};
use zeroize::Zeroizing;

use super::error::StoreError;

/// Asks for a text; one byte more than there may be tells that there are more.
pub(super) fn start_of(key: &str, bytes_max: usize) -> Cmd {
    cmd("GETRANGE").arg(key).arg(0).arg(bytes_max).to_owned()
}

/// The text; what is not there is empty, too, and none.
///
/// # Errors
/// It is longer, or no text: something else than is `expected`.
pub(super) fn text_of(
    answer: Value,
    bytes_max: usize,
    expected: &'static str,
) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let text: Vec<u8> = from_redis_value(answer).map_err(|_| StoreError::Unexpected(expected))?;
    let text = Zeroizing::new(text);
    match text.len() {
        0 => Ok(None),
        len if len <= bytes_max => Ok(Some(text)),
        _ => Err(StoreError::Unexpected(expected)),
    }
}

/// Asks how large something is with all that is in it.
pub(super) fn size_of(key: &str) -> Cmd {
    cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).to_owned()
}
