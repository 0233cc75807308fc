//! A TURN client without sockets or clock: requests out, answers in (RFC 8489 section 9.2, RFC 8656 sections 6 to 12).
//!
//! One request is under way at a time. The caller sends the bytes, repeats them when it wants to, and brings what arrives.

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};
use zeroize::Zeroizing;

use turnstone_stun::{
    AttributeType, Class, Encoder, ErrorCode, IntegrityKind, Key, Message, Method, ParseError, PasswordAlgorithm,
    TransactionId,
};

use super::request::{Answer, Request, read_answer, write_attributes};

/// The start of a nonce that announces security features (RFC 8489 section 9.2).
const NONCE_COOKIE: &[u8] = b"obMatJos2";

/// A long-term credential, and which algorithms to use with it.
#[derive(Clone)]
pub struct Credential {
    /// The username as it goes on the wire.
    pub username: String,
    /// The password, prepared (RFC 8265 OpaqueString).
    pub password: Zeroizing<String>,
    /// Use SHA-256 throughout when the server offers it (RFC 8489); else SHA-1 and MD5, as WebRTC clients do.
    pub sha256: bool,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a received message meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Not an answer to the request under way: late, repeated, or an indication.
    Ignored,
    /// The server challenged (401) or wants a fresh nonce (438): the request was written again and is to be sent.
    Retry,
    /// The request succeeded.
    Done(Answer),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// An error response.
    Refused {
        /// The request's method.
        method: Method,
        /// The server's code.
        code: ErrorCode,
        /// The server's reason phrase, escaped and cut for printing.
        reason: String,
    },
    /// Bytes that are not a STUN message.
    Malformed(ParseError),
    /// A response that lacks an attribute or has an unusable one.
    Incomplete {
        /// The request's method.
        method: Method,
        /// The attribute.
        attribute: AttributeType,
    },
    /// MESSAGE-INTEGRITY of a response to an authenticated request is missing or wrong (RFC 8489 section 9.2.5).
    BadIntegrity {
        /// The request's method.
        method: Method,
    },
    /// The server asks for credentials and there are none.
    NoCredential,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { method, code, reason } => {
                write!(f, "{} refused: {} {reason}", method.name(), code.value())
            }
            Self::Malformed(e) => write!(f, "malformed response: {e}"),
            Self::Incomplete { method, attribute } => {
                write!(f, "{} response without a usable {}", method.name(), attribute.name())
            }
            Self::BadIntegrity { method } => {
                write!(f, "{} response with a missing or wrong MESSAGE-INTEGRITY", method.name())
            }
            Self::NoCredential => f.write_str("the server asks for credentials and none were given"),
        }
    }
}

impl std::error::Error for ClientError {}

/// One client: its credential, what the server's challenge said, and the request under way.
pub struct Client {
    credential: Option<Arc<Credential>>,
    challenge: Option<Challenge>,
    ids: TransactionIds,
    pending: Option<Pending>,
}

#[derive(Clone)]
struct Challenge {
    realm: Vec<u8>,
    nonce: Vec<u8>,
    /// PASSWORD-ALGORITHMS as received, to be returned, and the one chosen.
    algorithms: Option<(Vec<u8>, PasswordAlgorithm)>,
    integrity: IntegrityKind,
    key: Key,
}

struct Pending {
    request: Request,
    transaction_id: TransactionId,
    authenticated: bool,
    challenges: u8,
}

impl Client {
    /// A client that has not been challenged yet. `seed` is random: transaction ids are derived from it.
    pub fn new(credential: Option<Arc<Credential>>, seed: [u8; 16]) -> Self {
        Self { credential, challenge: None, ids: TransactionIds { seed, counter: 0 }, pending: None }
    }

    /// Answers the challenge that another client of the same user has got, before it gets one of its own.
    pub fn share_challenge(&mut self, other: &Self) {
        self.challenge.clone_from(&other.challenge);
    }

    /// Starts a request and writes it at the end of `out`.
    pub fn start(&mut self, request: Request, out: &mut Vec<u8>) {
        self.send(request, 0, out);
    }

