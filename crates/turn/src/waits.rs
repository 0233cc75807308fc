//! The server's side of requests that wait: who is asked, what an answer means, and how they go on.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::auth::{AskPolicy, Authenticated, Credentials};
use crate::clock::Now;
use crate::policy::{NotReserved, Reservation};
use crate::reject::{Reason, Reject};
use turnstone_stun::{Message, Method};

use super::ask::{Answer, Ask, AskId, Late, Question, WaitCounts, Waiting};
use super::facts::Fact;
use super::output::{Client, Outcome};
use super::pending::{Fate, Full, ShareWait};
use super::relays::Relays;
use super::request::Request;
use super::server::Server;

/// How long an Allocate waits for its user's share. Clients send it again after 500 ms.
const SHARE_WAIT_MILLIS: u32 = 200;

impl Server {
    /// The next question to ask, after [`Outcome::Waits`]; `None` when there is none (any more). There never is any unless the settings'
    /// credentials are [`asking`](crate::auth::CredentialsBuilder::asking), or its quotas hold over several servers
    /// ([`QuotaLimits::fleet_per_user`](crate::policy::QuotaLimits::fleet_per_user)).
    ///
    /// What a server that asks has to do besides, all of it between two messages:
    ///
    /// ```
    /// use turnstone_turn::clock::Now;
    /// use turnstone_turn::{Answer, Ask, AskId, Client, Outcome, Relays, Server};
    ///
    /// fn between_messages(
    ///     server: &mut Server,
    ///     now: Now,
    ///     relays: &mut impl Relays,
    ///     mut ask: impl FnMut(Ask),
    ///     answers: impl IntoIterator<Item = (AskId, Answer)>,
    ///     mut send: impl FnMut(Client, &[u8]),
    /// ) {
    ///     for (id, answer) in answers {
    ///         server.answer(now, id, answer);
    ///     }
    ///     if server.next_timeout().is_some_and(|due| due <= now.micros) {
    ///         server.handle_timeout(now, relays);
    ///     }
    ///     let mut reply = Vec::new();
    ///     while let Some(late) = server.poll_late(now, relays, &mut reply) {
    ///         if late.outcome == Outcome::Reply {
    ///             send(late.client, &reply);
    ///         }
    ///         reply.clear();
    ///     }
    ///     // Last: who has had an answer may have to wait for another one, as for a share of a quota after the credential.
    ///     while let Some(question) = server.poll_ask() {
    ///         ask(question);
    ///     }
    /// }
    /// ```
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.pending.as_mut()?.ask()
    }

    /// Whether [`Self::poll_ask`] has something.
    pub fn has_ask(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.has_ask())
    }

    /// Takes the answer to a question. Afterwards, [`Self::poll_late`] has the requests that waited for it.
    ///
    /// An answer that comes when nobody waits for it any more is kept for the next who comes. `false` when the question has been
    /// answered before, was never asked, or was so long ago that it is forgotten: the answer is ignored then.
    pub fn answer(&mut self, now: Now, id: AskId, answer: Answer) -> bool {
        let Some(pending) = &mut self.pending else { return false };
        let Some((question, waiting)) = pending.take_question(id) else { return false };
        let Question::Credential { username, realm } = &question else {
            let fate = if matches!(answer, Answer::ShareSet) { Fate::ShareSet } else { Fate::Failed };
            pending.settle(waiting, &fate);
            return true;
        };
        let settings = &self.settings;
        let realms = std::iter::once(&settings.realm).chain(settings.realms());
        let credentials = realms.map(|realm| &realm.credentials).find(|credentials| **realm == *credentials.realm());
        let policy = credentials.and_then(|credentials| Some((&**credentials, credentials.asks()?)));
        let fate = match (answer, policy) {
            (Answer::Known(credential), Some(policy)) => {
                let fact = pending.facts.learn(now, policy, username, credential);
                Fate::Told(question, fact)
            }
            (Answer::Unknown, Some(policy)) => {
                let fact = pending.facts.learn_unknown(now, policy, username);
                Fate::Told(question, fact)
            }
            // Nobody is asked any more since a reload, or not in this realm: those who wait are refused, and nothing is learnt.
            (_, None) => Fate::Told(question, Fact::Unknown),
            (Answer::Failed | Answer::ShareSet, Some(_)) => Fate::Failed,
        };
        pending.settle(waiting, &fate);
        true
    }

    /// The next request that has waited and waits no more, and its outcome; the answer, if there is one, is appended to `reply`. To be
    /// called until `None` after [`Self::answer`] and after [`Self::handle_timeout`]; where many waited, other work may come in between.
    ///
    /// A request is handled as if it came now, on the path its last copy came on. Its client may have allocated meanwhile, or been
    /// refused: it is answered accordingly. One that has to wait for another answer is no outcome: [`Self::poll_ask`] has its question
    /// afterwards.
    pub fn poll_late<R: Relays>(&mut self, now: Now, relays: &mut R, reply: &mut Vec<u8>) -> Option<Late> {
        loop {
            let (parked, fate) = self.pending.as_mut()?.pop_ready()?;
            self.refused_with = None;
            let Ok(message) = Message::parse(&parked.request) else { continue };
            let is_late = matches!(fate, Fate::Failed | Fate::TimedOut);
            if is_late && !parked.for_share {
                let reason = Reason::CredentialUnavailable;
                let outcome = self.refuse_stranger(now, &parked.client, &message, reason, reply);
                return Some(Late { client: parked.client, request: parked.request, outcome });
            }
            let at_hand = if let Fate::Told(question, fact) = fate { Some((question, fact)) } else { None };
            let share = parked.for_share.then_some(ShareWait { until_micros: parked.deadline_micros, is_late });
            self.put_at_hand(at_hand, share);
            // Had another server its allocation, it would not have waited here.
            self.moves.passed_on = Some(None);
            let outcome = self.turn_request(now, &parked.client, &message, relays, reply);
            self.moves.passed_on = None;
            self.put_at_hand(None, None);
            if outcome != Outcome::Waits {
                return Some(Late { client: parked.client, request: parked.request, outcome });
            }
        }
    }

    /// Whether [`Self::poll_late`] has something.
    pub fn has_late(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.has_ready())
    }

    /// What has become of requests that waited, since the start.
    pub fn wait_counts(&self) -> WaitCounts {
        self.pending.as_ref().map(|pending| pending.counts).unwrap_or_default()
    }

    /// What waits, and what is kept of answers.
    pub fn waiting(&self) -> Waiting {
        let Some(pending) = &self.pending else { return Waiting::default() };
        let (requests, bytes, questions) = pending.len();
        let (known, unknown) = pending.facts.len();
        Waiting { requests, bytes, questions, known, unknown }
    }

    /// Whether a request is a copy of one that waits.
    #[inline]
    pub(super) fn waits_already(&mut self, client: &Client, message: &Message<'_>) -> bool {
        self.pending.as_mut().is_some_and(|pending| pending.is_copy(client, message))
    }

    /// Goes on with a request that did not authenticate: refuses it, or has it wait for the credential that it is lacking, or goes on
    /// with that if it is known by now. The nonce was found fresh before a user is found to be unknown: nobody waits by a forged
    /// address.
    #[cold]
    pub(super) fn without_credential(
        &mut self,
        now: Now,
        client: &Client,
        message: &Message<'_>,
        reason: Reason,
        reply: &mut Vec<u8>,
    ) -> ControlFlow<Outcome, Authenticated> {
        let mut reason = reason;
        if matches!(reason, Reason::CredentialExpired | Reason::UnknownUser)
            && let Some(auth) = self.authenticate_by_connection(now, client, message)
        {
            return ControlFlow::Continue(auth);
        }
        let credentials = &self.settings.realm_of(client.realm).credentials;
        if reason == Reason::UnknownUser && credentials.asks().is_some() {
            let credentials = Arc::clone(credentials);
            match self.ask_for(now, client, message, &credentials) {
                Ok(auth) => return ControlFlow::Continue(auth),
                Err(None) => return ControlFlow::Break(Outcome::Waits),
                Err(Some(now_known)) => reason = now_known,
            }
        }
        ControlFlow::Break(self.refuse_stranger(now, client, message, reason, reply))
    }

    /// Authenticates by what was answered. `None` as reason has it wait.
    fn ask_for(
        &mut self,
        now: Now,
        client: &Client,
        message: &Message<'_>,
        credentials: &Credentials,
    ) -> Result<Authenticated, Option<Reason>> {
        let (Some(policy), Some(username)) = (credentials.asks(), credentials.unknown_name(message)) else {
            credentials.verify_nobody(message);
            return Err(Some(Reason::UnknownUser));
        };
        let pending = self.pending.get_or_insert_default();
        let is_it = |(asked, _): &&(Question, Fact)| {
            let Question::Credential { username: of, realm } = asked else { return false };
            **of == *username && **realm == *credentials.realm()
        };
        let at_hand = pending.at_hand.as_ref().filter(is_it).map(|(_, fact)| fact.clone());
        let user = match at_hand.or_else(|| pending.facts.of(now, credentials, username)) {
            Some(Fact::Known(user)) => Some(user),
            Some(Fact::Unknown) => None,
            // The answer would come to this server, whose paths are not those of the client. Its own credential an allocation has.
            // And what follows a ConnectionBind on its connection is no message.
            None if self.moves.is_of_another_server() || message.method() == Method::CONNECTION_BIND => {
                credentials.verify_nobody(message);
                return Err(Some(Reason::UnknownUser));
            }
            None => {
                let question = Question::Credential { username: username.into(), realm: credentials.realm().into() };
                return Err(match pending.park(now.micros, policy, client, message, question) {
                    Ok(()) => None,
                    Err(Full) => Some(Reason::TooManyWaiting),
                });
            }
        };
        credentials.authenticate_asked(now, &client.five_tuple, message, user.as_deref()).map_err(Some)
    }

    /// Counts an allocation of who has authenticated, or has the request wait until it is known how much of a limit over several servers
    /// is for this one: `None` then.
    pub(super) fn reserve(&mut self, request: &Request<'_>) -> Result<Option<Reservation>, Reject> {
        let (now, identity) = (request.now, &request.auth.identity);
        let limits = identity.quota(request.settings.quota_in(request.realm));
        let waited = self.pending.as_ref().and_then(|pending| pending.share);
        // Of what has come to another server, the answer would come to this one, whose paths are not those of the client.
        let is_late = waited.is_some_and(|waited| waited.is_late) || self.moves.is_of_another_server();
        let limit = match self.shared.quotas.try_reserve(limits, &identity.user, now.micros, is_late) {
            Ok(reservation) => return Ok(Some(reservation)),
            Err(NotReserved::Refused(reason)) => return Err(reason.into()),
            Err(NotReserved::NeedsShare(limit)) => limit,
        };
        let deadline_millis = match waited {
            Some(waited) => u32::try_from(waited.until_micros.saturating_sub(now.micros) / 1000).unwrap_or_default(),
            None => SHARE_WAIT_MILLIS,
        };
        let policy = AskPolicy { deadline_millis, ..AskPolicy::default() };
        let question = Question::Share { user: identity.user.clone(), limit };
        let pending = self.pending.get_or_insert_default();
        match pending.park(now.micros, &policy, request.client, request.message, question) {
            Ok(()) => Ok(None),
            Err(Full) => Err(Reason::TooManyWaiting.into()),
        }
    }

    fn put_at_hand(&mut self, at_hand: Option<(Question, Fact)>, share: Option<ShareWait>) {
        if let Some(pending) = &mut self.pending {
            (pending.at_hand, pending.share) = (at_hand, share);
        }
    }
}
