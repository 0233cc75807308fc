//! `acme` in `[tls]`: which certificates the server gets for itself, and from whom.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use hyper::http::Uri;
use zeroize::Zeroizing;

use super::error::ValueError;

/// Certificates that the server gets for itself (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// A certificate of its own for each of these names.
    pub names: Vec<String>,
    /// Where the certificate authority may write to.
    pub email: Option<String>,
    /// The certificate authority.
    pub directory: DirectoryUrl,
    /// The authorities that its HTTPS is judged by; those of the system if there is no file.
    pub ca: Option<PathBuf>,
    /// The account at the authority that is not ACME's, if it wants one (RFC 8555 section 7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// How the authority can see that a name leads here.
    pub challenges: Challenges,
    /// Where account, certificates and keys are kept.
    pub folder: PathBuf,
}

/// How the authority can see that a name leads here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Challenges {
    /// By a tls listener (RFC 8737), and whether that is at the port where it is asked.
    pub tls: Option<AtPort>,
    /// By an HTTP endpoint at this address (RFC 8555 section 8.3).
    pub http: Option<SocketAddr>,
}

/// Whether a listener is where the authority looks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtPort {
    /// At 443.
    Right,
    /// At another one, to which 443 has to lead.
    Other,
}

/// Where a certificate authority's directory is: an `https` URL, or `http` to loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryUrl(String);

/// What binds an ACME account to another one.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Whose it is.
    pub key_id: String,
    /// The key for the MAC.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl DirectoryUrl {
    pub(super) fn parse(text: &str) -> Result<Self, ValueError> {
        let uri: Uri = text.parse().map_err(|_| ValueError::is_not(text, "a URL"))?;
        let (scheme, authority) =
            uri.scheme_str().zip(uri.authority()).ok_or_else(|| ValueError::is_not(text, "a whole URL"))?;
        let is_fit = match scheme {
            "https" => true,
            "http" => is_loopback(authority.host()),
            _ => false,
        };
        if !is_fit {
            return Err(ValueError::unfit(text, "without TLS, which an ACME server has to have"));
        }
        if authority.as_str().contains('@') || text.contains('#') || authority.host().is_empty() {
            return Err(ValueError::is_not(text, "the URL of a directory"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the requests go without TLS: to this host only.
    pub fn is_plain(&self) -> bool {
        self.0.starts_with("http://")
    }
}

impl fmt::Display for DirectoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

impl Acme {
    /// The sockets of the HTTP endpoint that an authority asks.
    pub(crate) const HTTP_SOCKETS_MAX: u64 = 64;
    /// Those of the requests to an authority.
    pub(super) const REQUEST_SOCKETS_MAX: u64 = 2;

    /// The folder in a state directory.
    pub(super) fn folder_in(state_directory: &Path) -> PathBuf {
        state_directory.join("acme")
    }

    /// The file with the certificate chain of a name and its key: one, so that the two always belong together.
    pub fn file_of(folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("{name}.pem"))
    }
}