    /// Takes a received STUN message. After [`Event::Retry`], `out` holds the request to send.
    ///
    /// # Errors
    /// [`ClientError`] when the request has failed; it is then no longer under way. A forged or malformed message
    /// leaves it under way.
    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Event, ClientError> {
        let message = Message::parse(bytes).map_err(ClientError::Malformed)?;
        let Some(pending) = &self.pending else { return Ok(Event::Ignored) };
        let (request, challenges) = (pending.request, pending.challenges);
        let is_answer = message.transaction_id() == pending.transaction_id
            && message.method() == request.method()
            && matches!(message.class(), Class::Success | Class::Error);
        if !is_answer {
            return Ok(Event::Ignored);
        }
        if message.class() == Class::Error {
            let (code, reason) = error_code(&message, request.method())?;
            let challenged = match code {
                ErrorCode::UNAUTHENTICATED => !pending.authenticated,
                ErrorCode::STALE_NONCE => challenges < 3,
                _ => false,
            };
            self.pending = None;
            if !challenged {
                return Err(ClientError::Refused { method: request.method(), code, reason });
            }
            self.challenge = Some(self.read_challenge(&message, request.method())?);
            self.send(request, challenges + 1, out);
            return Ok(Event::Retry);
        }
        if pending.authenticated && self.verify(&message) != Some(true) {
            return Err(ClientError::BadIntegrity { method: request.method() });
        }
        let answer = read_answer(&message, request)
            .map_err(|attribute| ClientError::Incomplete { method: request.method(), attribute })?;
        self.pending = None;
        Ok(Event::Done(answer))
    }

    /// Whether the server's signature on a response is right; `None` before the server has challenged, when there is no key.
    pub fn verify(&self, message: &Message<'_>) -> Option<bool> {
        self.challenge.as_ref().map(|challenge| message.verify_integrity(&challenge.key))
    }

    fn send(&mut self, request: Request, challenges: u8, out: &mut Vec<u8>) {
        let transaction_id = self.ids.next();
        let mut message = Encoder::new(out, Class::Request, request.method(), transaction_id);
        write_attributes(&mut message, request);
        let mut authenticated = false;
        if let (Some(challenge), Some(credential)) = (&self.challenge, &self.credential)
            && request != Request::Binding
        {
            message.attribute(AttributeType::USERNAME, credential.username.as_bytes());
            message.attribute(AttributeType::REALM, &challenge.realm);
            message.attribute(AttributeType::NONCE, &challenge.nonce);
            if let Some((offered, chosen)) = &challenge.algorithms {
                let [high, low] = chosen.to_wire().to_be_bytes();
                message.attribute(AttributeType::PASSWORD_ALGORITHMS, offered);
                message.attribute(AttributeType::PASSWORD_ALGORITHM, &[high, low, 0, 0]);
            }
            message.integrity(challenge.integrity, &challenge.key);
            authenticated = true;
        }
        self.pending = Some(Pending { request, transaction_id, authenticated, challenges });
    }

    fn read_challenge(&self, message: &Message<'_>, method: Method) -> Result<Challenge, ClientError> {
        let credential = self.credential.as_ref().ok_or(ClientError::NoCredential)?;
        let get = |kind| message.get(kind).ok_or(ClientError::Incomplete { method, attribute: kind });
        let nonce = get(AttributeType::NONCE)?.to_vec();
        let realm = match (message.get(AttributeType::REALM), &self.challenge) {
            (Some(realm), _) => realm.to_vec(),
            (None, Some(challenge)) => challenge.realm.clone(),
            (None, None) => get(AttributeType::REALM)?.to_vec(),
        };
        let offered = message.get(AttributeType::PASSWORD_ALGORITHMS).filter(|_| nonce.starts_with(NONCE_COOKIE));
        let algorithms = offered
            .filter(|_| credential.sha256)
            .and_then(|offered| strongest(offered).map(|chosen| (offered.to_vec(), chosen)));
        let algorithm = algorithms.as_ref().map_or(PasswordAlgorithm::Md5, |(_, chosen)| *chosen);
        let integrity = if algorithms.is_some() { IntegrityKind::Sha256 } else { IntegrityKind::Sha1 };
        let key = Key::long_term(algorithm, credential.username.as_bytes(), &realm, credential.password.as_bytes());
        Ok(Challenge { realm, nonce, algorithms, integrity, key })
    }
}

/// Transaction ids that nobody can guess without the seed (RFC 8489 section 5).
struct TransactionIds {
    seed: [u8; 16],
    counter: u64,
}

