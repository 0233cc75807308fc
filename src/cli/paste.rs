//! What programs that make time-limited credentials themselves want in their configuration: the URLs and the shared secret.

use super::output::CliError;

/// Such a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Synapse,
    Nextcloud,
    Prosody,
    Jitsi,
    Ejabberd,
    Livekit,
}

/// A URL of ours, taken apart.
struct Server<'u> {
    is_tls: bool,
    host: &'u str,
    port: &'u str,
    transport: &'u str,
}

/// The lines to paste, comments included. They have the secret in them.
pub(super) fn lines(program: Program, urls: &[String], secret: &[u8], ttl_secs: u64) -> Result<String, CliError> {
    let secret = std::str::from_utf8(secret).ok().filter(|text| !text.chars().any(char::is_control));
    let secret = secret.ok_or_else(|| {
        CliError::usage(
            "the secret is no text, and cannot be written into a configuration; make one with: openssl rand -hex 32",
        )
    })?;
    let servers: Vec<_> = urls.iter().filter_map(|url| Server::of(url)).collect();
    if servers.is_empty() {
        return Err(CliError::usage(
            "no URL of TURN leads into the realm as far as the configuration tells; set public-host or urls, in [auth] or in its [[realm]]",
        ));
    }
    Ok(match program {
        Program::Synapse => synapse(urls, secret, ttl_secs),
        Program::Nextcloud => nextcloud(&servers, secret),
        Program::Prosody => prosody(&servers, secret, ttl_secs)?,
        Program::Jitsi => jitsi(&servers, secret, ttl_secs),
        Program::Ejabberd => ejabberd(&servers, secret, ttl_secs),
        Program::Livekit => livekit(&servers, secret, ttl_secs),
    })
}

impl<'u> Server<'u> {
    fn of(url: &'u str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let (authority, transport) = rest.split_once("?transport=")?;
        let (host, port) = authority.rsplit_once(':')?;
        Some(Self { is_tls: scheme == "turns", host, port, transport })
    }

    /// Nobody among them speaks DTLS.
    fn is_dtls(&self) -> bool {
        self.is_tls && self.transport == "udp"
    }

    /// The type of XEP-0215.
    fn kind(&self) -> &'static str {
        if self.is_tls { "turns" } else { "turn" }
    }

    /// The host without what it stands in for the sake of the colons of IPv6.
    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

fn synapse(urls: &[String], secret: &str, ttl_secs: u64) -> String {
    let urls: Vec<_> = urls.iter().map(|url| json_text(url)).collect();
    format!(
        "# homeserver.yaml\nturn_uris: [{}]\nturn_shared_secret: {}\nturn_user_lifetime: {ttl_secs}s\n",
        urls.join(", "),
        json_text(secret)
    )
}

