//! Sessions by OpenSSL, without sockets: each call is given what has come, and leaves what is to be sent.

use std::sync::Arc;

use openssl::bn::BigNum;
use openssl::dh::Dh;
use openssl::error::ErrorStack;
use openssl::pkey::{Id, PKey};
use openssl::ssl::{
    AlpnError, ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslStream,
    SslVersion, select_next_proto,
};
use openssl::x509::X509;

use super::hello::{ClientHello, KeyKind};
use super::record;
use super::wire::{State, Wire};
use crate::config::TlsFiles;
use crate::regular_file;
use crate::stream::{CHAIN_BYTES_MAX, CertificateChoice, TlsError};

/// What handshake datagrams are cut to. Every path of IPv6 takes 1280 bytes.
const MTU: u32 = 1200;
/// The longest record (RFC 6347 section 4.1).
const RECORD_MAX: usize = 16 * 1024;
/// Records taken from one datagram.
const RECORDS_MAX: usize = 16;
/// Those of RFC 7350 section 3, and what clients of today prefer; all with forward secrecy.
const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM";
/// The protocols of RFC 7443, each with its length.
const ALPN: &[u8] = b"\x09stun.turn\x12stun.nat-discovery";
/// A cookie has been verified when a session begins: what OpenSSL calls one may be anything.
const ANY_COOKIE: &[u8] = b"verified";

/// What sessions are made from: certificates, and what is negotiated.
pub struct Context {
    certificates: Vec<Option<Certificate>>,
    choice: CertificateChoice,
}

/// A certificate chain and its key, and what is negotiated with it.
#[derive(Clone)]
pub struct Certificate {
    context: SslContext,
    kind: KeyKind,
}

/// A session.
pub struct Session {
    stream: SslStream<Wire>,
    is_open: bool,
    /// What is added to the numbers of its records without keys.
    sequence_offset: u64,
}

impl Context {
    /// Of these certificates, each with the names that it is for; one may be still to come.
    pub fn new(certificates: Vec<(Option<Certificate>, Vec<String>)>) -> Option<Arc<Self>> {
        let (certificates, names): (Vec<_>, Vec<_>) = certificates.into_iter().unzip();
        Some(Arc::new(Self { certificates, choice: CertificateChoice::new(&names) }))
    }

    /// The certificate for a client, by the server name that it asks for and the kinds of key that it takes. Of two that will do the one that
    /// is not RSA: its handshake is shorter, and costs the server a tenth. Where none will do, the client hears of it by an alert.
    ///
    /// OpenSSL is not asked to choose: it would acknowledge the name, and pion takes the empty extension that does for a malformed one.
    fn certificate(&self, hello: &ClientHello<'_>) -> Option<&Certificate> {
        let numbers = self.choice.of(hello.server_name()).iter();
        let candidates = numbers.filter_map(|number| self.certificates.get(*number)?.as_ref());
        candidates.min_by_key(|of| (!hello.takes(of.kind), of.kind == KeyKind::Rsa))
    }
}

impl Certificate {
    /// Reads certificate chain and key.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(files: &TlsFiles) -> Result<Option<Self>, TlsError> {
        let file =
            |error: std::io::Error| TlsError::File { path: files.certificate.clone(), problem: error.to_string() };
        let chain = regular_file::read(&files.certificate, CHAIN_BYTES_MAX).map_err(file)?;
        let key = files.read_key().map_err(TlsError::Key)?;
        let certificate = Self::of(&chain, &key).map_err(|error| TlsError::Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            problem: format!("OpenSSL, which serves dtls, refuses them: {error}"),
        })?;
        Ok(Some(certificate))
    }

    fn of(chain: &[u8], key: &[u8]) -> Result<Self, ErrorStack> {
        let mut builder = builder()?;
        let kind = use_certificate(&mut builder, chain, key)?;
        Ok(Self { context: builder.build(), kind })
    }
}

