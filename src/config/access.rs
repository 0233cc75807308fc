//! `[auth]`: the realm, shared secrets, static users and keys of access tokens, each from a file, a variable or the service manager.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use base64::{Engine, alphabet};
use sha2::{Digest, Sha256};
use toml::value::{Datetime, Offset};
use zeroize::Zeroizing;

use crate::auth::{AccessTokens, SharedSecret, TokenKey, Users, prepare};
use crate::policy::PolicyName;
use crate::user::RealmId;

use super::error::{Located, Place, ValueError};
use super::keys::{READERS, SECRET, SECRET_FILE, TOKEN_ALGORITHMS, USERS};
use super::peers::NamedPolicy;
use super::reader::{Document, Section, or_default};
use super::realm::RealmConfig;
use super::secret::{Readers, SecretError, check_secret, read_private_file, trim_line_end};
use super::sections::{read_realm_bandwidth, read_realm_quota};
use super::snapshot::Auth;
use super::source::{Source, Surroundings};
use super::urls::{parse_host, parse_url};
use super::users_file::{add_user, read_users, read_users_file};
use super::value::{ON_EXPIRY, choose};

const REALM_CHARS_MAX: usize = 127;
const SERVER_NAME_BYTES_MAX: usize = 255;
const KEY_ID_BYTES_MAX: usize = 128;
/// More realms are more than one server should have.
const REALMS_MAX: usize = 1000;
/// What the only secret is called unless it has an id.
const ONLY_ID: &str = "main";
const SECRET_SOURCES: [&str; 4] = ["credential", "file", "env", "secret"];
const TOKEN_KEY_SOURCES: [&str; 4] = ["credential", "file", "env", "key"];
const NONCE_KEY_SOURCES: [&str; 4] = ["nonce-key-credential", "nonce-key-file", "nonce-key-env", "nonce-key"];
const PASSWORD_SOURCES: [&str; 4] = ["password-credential", "password-file", "password-env", "password"];

pub(super) fn read_auth(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    source: &Source,
    turn: bool,
    around: &Surroundings<'_>,
) -> Auth {
    let section = root.section("auth");
    let realm = section.text("realm", parse_realm);
    let on_expiry = section.text("on-expiry", |text| choose(ON_EXPIRY, text, "a policy"));
    let nonce_lifetime = or_default(section.duration("nonce-lifetime"));
    let nonce_key = read_secret(document, source, around, &section, NONCE_KEY_SOURCES).and_then(|found| {
        let bytes = trim_line_end(found.value);
        match check_secret(&bytes) {
            Ok(()) => Some(Zeroizing::new(Sha256::digest(&*bytes).into())),
            Err(problem) => {
                document.problem(found.place, format!("nonce-key in [auth]: {problem}"));
                None
            }
        }
    });
    let username_limits = section.boolean("username-limits");
    let credential_lifetime_max = or_default(section.duration_or_off("credential-lifetime-max"));
    let revocations_file = section.text("revocations", |text| parse_path(text, &source.directory));
    let public_host = section.text("public-host", parse_host);
    let urls = section.texts("urls", parse_url);
    let server_names = section.texts("sni", parse_sni);
    let reader = SecretReader { document, source, around };
    let secrets = reader.secrets(&section);
    let realm = or_default(realm);
    let users = reader.users(&section, &realm);
    let server_name = section.text("server-name", parse_server_name);
    let token_keys = reader.token_keys(&section);
    section.report_unknown_keys();

    let mut secrets = match reader.secret_from_environment() {
        Some(secret) => {
            if section.has("secrets") {
                document.warning(secret.place.clone(), "replaces every [[auth.secrets]] of the file");
            }
            vec![secret.value]
        }
        None => secrets,
    };
    let is_asked = root.section("hook").has("url") || root.section("store").has("url");
    if secrets.is_empty() && users.is_empty() && token_keys.is_empty() && !is_asked && !document.has_problems() {
        if around.dev {
            secrets.extend(fresh_secret(document));
        } else if turn {
            let message = "nobody could authenticate: expected one of [[auth.secrets]], [[auth.users]], [[auth.token-keys]], users-file in [auth], \
                           [hook] and [store] in the file, or TURNSTONE_SECRET_FILE or TURNSTONE_SECRET in the environment";
            document.problem(document.whole(), message);
        }
    }
    let tokens =
        AccessTokens { server_name: server_name.map_or_else(|| realm.clone(), |name| name.value), keys: token_keys };
    Auth {
        realm,
        secrets,
        username_limits,
        credential_lifetime_max,
        revocations_file: revocations_file.map(|path| path.value),
        revocations: Arc::default(),
        users: Arc::new(users),
        server_names: server_names.into_iter().map(|name| name.value).collect(),
        tokens,
        on_expiry: or_default(on_expiry),
        nonce_key,
        nonce_lifetime_secs: u32::try_from(nonce_lifetime.as_secs()).unwrap_or(u32::MAX),
        public_host: public_host.map(|host| host.value),
        urls: urls.into_iter().map(|url| url.value).collect(),
    }
}

