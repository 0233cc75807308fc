//! What programs that make time-limited credentials themselves want in their configuration: the URLs and the shared secret.

use super::output::CliError;

/// Such a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Synapse,
    Nextcloud,
    Prosody,
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
        let protocols: Vec<_> = same.map(|server| server.transport).collect();
        let (scheme, protocols) = (if *is_tls { "turns" } else { "turn" }, protocols.join(","));
        if protocols.contains("udp") {
            text += &format!("php occ talk:stun:add {host}:{port}\n");
        }
        text += &format!("php occ talk:turn:add --secret={} {scheme} {host}:{port} {protocols}\n", shell_text(secret));
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
        lua_text(plain.host),
        plain.port,
        lua_text(secret)
    );
    if let Some(tls) = tls {
        text += &format!("turn_external_tls_port = {}\n", tls.port);
    }
    Ok(text)
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
            "# in Nextcloud's folder, as the user of its web server\nphp occ talk:stun:add turn.example.org:3478\n\
             php occ talk:turn:add --secret='s' turn turn.example.org:3478 udp,tcp\n\
             php occ talk:turn:add --secret='s' turns turn.example.org:443 tcp\n"
        );
        let livekit = pasted(Program::Livekit, "s");
        assert_eq!(livekit.matches("protocol: ").count(), 3, "{livekit}");
        assert!(livekit.contains("port: 443\n      protocol: tls\n"), "{livekit}");
        let prosody = pasted(Program::Prosody, "s");
        assert!(prosody.contains("turn_external_tcp = true\nturn_external_tls_port = 443\n"), "{prosody}");
        assert_eq!(pasted(Program::Synapse, "s").matches("turns:").count(), 2);
    }

    #[test]
    fn a_secret_stays_what_it_is() {
        let odd = r#"it's "odd" \ #$`"#;
        assert!(pasted(Program::Nextcloud, odd).contains(r#"--secret='it'\''s "odd" \ #$`' turn"#));
        assert!(pasted(Program::Prosody, odd).contains(r#"turn_external_secret = "it's \"odd\" \\ #$`""#));
        assert!(pasted(Program::Synapse, odd).contains(r#"turn_shared_secret: "it's \"odd\" \\ #$`""#));
        for bad in [&b"\xff\xfe"[..], b"two\nlines"] {
            assert!(lines(Program::Synapse, &["turn:a:1?transport=udp".to_owned()], bad, 1).is_err());
        }
        assert!(lines(Program::Synapse, &[], b"secret", 1).is_err());
    }
}
