//! Whether there is room for the next message: what routing returns, and the round acts on.

/// What is left after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the round makes room"]
pub(super) enum Room {
    /// Room for another message.
    Left,
    /// Payload for another worker is to be handed over.
    MailFull,
    /// The scratch space is full: what is gathered is to be sent.
    Full,
}