fn builder() -> Result<SslContextBuilder, ErrorStack> {
    let mut builder = SslContext::builder(SslMethod::dtls_server())?;
    builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    builder.set_options(
        SslOptions::NO_QUERY_MTU
            | SslOptions::NO_TICKET
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_COMPRESSION
            | SslOptions::CIPHER_SERVER_PREFERENCE
            | SslOptions::COOKIE_EXCHANGE,
    );
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_cipher_list(CIPHERS)?;
    // 2048 bits (RFC 3526 section 3), for the cipher suite with DHE that RFC 7350 section 3 wants.
    builder.set_tmp_dh(Dh::from_pqg(BigNum::get_rfc3526_prime_2048()?, None, BigNum::from_u32(2)?)?.as_ref())?;
    builder.set_cookie_generate_cb(|_, cookie| {
        cookie.iter_mut().zip(ANY_COOKIE).for_each(|(to, from)| *to = *from);
        Ok(ANY_COOKIE.len())
    });
    builder.set_cookie_verify_cb(|_, _| true);
    builder.set_alpn_select_callback(|_, offered| select_next_proto(ALPN, offered).ok_or(AlpnError::NOACK));
    Ok(builder)
}

/// Returns what kind of key it is.
fn use_certificate(builder: &mut SslContextBuilder, chain: &[u8], key: &[u8]) -> Result<KeyKind, ErrorStack> {
    let mut chain = X509::stack_from_pem(chain)?.into_iter();
    if let Some(own) = chain.next() {
        builder.set_certificate(&own)?;
    }
    chain.try_for_each(|certificate| builder.add_extra_chain_cert(certificate))?;
    let key = PKey::private_key_from_pem(key)?;
    builder.set_private_key(&key)?;
    builder.check_private_key()?;
    Ok(match key.id() {
        Id::RSA => KeyKind::Rsa,
        Id::ED25519 | Id::ED448 => KeyKind::EdDsa,
        _ => KeyKind::Ecdsa,
    })
}

impl Session {
    /// A session that this side begins, with the server name and the protocol that it asks for. The server's certificate is not judged here.
    ///
    /// # Errors
    /// What OpenSSL does not take.
    pub fn connect(server_name: Option<&str>, alpn: Option<&str>) -> std::io::Result<Self> {
        let mut builder = SslContext::builder(SslMethod::dtls_client())?;
        builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
        builder.set_options(SslOptions::NO_QUERY_MTU | SslOptions::NO_RENEGOTIATION);
        let mut ssl = Ssl::new(&builder.build())?;
        ssl.set_mtu(MTU)?;
        ssl.set_connect_state();
        if let Some(name) = server_name {
            ssl.set_hostname(name)?;
        }
        if let Some(protocol) = alpn {
            let len = u8::try_from(protocol.len()).map_err(std::io::Error::other)?;
            ssl.set_alpn_protos(&[&[len], protocol.as_bytes()].concat())?;
        }
        Ok(Self { stream: SslStream::new(ssl, Wire::default())?, is_open: false, sequence_offset: 0 })
    }