impl TransactionIds {
    fn next(&mut self) -> TransactionId {
        self.counter = self.counter.wrapping_add(1);
        let mut hasher = SipHasher13::new_with_key(&self.seed);
        hasher.write_u64(self.counter);
        let mut id = [0; 12];
        for (to, from) in id.iter_mut().zip(hasher.finish128().as_bytes()) {
            *to = from;
        }
        TransactionId(id)
    }
}

fn error_code(message: &Message<'_>, method: Method) -> Result<(ErrorCode, String), ClientError> {
    let attribute = AttributeType::ERROR_CODE;
    let value = message.get(attribute).and_then(ErrorCode::decode);
    let (code, phrase) = value.ok_or(ClientError::Incomplete { method, attribute })?;
    let phrase = phrase.get(..phrase.len().min(128)).unwrap_or_default();
    Ok((code, String::from_utf8_lossy(phrase).escape_debug().collect()))
}

/// The strongest algorithm of a PASSWORD-ALGORITHMS value that is known here.
fn strongest(mut offered: &[u8]) -> Option<PasswordAlgorithm> {
    let mut best = None;
    while let Some((&[a0, a1, l0, l1], rest)) = offered.split_first_chunk::<4>() {
        match PasswordAlgorithm::from_wire(u16::from_be_bytes([a0, a1])) {
            Some(PasswordAlgorithm::Sha256) => best = Some(PasswordAlgorithm::Sha256),
            Some(PasswordAlgorithm::Md5) if best.is_none() => best = Some(PasswordAlgorithm::Md5),
            _ => {}
        }
        let parameters = usize::from(u16::from_be_bytes([l0, l1])).next_multiple_of(4);
        offered = rest.get(parameters..).unwrap_or_default();
    }
    best
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const SEED: [u8; 16] = [7; 16];
    const ALLOCATE: Request = Request::Allocate { family: None, lifetime_secs: None };

    fn credential(sha256: bool) -> Arc<Credential> {
        Arc::new(Credential { username: "user".into(), password: Zeroizing::new("pass".into()), sha256 })
    }

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// The 401 of a server to a request.
    fn challenge(request: &[u8], nonce: &[u8], algorithms: Option<&[u8]>) -> Vec<u8> {
        refusal(request, ErrorCode::UNAUTHENTICATED, nonce, algorithms)
    }

    fn refusal(request: &[u8], code: ErrorCode, nonce: &[u8], algorithms: Option<&[u8]>) -> Vec<u8> {
        let request = Message::parse(request).unwrap();
        let mut out = Vec::new();
        let mut message = Encoder::new(&mut out, Class::Error, request.method(), request.transaction_id());
        message.error_code(code).attribute(AttributeType::REALM, b"realm").attribute(AttributeType::NONCE, nonce);
        if let Some(algorithms) = algorithms {
            message.attribute(AttributeType::PASSWORD_ALGORITHMS, algorithms);
        }
        out
    }

    fn allocated(request: &[u8], integrity: Option<(IntegrityKind, &Key)>) -> Vec<u8> {
        let request = Message::parse(request).unwrap();
        let mut out = Vec::new();
        let mut message = Encoder::new(&mut out, Class::Success, request.method(), request.transaction_id());
        message.xor_address(AttributeType::XOR_RELAYED_ADDRESS, addr(50_000));
        message.xor_address(AttributeType::XOR_MAPPED_ADDRESS, addr(40_000)).u32(AttributeType::LIFETIME, 600);
        if let Some((kind, key)) = integrity {
            message.integrity(kind, key);
        }
        out
    }

    #[test]
    fn a_challenged_request_is_repeated_with_credentials_and_its_answer_verified() {
        let mut client = Client::new(Some(credential(false)), SEED);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        client.start(ALLOCATE, &mut first);
        assert!(Message::parse(&first).unwrap().integrity().is_none());
        assert_eq!(client.receive(&challenge(&first, b"n", None), &mut second), Ok(Event::Retry));

        let key = Key::long_term(PasswordAlgorithm::Md5, b"user", b"realm", b"pass");
        let request = Message::parse(&second).unwrap();
        assert!(request.verify_integrity(&key));
        assert_ne!(request.transaction_id(), Message::parse(&first).unwrap().transaction_id());

        let unsigned = allocated(&second, None);
        let bad = ClientError::BadIntegrity { method: Method::ALLOCATE };
        assert_eq!(client.receive(&unsigned, &mut Vec::new()), Err(bad));
        let signed = allocated(&second, Some((IntegrityKind::Sha1, &key)));
        let answer = Answer::Allocated { relayed: addr(50_000), mapped: addr(40_000), lifetime_secs: 600 };
        assert_eq!(client.receive(&signed, &mut Vec::new()), Ok(Event::Done(answer)));
        assert_eq!(client.receive(&signed, &mut Vec::new()), Ok(Event::Ignored));
    }

    #[test]
    fn a_wrong_password_is_an_error_and_not_a_loop() {
        let mut client = Client::new(Some(credential(false)), SEED);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        client.start(ALLOCATE, &mut first);
        client.receive(&challenge(&first, b"n", None), &mut second).unwrap();
        let error = client.receive(&challenge(&second, b"n2", None), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "Allocate refused: 401 Unauthorized");
    }

    #[test]
    fn a_stale_nonce_is_replaced_a_few_times_and_then_given_up() {
        let mut client = Client::new(Some(credential(false)), SEED);
        let mut request = Vec::new();
        client.start(ALLOCATE, &mut request);
        let mut retries = 0;
        let mut answer = challenge(&request, b"0", None);
        loop {
            request.clear();
            match client.receive(&answer, &mut request) {
                Ok(Event::Retry) => retries += 1,
                Ok(event) => panic!("{event:?}"),
                Err(error) => break assert!(error.to_string().contains("438"), "{error}"),
            }
            answer = refusal(&request, ErrorCode::STALE_NONCE, b"1", None);
        }
        assert_eq!(retries, 3);
    }

    #[test]
    fn sha256_is_used_when_offered_and_wanted() {
        let offered = [0, 1, 0, 0, 0, 2, 0, 0];
        for wanted in [true, false] {
            let mut client = Client::new(Some(credential(wanted)), SEED);
            let (mut first, mut second) = (Vec::new(), Vec::new());
            client.start(ALLOCATE, &mut first);
            client.receive(&challenge(&first, b"obMatJos2AAAB", Some(&offered)), &mut second).unwrap();
            let request = Message::parse(&second).unwrap();
            let (kind, algorithm) = match wanted {
                true => (IntegrityKind::Sha256, PasswordAlgorithm::Sha256),
                false => (IntegrityKind::Sha1, PasswordAlgorithm::Md5),
            };
            assert_eq!(request.integrity(), Some(kind));
            assert!(request.verify_integrity(&Key::long_term(algorithm, b"user", b"realm", b"pass")));
            assert_eq!(request.get(AttributeType::PASSWORD_ALGORITHM).is_some(), wanted);
        }
    }

    #[test]
    fn without_a_credential_a_challenge_is_an_error_and_a_success_is_accepted() {
        let mut client = Client::new(None, SEED);
        let mut request = Vec::new();
        client.start(ALLOCATE, &mut request);
        let answer = allocated(&request, None);
        assert!(matches!(client.receive(&answer, &mut Vec::new()), Ok(Event::Done(_))));
        request.clear();
        client.start(ALLOCATE, &mut request);
        let error = client.receive(&challenge(&request, b"n", None), &mut Vec::new());
        assert_eq!(error, Err(ClientError::NoCredential));
    }

    #[test]
    fn another_transaction_is_ignored_and_malformed_bytes_are_an_error() {
        let mut client = Client::new(None, SEED);
        let mut request = Vec::new();
        client.start(Request::Binding, &mut request);
        let mut foreign = request.clone();
        foreign[8] ^= 1;
        assert_eq!(client.receive(&allocated(&foreign, None), &mut Vec::new()), Ok(Event::Ignored));
        assert_eq!(client.receive(&request, &mut Vec::new()), Ok(Event::Ignored));
        let malformed = client.receive(&request[..10], &mut Vec::new());
        assert_eq!(malformed, Err(ClientError::Malformed(ParseError::TooShort)));
    }

    #[test]
    fn a_response_without_its_address_says_which() {
        let mut client = Client::new(None, SEED);
        let (mut request, mut answer) = (Vec::new(), Vec::new());
        client.start(Request::Binding, &mut request);
        let id = Message::parse(&request).unwrap().transaction_id();
        Encoder::new(&mut answer, Class::Success, Method::BINDING, id);
        let error = client.receive(&answer, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "Binding response without a usable XOR-MAPPED-ADDRESS");
    }
}
