//! The pipes that bytes of TCP relays move through. A way has one only while it holds something.

use crate::net::sys::{Descriptors, Pipe};

/// Pipes kept though nobody needs them.
const IDLE_MAX: usize = 16;
/// Pipes of one worker. Each takes two descriptors; the kernel gives a user 1024 of full size. Who finds none is served by copying.
const PIPES_MAX: usize = 128;

/// A worker's pipes.
pub(super) struct Pipes {
    idle: Vec<Pipe>,
    made: usize,
    descriptors: Descriptors,
}

impl Pipes {
    pub(super) fn new(descriptors: Descriptors) -> Self {
        Self { idle: Vec::new(), made: 0, descriptors }
    }

    /// An empty pipe, if there is one left.
    pub(super) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if self.made >= PIPES_MAX {
            return None;
        }
        let [reading, writing] = Pipe::new().ok()?.into_ends();
        let ends = [self.descriptors.admit(reading).ok()?, self.descriptors.admit(writing).ok()?];
        self.made += 1;
        Some(Pipe::from_ends(ends))
    }

    /// Takes a pipe back. One that is not empty is closed with what it holds.
    pub(super) fn give_back(&mut self, pipe: Option<Pipe>) {
        let Some(pipe) = pipe else { return };
        if pipe.held() == 0 && self.idle.len() < IDLE_MAX {
            self.idle.push(pipe);
        } else {
            self.made -= 1;
        }
    }
}
