//! The body of a request, of bounded length.

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};

/// How much of a body that is too long is read, so that its client reads the answer.
const DISCARDED_BYTES_MAX: usize = 1 << 20;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadBody {
    /// It has more bytes than are taken.
    TooLong,
    /// The connection ended in it.
    CutOff,
}

/// Reads a body of at most `bytes_max`.
pub(crate) async fn read_body<B>(mut body: B, bytes_max: usize) -> Result<Vec<u8>, BadBody>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut bytes = Vec::new();
    let mut discarded: usize = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(BadBody::CutOff) };
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() <= bytes_max && discarded == 0 {
            bytes.extend_from_slice(&data);
            continue;
        }
        // A client that is still sending would not see the answer.
        discarded = discarded.saturating_add(data.len());
        if discarded > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if discarded > 0 { Err(BadBody::TooLong) } else { Ok(bytes) }
}