fn nextcloud(servers: &[Server<'_>], secret: &str) -> String {
    let mut text = "# in Nextcloud's folder, as the user of its web server\n".to_owned();
    let mut done = Vec::new();
    for Server { is_tls, host, port, .. } in servers.iter().filter(|server| !server.is_dtls()) {
        let place = (*is_tls, *host, *port);
        if done.contains(&place) {
            continue;
        }
        done.push(place);
        let same = servers.iter().filter(|other| (other.is_tls, other.host, other.port) == place && !other.is_dtls());
        let mut protocols: Vec<_> = same.map(|server| server.transport).collect();
        // In the one order that it takes.
        protocols.sort_unstable_by(|one, other| other.cmp(one));
        protocols.dedup();
        let (scheme, protocols) = (if *is_tls { "turns" } else { "turn" }, protocols.join(","));
        let address = shell_text(&format!("{host}:{port}"));
        // It takes no IPv6 address there.
        if protocols.contains("udp") && !host.starts_with('[') {
            text += &format!("php occ talk:stun:add {address}\n");
        }
        text += &format!("php occ talk:turn:add --secret={} {scheme} {address} {protocols}\n", shell_text(secret));
    }
    text
}

fn prosody(servers: &[Server<'_>], secret: &str, ttl_secs: u64) -> Result<String, CliError> {
    let plain = servers.iter().find(|server| !server.is_tls);
    let plain = plain.ok_or_else(|| CliError::usage("Prosody wants a listener without TLS, and there is none"))?;
    let at = |server: &&Server<'_>| server.host == plain.host;
    let has_tcp = servers
        .iter()
        .any(|server| at(&server) && !server.is_tls && server.transport == "tcp" && server.port == plain.port);
    let tls = servers.iter().filter(at).find(|server| server.is_tls && !server.is_dtls());
    let mut text = format!(
        "-- prosody.cfg.lua, with \"turn_external\" in modules_enabled (Prosody 0.12 and later)\nturn_external_host = {}\n\
         turn_external_port = {}\nturn_external_secret = {}\nturn_external_ttl = {ttl_secs}\nturn_external_tcp = {has_tcp}\n",
        lua_text(plain.bare_host()),
        plain.port,
        lua_text(secret)
    );
    if let Some(tls) = tls {
        // turn_external_tls_port would announce it without a credential.
        let line = lua_service(tls, &lua_text(secret), ttl_secs);
        text += &format!("external_services = {{\n{line}}}\n");
    }
    Ok(text)
}

fn jitsi(servers: &[Server<'_>], secret: &str, ttl_secs: u64) -> String {
    let mut text = format!(
        "-- its Prosody's configuration, with \"external_services\" in modules_enabled\nexternal_service_secret = {}\n\
         external_services = {{\n",
        lua_text(secret)
    );
    for server in servers.iter().filter(|server| !server.is_dtls()) {
        if server.transport == "udp" {
            let (host, port) = (lua_text(server.bare_host()), server.port);
            text += &format!("    {{ type = \"stun\", host = {host}, port = {port}, transport = \"udp\" }},\n");
        }
        text += &lua_service(server, "true", ttl_secs);
    }
    text + "}\n"
}

/// A line of `external_services`. `secret` is a literal of Lua.
fn lua_service(server: &Server<'_>, secret: &str, ttl_secs: u64) -> String {
    let (kind, host) = (server.kind(), lua_text(server.bare_host()));
    format!(
        "    {{ type = \"{kind}\", host = {host}, port = {}, transport = \"{}\", secret = {secret}, ttl = {ttl_secs}, algorithm = \"turn\" }},\n",
        server.port, server.transport
    )
}

fn ejabberd(servers: &[Server<'_>], secret: &str, ttl_secs: u64) -> String {
    let mut text = format!(
        "# ejabberd.yml, among its modules\nmodules:\n  mod_stun_disco:\n    secret: {}\n    credentials_lifetime: {ttl_secs}s\n    \
         offer_local_services: false\n    services:\n",
        json_text(secret)
    );
    let service = |server: &Server<'_>, kind: &str, is_restricted: bool| {
        let (host, port, transport) = (json_text(server.bare_host()), server.port, server.transport);
        format!(
            "      - {{host: {host}, port: {port}, type: {kind}, transport: {transport}, restricted: {is_restricted}}}\n"
        )
    };
    for server in servers.iter().filter(|server| !server.is_dtls()) {
        if server.transport == "udp" {
            text += &service(server, "stun", false);
        }
        text += &service(server, server.kind(), true);
    }
    text
}

fn livekit(servers: &[Server<'_>], secret: &str, ttl_secs: u64) -> String {
    let mut text = "# config.yaml\nrtc:\n  turn_servers:\n".to_owned();
    for server in servers.iter().filter(|server| !server.is_dtls()) {
        let protocol = if server.is_tls { "tls" } else { server.transport };
        text += &format!(
            "    - host: {}\n      port: {}\n      protocol: {protocol}\n      secret: {}\n      ttl: {ttl_secs}\n",
            json_text(server.host),
            server.port,
            json_text(secret)
        );
    }
    text
}

/// In YAML, a text of JSON is one.
fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn lua_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The value of a variable. What needs no quotes has none: a shell takes them away, but not everybody who reads a file of variables.
pub(super) fn env_text(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+,-./:=?@[]_".contains(&byte);
    if text.bytes().all(is_plain) { text.to_owned() } else { shell_text(text) }
}

/// One word of a shell, whatever is in it.
pub(super) fn shell_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pasted(program: Program, secret: &str) -> String {
        let urls = [
            "turn:turn.example.org:3478?transport=udp",
            "turn:turn.example.org:3478?transport=tcp",
            "turns:turn.example.org:443?transport=tcp",
            "turns:turn.example.org:443?transport=udp",
        ];
        lines(program, &urls.map(str::to_owned), secret.as_bytes(), 3600).unwrap()
    }

    #[test]
    fn each_program_gets_the_servers_that_it_can_use() {
        assert_eq!(
            pasted(Program::Nextcloud, "s"),
            "# in Nextcloud's folder, as the user of its web server\nphp occ talk:stun:add 'turn.example.org:3478'\n\
             php occ talk:turn:add --secret='s' turn 'turn.example.org:3478' udp,tcp\n\
             php occ talk:turn:add --secret='s' turns 'turn.example.org:443' tcp\n"
        );
        let livekit = pasted(Program::Livekit, "s");
        assert_eq!(livekit.matches("protocol: ").count(), 3, "{livekit}");
        assert!(livekit.contains("port: 443\n      protocol: tls\n"), "{livekit}");
        let prosody = pasted(Program::Prosody, "s");
        let turns = "{ type = \"turns\", host = \"turn.example.org\", port = 443, transport = \"tcp\", secret = \"s\", ttl = 3600, \
                     algorithm = \"turn\" },";
        assert!(
            prosody.ends_with(&format!("turn_external_tcp = true\nexternal_services = {{\n    {turns}\n}}\n")),
            "{prosody}"
        );
        let jitsi = pasted(Program::Jitsi, "s");
        assert!(
            jitsi.contains(&turns.replace("\"s\"", "true")) && jitsi.matches("secret = true").count() == 3,
            "{jitsi}"
        );
        let ejabberd = pasted(Program::Ejabberd, "s");
        assert!(
            ejabberd.contains("{host: \"turn.example.org\", port: 443, type: turns, transport: tcp, restricted: true}"),
            "{ejabberd}"
        );
        assert_eq!(ejabberd.matches("restricted: true").count(), 3, "{ejabberd}");
        assert_eq!(pasted(Program::Synapse, "s").matches("turns:").count(), 2);
    }

    #[test]
    fn listeners_in_any_order_make_what_each_takes() {
        let urls =
            ["turn:[2001:db8::1]:3478?transport=tcp", "turn:[2001:db8::1]:3478?transport=udp"].map(str::to_owned);
        let of = |program| lines(program, &urls, b"s", 60).unwrap();
        let nextcloud = of(Program::Nextcloud);
        assert!(
            nextcloud.ends_with(" turn '[2001:db8::1]:3478' udp,tcp\n") && !nextcloud.contains("stun"),
            "{nextcloud}"
        );
        assert!(of(Program::Livekit).contains("host: \"[2001:db8::1]\"\n"), "it makes a URL of that");
        for program in [Program::Prosody, Program::Jitsi, Program::Ejabberd] {
            assert!(of(program).contains("\"2001:db8::1\""), "{program:?}");
        }
    }

    #[test]
    fn a_variable_has_quotes_only_where_a_shell_needs_them() {
        let credential = "turn:[2001:db8::1]:3478?transport=udp,a+/b==";
        assert_eq!(env_text(credential), credential);
        for odd in ["a b", "~", "a:~b", "$HOME", "a;b", "a*", "it's", "\u{e9}", "a&b", "a#b"] {
            assert!(env_text(odd).starts_with('\''), "{odd}");
        }
    }

    #[test]
    fn a_secret_stays_what_it_is() {
        let odd = r#"it's "odd" \ #$`"#;
        assert!(pasted(Program::Nextcloud, odd).contains(r#"--secret='it'\''s "odd" \ #$`' turn"#));
        assert!(pasted(Program::Prosody, odd).contains(r#"turn_external_secret = "it's \"odd\" \\ #$`""#));
        assert!(pasted(Program::Synapse, odd).contains(r#"turn_shared_secret: "it's \"odd\" \\ #$`""#));
        assert!(pasted(Program::Jitsi, odd).contains(r#"external_service_secret = "it's \"odd\" \\ #$`""#));
        assert!(pasted(Program::Ejabberd, odd).contains(r#"secret: "it's \"odd\" \\ #$`""#));
        for bad in [&b"\xff\xfe"[..], b"two\nlines"] {
            assert!(lines(Program::Synapse, &["turn:a:1?transport=udp".to_owned()], bad, 1).is_err());
        }
        assert!(lines(Program::Synapse, &[], b"secret", 1).is_err());
    }
}
