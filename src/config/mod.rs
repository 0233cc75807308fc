//! The typed configuration: what `turnserver.toml`, the environment and the flags come to once they are valid.

mod access;
mod acme;
mod acme_pairs;
mod acme_reader;
mod admin;
mod changes;
mod credentials;
mod credentials_reader;
mod denied;
mod endpoint;
mod error;
mod file;
mod finding;
mod fleet;
mod fleet_reader;
mod hook;
mod hook_reader;
mod host;
mod key;
mod keys;
mod listen;
mod named_files;
mod nat_discovery;
mod operation;
mod origin;
mod overrides;
mod peers;
mod places;
mod public_address;
mod reached;
mod reader;
mod realm;
mod records;
mod relay;
mod revocations;
mod secret;
mod sections;
mod settings;
mod show;
mod shown;
mod snapshot;
mod source;
mod store;
mod store_reader;
mod tcp_relays;
mod units;
mod unshown;
mod urls;
mod usage;
mod users_file;
mod value;
mod ways_in;
mod words;

pub use acme::{Acme, AtPort, Challenges, DirectoryUrl, ExternalAccount};
pub use changes::{Change, Effect};
pub use credentials::{ApiKey, CredentialsApi, Origin, Shape};
pub use denied::Unusable;
pub(crate) use denied::{Wanted, lasts, why, why_not};
pub use endpoint::Endpoint;
pub use error::{ConfigError, Place, Problem, ValueError};
pub use finding::{AddressSource, Cloud, Finding, FoundBy, StunServer, is_public};
pub use fleet::{FleetConfig, NodeSource, NodeUrl, SrvName};
pub use hook::{Hook, HookEvent, HookEvents, HookUrl};
pub use host::Host;
pub use key::Overridable;
pub use keys::{READERS_ENV, overridable};
pub use named_files::NamedSecret;
pub use overrides::{ADMIN_ENV, ADMIN_TOKEN_ENV, CONFIG_ENV, Overrides};
pub use reached::Reached;
pub use realm::{QuotaChanges, RealmConfig};
pub use revocations::{
    Moment, RevocationError, WrittenBy, WrittenRevocation, read_lines, read_listed, read_revocations, revocation,
    revocation_of, revocation_of_user, revoked_realm,
};
pub use secret::{
    AdminToken, Readers, SECRET_BYTES_MIN, SecretError, WebhookToken, check_secret, judge_mode, read_private_file,
    read_private_input, trim_line_end,
};
pub use sections::check_log_filter;
pub use settings::{PolicyRules, compile_policies};
pub use snapshot::{
    Admin, Auth, Config, Drain, ExternalIp, ListenOptions, Listener, Log, LogFormat, LogOutput, Metrics, OwnAddresses,
    QuotaShares, Relay, RelayAddress, RelayChoice, Streams, TlsFiles, TlsPair, TlsVersion, WantedSockets, Web,
};
pub use source::{DEFAULT_FILE, Loaded, Source, Surroundings};
pub use store::{
    HostPort, StoreCertificate, StoreConfig, StoreLayout, StorePassword, StorePlace, StoreUrl, StoredSecrets,
};
pub use units::parse_duration;
pub use usage::{Usage, UsageFile, Webhook, WebhookUrl};
pub use users_file::read_users;
pub use ways_in::WaysIn;

// For `import`, which writes what is read here.
pub(crate) use access::parse_realm;
pub(crate) use relay::network_of;
pub(crate) use units::{duration_text, rate_text};
pub(crate) use urls::parse_host;
pub(crate) use value::quoted;
pub(crate) use words::{edits, nearest};