/// The realms beside that of `[auth]`.
pub(super) fn read_realms(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    source: &Source,
    around: &Surroundings<'_>,
    auth: &Auth,
    policies: &[Located<NamedPolicy>],
) -> Vec<RealmConfig> {
    let reader = SecretReader { document, source, around };
    let tables = root.sections("realm");
    let is_asked = root.section("hook").has("url") || root.section("store").has("url");
    if let Some(table) = tables.get(REALMS_MAX) {
        document.problem(table.place(), format!("more than {REALMS_MAX} realms"));
    }
    let mut names = HashSet::from([auth.realm.clone()]);
    let mut server_names: HashSet<_> = auth.server_names.iter().cloned().collect();
    let mut realms: Vec<RealmConfig> = Vec::new();
    for table in &tables {
        let name = table.text("name", parse_realm);
        if !table.has("name") {
            table.report_missing("name");
        }
        if let Some(name) = &name
            && !names.insert(name.value.clone())
        {
            table.problem("name", name.place.clone(), format!("a second realm of the name {:?}", name.value));
        } else if let Some(name) = &name
            && let Some(other) = realms.iter().find(|other| RealmId::of(&other.name) == RealmId::of(&name.value))
        {
            let message = format!(
                "{:?} and {:?} have the same number, by which clients and nonces know realms; choose another name",
                other.name, name.value
            );
            table.problem("name", name.place.clone(), message);
        }
        let on_expiry = table.text("on-expiry", |text| choose(ON_EXPIRY, text, "a policy"));
        let username_limits = table.has("username-limits").then(|| table.boolean("username-limits"));
        let peers = table.text("peers", str::parse::<PolicyName>);
        if let Some(peers) = &peers
            && policies.iter().all(|policy| policy.value.0 != peers.value)
        {
            let names: Vec<_> = policies.iter().map(|policy| policy.value.0).collect();
            let message =
                format!("there is no [[peers.policy]] of the name {:?}; expected one of {names:?}", peers.value);
            table.problem("peers", peers.place.clone(), message);
        }
        let chosen_by = table.texts("sni", parse_sni);
        for name in &chosen_by {
            if !server_names.insert(name.value.clone()) {
                table.problem("sni", name.place.clone(), format!("{:?} leads to another realm already", name.value));
            }
        }
        let public_host = table.text("public-host", parse_host);
        let urls = table.texts("urls", parse_url);
        let name = or_default(name);
        let secrets = reader.secrets_of(table);
        let users = reader.users(table, &name);
        if secrets.is_empty() && users.is_empty() && !is_asked && !document.has_problems() {
            let message = "nobody could authenticate: expected one of [[realm.secrets]], [[realm.users]], and users-file in this [[realm]]";
            document.problem(table.place(), message);
        }
        let (quota, bandwidth) = (read_realm_quota(table), read_realm_bandwidth(table));
        table.report_unknown_keys();
        realms.push(RealmConfig {
            name,
            server_names: chosen_by.into_iter().map(|name| name.value).collect(),
            public_host: public_host.map(|host| host.value),
            urls: urls.into_iter().map(|url| url.value).collect(),
            secrets,
            users: Arc::new(users),
            on_expiry: on_expiry.map(|on_expiry| on_expiry.value),
            username_limits,
            peers: peers.map(|peers| peers.value),
            quota,
            bandwidth,
        });
    }
    realms
}

