//! Questions to the workers. One at a time: what clients of the API ask for costs the packet path a bounded share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

use super::error::Refused;
use crate::worker::{Command, Mailbox, Reply};

/// A worker that has not answered within this makes no progress.
const LIMIT: Duration = Duration::from_secs(2);

pub(super) struct Questions {
    mailboxes: Vec<Arc<Mailbox>>,
    turn: Mutex<()>,
}

impl Questions {
    pub(super) fn new(mailboxes: Vec<Arc<Mailbox>>) -> Self {
        Self { mailboxes, turn: Mutex::new(()) }
    }

    pub(super) fn count(&self) -> usize {
        self.mailboxes.len()
    }

    /// The answer of one worker; `None` when there is no such worker.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        number: usize,
        question: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<Option<T>, Refused> {
        let Some(mailbox) = self.mailboxes.get(number) else { return Ok(None) };
        let _turn = timeout(LIMIT, self.turn.lock()).await.map_err(|_| Refused::busy())?;
        let (send, answer) = oneshot::channel();
        // Whoever asked may have gone away; the worker never waits.
        mailbox.send(question(Box::new(move |answer| drop(send.send(answer)))));
        match timeout(LIMIT, answer).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(_)) => Err(Refused::stopping()),
            Err(_) => Err(Refused::worker_stuck(number)),
        }
    }

    /// The answers of all workers, one after the other.
    pub(super) async fn ask_all<T: Send + 'static>(
        &self,
        question: impl Fn(Reply<T>) -> Command,
    ) -> Result<Vec<T>, Refused> {
        let mut answers = Vec::with_capacity(self.mailboxes.len());
        for number in 0..self.mailboxes.len() {
            answers.extend(self.ask(number, &question).await?);
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_does_not_answer_is_given_up_and_holds_up_nobody_for_ever() {
        let workers = Questions::new(vec![Arc::new(Mailbox::new().unwrap())]);
        let told = |answer: Result<Option<Vec<_>>, Refused>| format!("{:?}", answer.unwrap_err());
        let stuck = told(workers.ask(0, Command::Users).await);
        assert!(stuck.contains("worker_stuck") && stuck.contains("worker 0 does not answer"), "{stuck}");
        let turn = workers.turn.lock().await;
        let busy = told(workers.ask(0, Command::Users).await);
        assert!(busy.contains("busy"), "{busy}");
        drop(turn);
        assert!(workers.ask(1, Command::Users).await.unwrap().is_none());
    }
}