    /// What the other side has agreed to of the protocols that were asked for.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.stream.ssl().selected_alpn_protocol()
    }

    /// The other side's certificates, its own first, as DER.
    pub fn peer_chain(&self) -> Vec<Vec<u8>> {
        let chain = self.stream.ssl().peer_cert_chain();
        chain.into_iter().flatten().filter_map(|certificate| certificate.to_der().ok()).collect()
    }

    /// A session for a client whose cookie has been verified; `hello` is what `datagram` has in it. What goes back is in the wire.
    ///
    /// OpenSSL wants to have asked for the cookie itself, or the handshake would not be the one that the client has in mind. So it is given
    /// the hello as it was without the cookie first, and its request for one is thrown away. No call here can make it forget a
    /// cookie, and the numbers of messages and records come out as RFC 6347 section 4.2.1 says.
    pub fn begin(
        context: &Context,
        hello: &ClientHello<'_>,
        datagram: &[u8],
        wire: &mut Wire,
    ) -> Option<(Self, State)> {
        let Some(certificate) = context.certificate(hello) else {
            wire.outgoing.push(&hello.denied());
            return None;
        };
        let mut ssl = Ssl::new(&certificate.context).ok()?;
        ssl.set_mtu(MTU).ok()?;
        ssl.set_accept_state();
        let stream = SslStream::new(ssl, Wire::default()).ok()?;
        // The first record that the client sees has the number of its hello, and OpenSSL's would be 1.
        let mut session = Self { stream, is_open: false, sequence_offset: hello.sequence.saturating_sub(1) };
        if session.shake_hands(&hello.without_cookie(), wire) != State::Arriving {
            return None;
        }
        let state = session.shake_hands(datagram, wire);
        Some((session, state))
    }

    /// Goes on with the handshake: with a datagram, or without one when something may have to be sent again.
    pub fn shake_hands(&mut self, datagram: &[u8], wire: &mut Wire) -> State {
        wire.begin(datagram);
        let result = self.with(wire, |stream| stream.do_handshake());
        record::shift_sequence(wire.outgoing.bytes_mut(), self.sequence_offset);
        match result {
            Ok(()) => {
                self.is_open = true;
                State::Open
            }
            Err(ErrorCode::WANT_READ) => State::Arriving,
            Err(_) => State::Over,
        }
    }

    /// Decrypts the messages of a datagram.
    pub fn receive(&mut self, datagram: &[u8], wire: &mut Wire) -> State {
        wire.begin(datagram);
        let (mut plain, mut buffer) = (std::mem::take(&mut wire.plain), std::mem::take(&mut wire.record));
        buffer.resize(RECORD_MAX, 0);
        let state = self.with(wire, |stream| {
            for _ in 0..RECORDS_MAX {
                match stream.ssl_read(&mut buffer) {
                    Ok(len) => plain.push(buffer.get(..len).unwrap_or_default()),
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        (wire.plain, wire.record) = (plain, buffer);
        match state {
            Ok(()) | Err(ErrorCode::WANT_READ) => State::Open,
            Err(_) => State::Over,
        }
    }

    /// Encrypts a message; whether that was possible.
    pub fn send(&mut self, message: &[u8], wire: &mut Wire) -> bool {
        wire.begin(&[]);
        self.with(wire, |stream| stream.ssl_write(message)).is_ok()
    }

    /// Tells the client that this is the end, if it can be told.
    pub fn close(&mut self, wire: &mut Wire) {
        wire.begin(&[]);
        if self.is_open {
            let _ = self.with(wire, |stream| stream.shutdown());
        }
    }

    /// Has the session read and write the wire.
    fn with<T>(
        &mut self,
        wire: &mut Wire,
        call: impl FnOnce(&mut SslStream<Wire>) -> Result<T, openssl::ssl::Error>,
    ) -> Result<T, ErrorCode> {
        std::mem::swap(self.stream.get_mut(), wire);
        let result = call(&mut self.stream).map_err(|error| error.code());
        std::mem::swap(self.stream.get_mut(), wire);
        if result.is_err() {
            // What is left there would be taken for the next call's, which may be another session's.
            let _ = ErrorStack::get();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use openssl::ssl::SslVerifyMode;
    use openssl::x509::store::X509StoreBuilder;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::super::record::{Content, records};
    use super::super::wire::Datagrams;
    use super::*;

    /// A client of OpenSSL, in memory like the server.
    struct Peer(SslStream<Wire>);

    impl Peer {
        fn new(authority: &X509) -> Self {
            let mut builder = SslContext::builder(SslMethod::dtls_client()).unwrap();
            let mut store = X509StoreBuilder::new().unwrap();
            store.add_cert(authority.clone()).unwrap();
            builder.set_cert_store(store.build());
            builder.set_verify(SslVerifyMode::PEER);
            builder.set_alpn_protos(b"\x06webrtc\x09stun.turn").unwrap();
            let mut ssl = Ssl::new(&builder.build()).unwrap();
            ssl.set_connect_state();
            ssl.param_mut().set_host("turn.example.org").unwrap();
            Self(SslStream::new(ssl, Wire::default()).unwrap())
        }

        /// Goes on with one datagram of the server's, or with none; what it sends.
        fn go_on(&mut self, datagram: &[u8]) -> (Vec<Vec<u8>>, Result<(), ErrorCode>) {
            self.0.get_mut().begin(datagram);
            let result = self.0.do_handshake().map_err(|error| error.code());
            (list(&self.0.get_ref().outgoing), result)
        }
    }

    fn list(datagrams: &Datagrams) -> Vec<Vec<u8>> {
        datagrams.iter().map(<[u8]>::to_vec).collect()
    }

    /// A context whose certificate has an intermediate one above it, and the authority above that.
    fn context_and_authority() -> (Arc<Context>, X509) {
        let of = |name: &str, is_authority: bool| {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            if is_authority {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            (params, KeyPair::generate().unwrap())
        };
        let [(root, root_key), (middle, middle_key)] = [of("root", true), of("middle", true)];
        let (own, own_key) = of("turn.example.org", false);
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let middle_pem = middle.signed_by(&middle_key, &Issuer::new(root, root_key)).unwrap().pem();
        let own_pem = own.signed_by(&own_key, &Issuer::new(middle, middle_key)).unwrap().pem();
        let chain = format!("{own_pem}{middle_pem}");
        let certificate = Certificate::of(chain.as_bytes(), own_key.serialize_pem().as_bytes()).unwrap();
        let context = Context::new(vec![(Some(certificate), vec!["turn.example.org".to_owned()])]).unwrap();
        (context, X509::from_pem(root_pem.as_bytes()).unwrap())
    }

    /// Shows the cookie: the datagram with the second hello, after `lost` requests for it that did not arrive.
    fn second_hello(peer: &mut Peer, lost: u32) -> Vec<u8> {
        let mut hellos = peer.go_on(&[]).0;
        for _ in 0..lost {
            let since = Instant::now();
            hellos = loop {
                let (again, _) = peer.go_on(&[]);
                if !again.is_empty() {
                    break again;
                }
                assert!(since.elapsed() < Duration::from_secs(10), "a client repeats its hello");
                std::thread::sleep(Duration::from_millis(20));
            };
        }
        let hello = ClientHello::parse(&hellos[0]).unwrap();
        assert_eq!(hello.sequence, u64::from(lost));
        let mut request = Vec::new();
        hello.verify_request(b"our cookie", &mut request);
        let (mut hellos, _) = peer.go_on(&request);
        assert_eq!(ClientHello::parse(&hellos[0]).unwrap().cookie, b"our cookie");
        hellos.remove(0)
    }

    /// Both ends of a session, open; and what the client sent last.
    fn open(lost: u32) -> (Session, Peer, Wire, Vec<Vec<u8>>) {
        let (context, authority) = context_and_authority();
        let (mut peer, mut wire) = (Peer::new(&authority), Wire::default());
        let datagram = second_hello(&mut peer, lost);
        let hello = ClientHello::parse(&datagram).unwrap();
        let (mut session, state) = Session::begin(&context, &hello, &datagram, &mut wire).unwrap();
        assert_eq!(state, State::Arriving);
        let flight = list(&wire.outgoing);
        let first = records(&flight[0]).next().unwrap().unwrap();
        assert_eq!((first.content, first.sequence), (Content::Handshake, hello.sequence), "RFC 6347 section 4.2.1");
        assert!(flight.iter().all(|datagram| datagram.len() <= 1200));
        let answers: Vec<_> = flight.iter().flat_map(|datagram| peer.go_on(datagram).0).collect();
        let mut state = state;
        let mut last = Vec::new();
        for answer in &answers {
            assert!(record::purpose(answer).is_some(), "a client's flight is let through");
            state = session.shake_hands(answer, &mut wire);
            last.extend(list(&wire.outgoing));
        }
        assert_eq!(state, State::Open);
        let (_, result) = last.iter().fold((Vec::new(), Ok(())), |_, datagram| peer.go_on(datagram));
        assert_eq!(result, Ok(()), "the chain is verified, and the name");
        (session, peer, wire, answers)
    }

    #[test]
    fn a_session_opens_behind_our_own_cookie_and_carries_messages() {
        let (mut session, mut peer, mut wire, _) = open(0);
        assert_eq!(peer.0.ssl().selected_alpn_protocol(), Some(&b"stun.turn"[..]));
        let mut records = Vec::new();
        for message in [&b"one"[..], &[7; 1400], &[8; 16_384]] {
            peer.0.get_mut().begin(&[]);
            peer.0.ssl_write(message).unwrap();
            let sent = list(&peer.0.get_ref().outgoing);
            assert_eq!(sent.len(), 1, "a record is a message");
            assert_eq!(session.receive(&sent[0], &mut wire), State::Open);
            assert_eq!(list(&wire.plain), [message]);
            records.extend(sent.concat());
            assert!(session.send(message, &mut wire));
            let sent = list(&wire.outgoing);
            peer.0.get_mut().begin(&sent[0]);
            let mut buffer = vec![0; RECORD_MAX];
            let len = peer.0.ssl_read(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], message);
        }
        assert!(!session.send(&[0; 16_385], &mut wire), "no record is so long");
        // A copy, and what nobody has sealed, bring nothing and do no harm.
        assert_eq!(session.receive(&records[..16], &mut wire), State::Open);
        let mut forged = records[..40].to_vec();
        forged[30] ^= 1;
        assert_eq!(session.receive(&forged, &mut wire), State::Open);
        assert!(list(&wire.plain).is_empty() && list(&wire.outgoing).is_empty());
    }

    #[test]
    fn several_records_in_one_datagram_are_several_messages() {
        let (mut session, mut peer, mut wire, _) = open(0);
        let mut datagram = Vec::new();
        for message in [&b"one"[..], b"two", b"three"] {
            peer.0.get_mut().begin(&[]);
            peer.0.ssl_write(message).unwrap();
            datagram.extend(list(&peer.0.get_ref().outgoing).concat());
        }
        assert_eq!(session.receive(&datagram, &mut wire), State::Open);
        assert_eq!(list(&wire.plain), [&b"one"[..], b"two", b"three"]);
    }

    #[test]
    fn either_end_can_close_it() {
        let (mut session, mut peer, mut wire, _) = open(0);
        session.close(&mut wire);
        peer.0.get_mut().begin(&list(&wire.outgoing)[0]);
        assert_eq!(peer.0.ssl_read(&mut [0; 16]).unwrap_err().code(), ErrorCode::ZERO_RETURN);

        let (mut session, mut peer, mut wire, _) = open(0);
        peer.0.get_mut().begin(&[]);
        let _ = peer.0.shutdown();
        let goodbye = list(&peer.0.get_ref().outgoing);
        assert_eq!(session.receive(&goodbye[0], &mut wire), State::Over);
    }

    #[test]
    fn a_client_that_missed_the_request_for_a_cookie_sees_numbers_it_has_not_seen() {
        open(1);
    }

    #[test]
    fn a_client_that_missed_the_end_gets_it_again() {
        let (mut session, _, mut wire, answers) = open(0);
        assert_eq!(session.receive(answers.last().unwrap(), &mut wire), State::Open);
        // A copy of the same record is a replay; one that is sealed anew comes with a number of its own.
        assert!(list(&wire.plain).is_empty());
    }

    #[test]
    fn a_flight_that_is_not_answered_is_sent_again_with_numbers_that_go_on() {
        let (context, authority) = context_and_authority();
        let (mut peer, mut wire) = (Peer::new(&authority), Wire::default());
        let datagram = second_hello(&mut peer, 0);
        let hello = ClientHello::parse(&datagram).unwrap();
        let (mut session, state) = Session::begin(&context, &hello, &datagram, &mut wire).unwrap();
        assert_eq!(state, State::Arriving);
        let number = |datagrams: &[Vec<u8>]| records(&datagrams[0]).next().unwrap().unwrap().sequence;
        let first = list(&wire.outgoing);
        let since = Instant::now();
        let again = loop {
            assert_eq!(session.shake_hands(&[], &mut wire), State::Arriving);
            if wire.outgoing.iter().next().is_some() {
                break list(&wire.outgoing);
            }
            assert!(since.elapsed() < Duration::from_secs(10), "a server repeats its flight");
            std::thread::sleep(Duration::from_millis(20));
        };
        // OpenSSL puts each message of a flight that it repeats into a datagram of its own.
        assert!(again.iter().all(|datagram| number(std::slice::from_ref(datagram)) > number(&first)));
        assert!(again.len() >= first.len());
    }
}
