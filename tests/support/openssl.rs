//! What a client of OpenSSL sees of a server, over TLS and DTLS.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use tempfile::TempDir;
use turnstone::stun::{AttributeType, Class, Encoder, Message, Method, TransactionId};

use super::process::{require_tool, run};

const LIMIT: Duration = Duration::from_secs(40);
/// Flags of `openssl s_client` for DTLS.
pub const DTLS: &[&str] = &["-dtls1_2"];

/// A self-signed certificate for a name, whose subject says which one it is, and its key.
pub fn certificate(name: &str, subject: &str, is_rsa: bool) -> (String, String) {
    let key = match is_rsa {
        false => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        true => {
            let mut openssl = Command::new(require_tool("openssl", "openssl"));
            openssl.args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
            let pem = run(&mut openssl, LIMIT).stdout;
            KeyPair::from_pem_and_sign_algo(&pem, &PKCS_RSA_SHA256).unwrap()
        }
    };
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, subject);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// Certificates of a test's own, in a folder that goes with it.
pub struct CertificateFolder(TempDir);

impl CertificateFolder {
    /// `ecdsa` and `rsa` for turn.c.example and `wild` for all of c.example, each with its name in its subject.
    pub fn of_c_example() -> CertificateFolder {
        let folder = CertificateFolder(TempDir::new().unwrap());
        folder.put("ecdsa", certificate("turn.c.example", "subject-ecdsa", false));
        folder.put("rsa", certificate("turn.c.example", "subject-rsa", true));
        folder.put("wild", certificate("*.c.example", "subject-wild", false));
        folder
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a certificate and its key, as the server wants them.
    pub fn put(&self, file: &str, (certificate, key): (String, String)) {
        let key_file = self.path(&format!("{file}-key.pem"));
        std::fs::write(self.path(&format!("{file}.pem")), certificate).unwrap();
        std::fs::write(&key_file, key).unwrap();
        std::fs::set_permissions(&key_file, Permissions::from_mode(0o600)).unwrap();
    }

    /// The `[[tls.certificates]]` of those of c.example.
    pub fn toml(&self) -> String {
        let pairs = ["rsa", "ecdsa", "wild"].map(|file| {
            let (certificate, key) = (self.path(&format!("{file}.pem")), self.path(&format!("{file}-key.pem")));
            format!("[[tls.certificates]]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n")
        });
        pairs.concat()
    }
}

/// What `openssl s_client` says of a handshake.
pub fn handshake(at: SocketAddr, flags: &[&[&str]]) -> String {
    let mut command = s_client(at, flags);
    run(&mut command, LIMIT).all_output()
}

/// The realm that a client is challenged for which comes through `openssl s_client`.
pub fn realm_by(at: SocketAddr, flags: &[&[&str]]) -> String {
    let mut command = s_client(at, flags);
    command.arg("-quiet").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut request = Vec::new();
    Encoder::new(&mut request, Class::Request, Method::ALLOCATE, TransactionId([7; 12]))
        .attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&request).unwrap();
    stdin.flush().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut answer = vec![0; 20];
    stdout.read_exact(&mut answer).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([answer[2], answer[3]]))];
    stdout.read_exact(&mut body).unwrap();
    answer.extend(body);
    let _ = child.kill();
    let _ = child.wait();
    let message = Message::parse(&answer).unwrap();
    String::from_utf8(message.get(AttributeType::REALM).unwrap().to_vec()).unwrap()
}

fn s_client(at: SocketAddr, flags: &[&[&str]]) -> Command {
    let mut command = Command::new(require_tool("openssl", "openssl"));
    command.args(["s_client", "-connect", &at.to_string()]).args(flags.concat());
    command
}
