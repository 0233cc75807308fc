//! The nodes of `[fleet]` as the running server knows them: asked for the page while somebody looks at it, and for their load where clients
//! are sent away by load, and all of them now and then, so that it is known who is silent. One that hangs holds up nobody.

mod asking;
mod follow;
mod nodes;
mod relies;
mod room;

pub(super) use nodes::{Fleet, Seen};
