//! What clients write and read: messages, credentials, answers.

use std::net::SocketAddr;

use turnstone::reject::Dropped;
use turnstone::stun::{
    AttributeType, Class, Encoder, ErrorCode, IntegrityKind, Key, Message, Method, PasswordAlgorithm, TransactionId,
    decode_xor_address,
};
use turnstone::turn::{Binding, Client, Detour, ToPeer};

/// A message put together by `build`.
pub fn message(
    class: Class,
    method: Method,
    transaction_id: TransactionId,
    build: impl FnOnce(&mut Encoder<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    build(&mut Encoder::new(&mut bytes, class, method, transaction_id));
    bytes
}

/// A client that knows its credential and the server's nonce.
#[derive(Clone)]
pub struct Login {
    pub client: Client,
    pub username: String,
    pub realm: String,
    pub nonce: Vec<u8>,
    pub key: Key,
    pub sha256_key: Key,
    pub algorithm: PasswordAlgorithm,
}

impl Login {
    /// The same client on another 5-tuple would need another nonce; this one only changes the wire form to RFC 8489's.
    pub fn with_sha256(mut self) -> Self {
        self.algorithm = PasswordAlgorithm::Sha256;
        self
    }

    pub fn request(
        &self,
        transaction_id: TransactionId,
        method: Method,
        build: impl FnOnce(&mut Encoder<'_>),
    ) -> Vec<u8> {
        message(Class::Request, method, transaction_id, |request| {
            build(request);
            self.sign(request);
        })
    }

    /// Appends the credential's attributes and the integrity.
    pub fn sign(&self, request: &mut Encoder<'_>) {
        request
            .attribute(AttributeType::USERNAME, self.username.as_bytes())
            .attribute(AttributeType::REALM, self.realm.as_bytes())
            .attribute(AttributeType::NONCE, &self.nonce);
        match self.algorithm {
            PasswordAlgorithm::Md5 => request.integrity(IntegrityKind::Sha1, &self.key),
            PasswordAlgorithm::Sha256 => request
                .attribute(AttributeType::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0])
                .attribute(AttributeType::PASSWORD_ALGORITHM, &[0, 2, 0, 0])
                .integrity(IntegrityKind::Sha256, &self.sha256_key),
        };
    }
}

/// What the server made of a message.
#[derive(Debug)]
pub enum Answer {
    Reply(Reply),
    Detour(Detour, Reply),
    ToPeer(ToPeer, Vec<u8>),
    Waits,
    Binds(Binding, Reply),
    Dropped(Dropped),
}

impl Answer {
    pub fn reply(self) -> Reply {
        match self {
            Self::Reply(reply) => reply,
            other => panic!("no reply but {other:?}"),
        }
    }

    pub fn detour(self) -> (Detour, Reply) {
        match self {
            Self::Detour(detour, reply) => (detour, reply),
            other => panic!("no detour but {other:?}"),
        }
    }

    pub fn into_peer(self) -> (ToPeer, Vec<u8>) {
        match self {
            Self::ToPeer(to_peer, data) => (to_peer, data),
            other => panic!("nothing for a peer but {other:?}"),
        }
    }

    pub fn is_to_peer(&self) -> bool {
        matches!(self, Self::ToPeer(..))
    }

    pub fn dropped(self) -> Dropped {
        match self {
            Self::Dropped(dropped) => dropped,
            other => panic!("not dropped but {other:?}"),
        }
    }
}

/// A response, taken apart.
#[derive(Debug)]
pub struct Reply {
    pub bytes: Vec<u8>,
    pub class: Class,
    pub method: Method,
    pub transaction_id: TransactionId,
    pub integrity: Option<IntegrityKind>,
    pub has_fingerprint: bool,
}

impl Reply {
    pub fn read(bytes: Vec<u8>) -> Self {
        let message = Message::parse(&bytes).expect("the server's message is well-formed");
        let (class, method, transaction_id) = (message.class(), message.method(), message.transaction_id());
        let (integrity, has_fingerprint) = (message.integrity(), message.has_fingerprint());
        Self { bytes, class, method, transaction_id, integrity, has_fingerprint }
    }

    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    /// The error code; `None` in a success response.
    pub fn code(&self) -> Option<u16> {
        let value = self.get(AttributeType::ERROR_CODE);
        assert_eq!(value.is_some(), self.class == Class::Error);
        value.map(|value| ErrorCode::decode(&value).unwrap().0.value())
    }

    pub fn get(&self, kind: AttributeType) -> Option<Vec<u8>> {
        self.message().get(kind).map(<[u8]>::to_vec)
    }

    pub fn u32(&self, kind: AttributeType) -> Option<u32> {
        self.get(kind).map(|value| u32::from_be_bytes(value.try_into().unwrap()))
    }

    pub fn addresses(&self, kind: AttributeType) -> Vec<SocketAddr> {
        let message = self.message();
        let found = message.attributes().filter(|attribute| attribute.kind == kind);
        found.map(|attribute| decode_xor_address(attribute.value, self.transaction_id).unwrap()).collect()
    }

    pub fn lifetime_secs(&self) -> u32 {
        self.u32(AttributeType::LIFETIME).expect("LIFETIME")
    }

    pub fn relayed(&self) -> SocketAddr {
        let all = self.addresses(AttributeType::XOR_RELAYED_ADDRESS);
        assert_eq!(all.len(), 1, "one XOR-RELAYED-ADDRESS");
        all[0]
    }

    /// The types of all attributes before the integrity.
    pub fn kinds(&self) -> Vec<AttributeType> {
        self.message().attributes().map(|attribute| attribute.kind).collect()
    }

    pub fn is_signed_by(&self, login: &Login) -> bool {
        match login.algorithm {
            PasswordAlgorithm::Md5 => self.message().verify_integrity(&login.key),
            PasswordAlgorithm::Sha256 => self.message().verify_integrity(&login.sha256_key),
        }
    }
}
