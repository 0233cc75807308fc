//! The same question to all nodes at once, each by itself: one that hangs costs the others nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::exchange::{Asker, Credentials};
use super::members::{Known, Members, members};
use crate::config::{FleetConfig, NodeUrl};

/// What one node has answered.
pub(crate) struct Answered<T> {
    /// Where it was asked; `None` of a name that leads to no node.
    pub(crate) node: Option<NodeUrl>,
    /// The same in words, or the name.
    pub(crate) url: String,
    pub(crate) answer: Result<T, String>,
}

/// Asks every node, and has all answers within the limit, in the order of the nodes; after them come the names that lead to none.
pub(crate) async fn ask_all<T, F>(
    fleet: &FleetConfig,
    limit: Duration,
    question: impl Fn(Arc<Asker>) -> F,
) -> Vec<Answered<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let credentials = Credentials::of(fleet).await;
    let Members { urls, unnamed } = members(fleet, &mut Known::default()).await;
    let late = || format!("no answer within {} s", limit.as_secs_f32());
    let mut answers: Vec<Answered<T>> = urls
        .iter()
        .map(|url| Answered { node: Some(url.clone()), url: url.to_string(), answer: Err(late()) })
        .collect();
    let mut asked = JoinSet::new();
    for (at, url) in urls.into_iter().enumerate() {
        // All at once: each is a connection, and they are few enough for what a shell lets a process have.
        let answer = question(Arc::new(Asker::new(url, &credentials)));
        asked.spawn(async move { (at, answer.await) });
    }
    let all = async {
        while let Some(done) = asked.join_next().await {
            if let Ok((at, answer)) = done
                && let Some(place) = answers.get_mut(at)
            {
                place.answer = answer;
            }
        }
    };
    let _ = timeout(limit, all).await;
    answers.extend(unnamed.into_iter().map(|(name, problem)| Answered { node: None, url: name, answer: Err(problem) }));
    answers
}

/// What nodes are called where they stand side by side, by their names and URLs: with the URL where a name is there twice.
pub(crate) fn told_apart<'n>(nodes: impl Iterator<Item = (&'n str, &'n str)> + Clone) -> Vec<String> {
    let mut times = HashMap::<_, u32>::new();
    nodes.clone().for_each(|(name, _)| *times.entry(name).or_default() += 1);
    let shown = nodes.map(|(name, url)| match times.get(name) {
        Some(2..) => format!("{name} ({url})"),
        _ => name.to_owned(),
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_one_name_are_told_apart_by_their_urls() {
        let nodes = [("turn1", "https://a"), ("turn2", "https://b"), ("turn1", "https://c")];
        assert_eq!(told_apart(nodes.into_iter()), ["turn1 (https://a)", "turn2", "turn1 (https://c)"]);
    }
}