/// A name that clients ask for over TLS, or with `*.` in place of its first label.
pub(super) fn parse_sni(text: &str) -> Result<String, ValueError> {
    let host = text.strip_prefix("*.").unwrap_or(text);
    if host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok() {
        return Err(ValueError::unfit(text, "an address, which no client asks for as a server name"));
    }
    parse_host(host)?;
    Ok(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase())
}

/// Who may read the files of secrets. Asked for before any of them is read.
pub(super) fn read_readers(document: &Document<'_>, root: &Section<'_, '_>) -> Readers {
    let readers = or_default(root.text(READERS, Readers::parse));
    document.set_secret_readers(readers);
    readers
}

/// A path in the file; a relative one is relative to the file.
pub(super) fn parse_path(text: &str, directory: &Path) -> Result<PathBuf, ValueError> {
    if text.is_empty() || text.contains('\0') {
        return Err(ValueError::is_not(text, "a path"));
    }
    Ok(directory.join(text))
}

/// A realm in the one spelling that its keys are made with (OpaqueString).
pub(crate) fn parse_realm(text: &str) -> Result<String, ValueError> {
    let prepared = prepare(text).ok().filter(|prepared| !prepared.contains(['"', '\\']));
    match prepared {
        None => Err(ValueError::unfit(text, "empty or has a character that is not allowed")),
        Some(prepared) if prepared.chars().count() > REALM_CHARS_MAX => Err(ValueError::Text("too long")),
        Some(prepared) => Ok(prepared),
    }
}

fn fresh_secret(document: &Document<'_>) -> Option<SharedSecret> {
    let mut random = Zeroizing::new([0; 32]);
    if let Err(error) = getrandom::fill(random.as_mut_slice()) {
        document.problem(document.whole(), format!("no randomness for a fresh secret: {error}"));
        return None;
    }
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_slice()).into_bytes());
    Some(SharedSecret { id: "dev".to_owned(), bytes })
}

/// The secret that one of these keys of `table` is the source of: credential, file, variable, inline. `None` when no source is
/// given, or a bad one, which is reported.
pub(super) fn read_secret(
    document: &Document<'_>,
    source: &Source,
    around: &Surroundings<'_>,
    table: &Section<'_, '_>,
    keys: [&'static str; 4],
) -> Option<Located<Zeroizing<Vec<u8>>>> {
    // Every key is asked for, so that it counts as known.
    let given = keys.map(|key| table.has(key)).contains(&true);
    let reader = SecretReader { document, source, around };
    given.then(|| reader.find(table, keys, true)).flatten()
}

struct SecretReader<'r, 'd> {
    document: &'r Document<'d>,
    source: &'r Source,
    around: &'r Surroundings<'r>,
}

impl SecretReader<'_, '_> {
    fn secret_from_environment(&self) -> Option<Located<SharedSecret>> {
        let given = |key| {
            let replacement = self.document.replacement(key)?;
            Some((replacement.place.clone(), replacement.values.first()?.clone()))
        };
        let (place, bytes) = match (given(SECRET), given(SECRET_FILE)) {
            (Some((place, _)), Some((other, _))) => {
                self.document.problem(place, format!("{other} is set too; expected one of the two"));
                return None;
            }
            (Some((place, secret)), None) => (place, Ok(Zeroizing::new(secret.into_bytes()))),
            (None, Some((place, path))) => (place, self.read_file(Path::new(&path)).map(trim_line_end)),
            (None, None) => return None,
        };
        let bytes = match bytes.and_then(|bytes| check_secret(&bytes).map(|()| bytes)) {
            Ok(bytes) => bytes,
            Err(problem) => {
                self.document.problem(place, problem.to_string());
                return None;
            }
        };
        Some(Located { value: SharedSecret { id: "env".to_owned(), bytes }, place })
    }

    fn secrets(&self, section: &Section<'_, '_>) -> Vec<SharedSecret> {
        let replaced = self.document.replacement(SECRET).or(self.document.replacement(SECRET_FILE)).is_some();
        self.read_secrets(section, !replaced)
    }

    /// Those of a realm of its own, which no variable replaces.
    fn secrets_of(&self, realm: &Section<'_, '_>) -> Vec<SharedSecret> {
        self.read_secrets(realm, true)
    }

    fn read_secrets(&self, section: &Section<'_, '_>, read: bool) -> Vec<SharedSecret> {
        let mut ids = HashSet::new();
        let mut secrets = Vec::new();
        let tables = section.sections("secrets");
        let is_only = tables.len() == 1;
        for table in tables {
            let mut id = table.text("id", parse_id);
            if id.is_none() && !table.has("id") {
                match is_only {
                    true => id = Some(Located { value: ONLY_ID.to_owned(), place: table.place() }),
                    false => {
                        let message = format!(
                            "{} there is no id, which each of several secrets needs; expected {}",
                            table.shown(),
                            table.expected("id")
                        );
                        self.document.problem(table.place(), message);
                    }
                }
            }
            if let Some(id) = &id
                && !ids.insert(id.value.clone())
            {
                self.document.problem(id.place.clone(), format!("a second secret with the id {:?}", id.value));
            }
            let found = self.find(&table, SECRET_SOURCES, read);
            table.report_unknown_keys();
            let (Some(id), Some(found)) = (id, found) else { continue };
            let bytes = trim_line_end(found.value);
            if let Err(problem) = check_secret(&bytes) {
                self.document.problem(found.place, format!("secret {:?} {}: {problem}", id.value, table.shown()));
                continue;
            }
            if bytes.first().is_some_and(u8::is_ascii_whitespace) || bytes.last().is_some_and(u8::is_ascii_whitespace) {
                let message = format!("secret {:?} begins or ends with white space, which counts", id.value);
                self.document.warning(found.place, message);
            }
            secrets.push(SharedSecret { id: id.value, bytes });
        }
        secrets
    }

    fn token_keys(&self, section: &Section<'_, '_>) -> Vec<TokenKey> {
        let mut keys: Vec<TokenKey> = Vec::new();
        for table in section.sections("token-keys") {
            let id = table.text("id", parse_key_id);
            if !table.has("id") {
                table.report_missing("id");
            }
            let algorithm =
                table.text("algorithm", |text| choose(TOKEN_ALGORITHMS, text, "an algorithm that is known"));
            let not_before = table.text("not-before", parse_moment).map(|moment| moment.value);
            let not_after = table.text("not-after", parse_moment);
            let found = self.find(&table, TOKEN_KEY_SOURCES, true);
            table.report_unknown_keys();
            if let (Some(from), Some(to)) = (not_before, &not_after)
                && to.value <= from
            {
                self.document.problem(to.place.clone(), "not-after in [[auth.token-keys]] is not after not-before");
            }
            let (Some(id), Some(found)) = (id, found) else { continue };
            if keys.iter().any(|key| key.id() == id.value) {
                self.document.problem(id.place, format!("a second key with the id {:?}", id.value));
                continue;
            }
            let algorithm = or_default(algorithm);
            let what = format!("key {:?} in [[auth.token-keys]]", id.value);
            let Some(bytes) = token_key_bytes(&found.value) else {
                self.document
                    .problem(found.place, format!("{what} is not base64; make one with: openssl rand -base64 32"));
                continue;
            };
            let wanted = algorithm.key_len();
            if bytes.len() > wanted {
                let message = format!("{what} has {} bytes, of which the first {wanted} count", bytes.len());
                self.document.warning(found.place.clone(), message);
            }
            match TokenKey::new(&id.value, algorithm, &bytes) {
                Ok(key) => keys.push(key.valid(not_before, not_after.map(|moment| moment.value))),
                Err(problem) => {
                    self.document.problem(found.place, format!("{what}: {problem}, which takes {wanted}"));
                }
            }
        }
        keys
    }

    fn users(&self, section: &Section<'_, '_>, realm: &str) -> Users {
        let mut users = Users::of_realm(realm);
        let given = self.users_from_environment(section, &mut users);
        for table in section.sections("users").into_iter().filter(|_| !given) {
            let name = table.text("name", |text| Ok::<_, Infallible>(text.to_owned()));
            if !table.has("name") {
                table.report_missing("name");
            }
            let found = self.find(&table, PASSWORD_SOURCES, true);
            table.report_unknown_keys();
            if let (Some(name), Some(found)) = (name, found)
                && let Err(problem) = add_user(&mut users, &name.value, &trim_line_end(found.value))
            {
                self.document.problem(name.place, problem);
            }
        }
        let path = section.text("users-file", |text| parse_path(text, &self.source.directory));
        if let Some(path) = path {
            let problem = |line, problem| {
                let file = path.value.display().to_string();
                self.document.problem(Place::At { file, line, column: 1 }, problem);
            };
            self.document.note_secret_file(&path.value);
            if let Err(error) = read_users_file(&path.value, self.document.secret_readers(), &mut users, problem) {
                section.problem("users-file", path.place.clone(), error);
            }
        }
        users
    }

    /// Adds the users that a variable holds. Returns whether there is one.
    fn users_from_environment(&self, section: &Section<'_, '_>, users: &mut Users) -> bool {
        // Those of other realms are in the file.
        let Some(given) = self.document.replacement(USERS).filter(|_| section.shown() == "in [auth]") else {
            return false;
        };
        if section.has("users") {
            self.document.warning(given.place.clone(), "replaces every [[auth.users]] of the file");
        }
        let lines = given.values.iter().flat_map(|value| value.split_whitespace()).collect::<Vec<_>>().join("\n");
        let lines = Zeroizing::new(lines);
        let problem = |number, problem| {
            self.document.problem(given.place.clone(), format!("user {number}: {problem}"));
        };
        // There is nothing to fail in reading memory; that it is too long is a problem of its own.
        if !read_users(lines.as_bytes(), users, problem).unwrap_or_default() {
            self.document.problem(given.place.clone(), "is too long");
        }
        true
    }

    /// Reads the one source of a secret or password that `table` names; `keys` are credential, file, variable, inline.
    ///
    /// A credential and a file may be given together: the file is read where the service manager handed over nothing,
    /// as when an administrator runs `turnstone credentials`.
    fn find(
        &self,
        table: &Section<'_, '_>,
        keys: [&'static str; 4],
        read: bool,
    ) -> Option<Located<Zeroizing<Vec<u8>>>> {
        let [credential_key, file_key, env_key, inline_key] = keys;
        let shown = table.shown();
        let credential = table.text(credential_key, parse_id);
        let file = table.text(file_key, |text| parse_path(text, &self.source.directory));
        let env = table.text(env_key, parse_variable);
        let inline = table.text(inline_key, |text| Ok::<_, Infallible>(Zeroizing::new(text.to_owned())));
        let given: Vec<_> = keys.into_iter().filter(|key| table.has(key)).collect();
        let one_source = given.len() == 1 || given == [credential_key, file_key];
        if !one_source {
            let expected = format!("expected one of {}", keys.join(", "));
            let message = match given.len() {
                0 => format!("{shown} there is no source: {expected}"),
                _ => format!("{shown} there is more than one source ({}); {expected}", given.join(", ")),
            };
            self.document.problem(table.place(), message);
            return None;
        }
        let (place, bytes) = if let Some(inline) = inline {
            (inline.place, self.inline_allowed().map(|()| Zeroizing::new(inline.value.as_bytes().to_vec())))
        } else if !read {
            return None;
        } else if let Some(env) = env {
            let value = (self.around.env)(&env.value).filter(|value| !value.is_empty());
            let value = value.map(|value| Zeroizing::new(value.into_bytes()));
            (env.place, value.ok_or(SecretError::NoVariable(env.value)))
        } else if let Some(file) = &file
            && (credential.is_none() || self.credentials_directory().is_none())
        {
            (file.place.clone(), self.read_file(&file.value))
        } else if let Some(credential) = credential {
            (credential.place, self.read_credential(&credential.value))
        } else {
            return None;
        };
        match bytes {
            Ok(value) => Some(Located { value, place }),
            Err(problem) => {
                self.document.problem(place, format!("{shown} {problem}"));
                None
            }
        }
    }

    fn inline_allowed(&self) -> Result<(), SecretError> {
        let forbidden = if self.document.secret_readers() == Readers::Everybody { 0o002 } else { 0o006 };
        match self.source.mode {
            Some(mode) if mode & forbidden != 0 => Err(SecretError::Inline(self.source.name.clone(), mode & 0o7777)),
            _ => Ok(()),
        }
    }

    fn read_credential(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let directory = self.credentials_directory().ok_or_else(|| SecretError::NoCredentials(name.to_owned()))?;
        self.read_file(&directory.join(name))
    }

    fn read_file(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        self.document.note_secret_file(path);
        read_private_file(path, self.credentials_directory().as_deref(), self.document.secret_readers())
    }

    fn credentials_directory(&self) -> Option<PathBuf> {
        (self.around.env)("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty()).map(PathBuf::from)
    }
}

/// The key that others write in base64, as JSON Web Keys do or with padding; at most this much more than its algorithm takes.
fn token_key_bytes(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(text.trim_ascii()).ok();
    decode(&alphabet::STANDARD).or_else(|| decode(&alphabet::URL_SAFE)).map(Zeroizing::new)
}

/// A moment in UTC such as `2026-11-30T12:00:00Z`, in Unix seconds.
pub(super) fn parse_moment(text: &str) -> Result<u64, ValueError> {
    let wrong = || ValueError::is_not(text, "a moment");
    let moment: Datetime = text.parse().map_err(|_| wrong())?;
    let (Some(date), Some(time), Some(Offset::Z)) = (moment.date, moment.time, moment.offset) else {
        return Err(wrong());
    };
    let days = days_from_epoch(date.year.into(), date.month.into(), date.day.into()).ok_or_else(wrong)?;
    let seconds = u64::from(time.second.unwrap_or(0)).min(59);
    Ok(days * 86_400 + u64::from(time.hour) * 3600 + u64::from(time.minute) * 60 + seconds)
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn days_from_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let of_years: u64 = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum();
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let of_months: u64 = lengths.iter().take(usize::try_from(month.checked_sub(1)?).ok()?).sum();
    (year >= 1970).then_some(of_years + of_months + day.checked_sub(1)?)
}

fn parse_server_name(text: &str) -> Result<String, ValueError> {
    match text.len() {
        1..=SERVER_NAME_BYTES_MAX if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err(ValueError::is_not(text, "such a name")),
    }
}

fn parse_id(text: &str) -> Result<String, ValueError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) || text.starts_with('.') {
        return Err(ValueError::is_not(text, "such a name"));
    }
    Ok(text.to_owned())
}

/// A key's id is what clients have as USERNAME.
fn parse_key_id(text: &str) -> Result<String, ValueError> {
    match text.len() {
        1..=KEY_ID_BYTES_MAX if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err(ValueError::is_not(text, "such a name")),
    }
}

fn parse_variable(text: &str) -> Result<String, ValueError> {
    if text.is_empty() || text.contains(['=', '\0']) {
        return Err(ValueError::is_not(text, "a name"));
    }
    Ok(text.to_owned())
}
