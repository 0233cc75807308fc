//! Each page, and what its reader has before he types what is on it.

use crate::blocks::{Block, blocks_of, in_the_text, pages};
use crate::typed::{Reader, outside};

/// Whoever comes from coturn has one that runs.
const COTURN: &str = "rm -f imported.toml; systemctl disable --now turnstone; \
                      printf '%s\\n' use-auth-secret static-auth-secret=0123456789abcdef0123456789abcdef realm=example.org >/etc/turnserver.conf; \
                      systemctl enable --now coturn";

/// What is in the text of a page, and cannot be typed as it stands there.
const NOT_AS_IT_STANDS: [(&str, &str); 12] = [
    ("turnstone serve --dev", "goes on; README's block has it"),
    ("turnstone bench --forwarder", "wants a server; benches/compare types it"),
    ("turnstone drain --deadline 1h --wait", "ends the server"),
    (
        "turnstone import --args -- -n --realm=example.org --use-auth-secret",
        "wants a file for its result; tests/import types it",
    ),
    ("turnstone credentials --format", "wants the name of a program, which others on the page have"),
    ("turnstone credentials token", "a name alone"),
    ("turnstone credentials hash", "a name alone"),
    ("turnstone credentials verify", "a name alone"),
    ("turnstone probe -", "wants what is pasted"),
    ("turnstone status --all", "wants a fleet; the block of docs/fleet.md has one"),
    ("turnstone explain alice --all", "wants a fleet, too"),
    ("turnstone store status", "wants a store; tests/store types it"),
];

#[test]
fn what_the_pages_show_for_typing_does_what_they_say() {
    let Some(mut reader) = Reader::at_a_fresh_machine() else { return };
    let mut pages = pages();
    let (name, text) = pages.remove(0);
    let readme = blocks_of(&name, &text).unwrap();
    // What README's block does not open in the firewall stays closed, though somebody listens there.
    reader.must(
        "python3 -m http.server 3478 >/dev/null 2>&1 & echo $! >/tmp/pid; \
         curl -s --retry 50 --retry-delay 1 --retry-connrefused --output /dev/null http://127.0.0.1:3478/",
    );
    let reached = reader.shell(&outside("curl -s --max-time 1 http://turn.example.org:3478/"));
    assert_eq!(reached.code, Some(28), "{}", reached.all_output());
    reader.must("kill $(cat /tmp/pid)");

    let production = readme.iter().position(|block| block.commands[0].text.contains("systemd/install.sh"));
    let (until_production, more) = readme.split_at(production.expect("README has a block for production") + 1);
    let mut wrong = types(&reader, until_production);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Each page begins with what README's block has made.
    reader.must("cp -a /etc/turnstone /etc/turnstone-of-readme");
    wrong.extend(types_text(&reader, &name, &text));
    wrong.extend(types(&reader, more));
    for (name, text) in pages {
        let blocks = blocks_of(&name, &text).unwrap();
        reader
            .must("rm -rf /etc/turnstone; cp -a /etc/turnstone-of-readme /etc/turnstone; systemctl restart turnstone");
        has_beforehand(&mut reader, &name);
        wrong.extend(types(&reader, &blocks));
        if name == "docs/tls-and-realms.md" {
            // "As a whole file", with the certificates and the secret that its commands have made.
            let file = text.rsplit("```toml\n").next().and_then(|rest| rest.split("\n```").next()).unwrap();
            reader.must(&format!(
                "cat >/etc/turnstone/turnserver.toml <<'END'\n{file}\nEND\nturnstone check; systemctl restart turnstone"
            ));
        }
        if name != "docs/reference.md" {
            wrong.extend(types_text(&reader, &name, &text));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Types blocks, those that are about another server than README's with that one in its place.
fn types(reader: &Reader, blocks: &[Block]) -> Vec<String> {
    let mut wrong = Vec::new();
    for block in blocks {
        let is_about = |what: &str| block.commands.iter().any(|command| command.text.contains(what));
        if is_about("turnstone import ") {
            reader.must(COTURN);
        } else if is_about("docker run ") {
            reader.must("systemctl stop turnstone");
        }
        wrong.extend(reader.types(block).err());
    }
    wrong
}

/// Types the commands in the text of a page; those that fail.
fn types_text(reader: &Reader, page: &str, text: &str) -> Vec<String> {
    let commands = in_the_text(text);
    let typed = commands.iter().filter(|command| NOT_AS_IT_STANDS.iter().all(|(not, _)| not != command));
    let failed = typed.filter_map(|command| {
        let finished = reader.shell(&reader.with_own(command));
        let code = finished.code;
        (code != Some(0))
            .then(|| format!("{page}: {command}\nends with {code:?} and prints\n{}", finished.all_output()))
    });
    failed.collect()
}

/// What a page takes for granted, beyond a server as README sets it up.
fn has_beforehand(reader: &mut Reader, page: &str) {
    let api = "printf '[credentials]\\nlisten = \"0.0.0.0:8443\"\\n' >>/etc/turnstone/turnserver.toml; \
               turnstone credentials key --id backend >/tmp/key; (umask 077; sed -n '/^tsk_/p' /tmp/key >key); \
               sed -n '/^\\[\\[credentials.keys/,$p' /tmp/key >>/etc/turnstone/turnserver.toml; \
               ufw allow 8443/tcp; systemctl restart turnstone";
    match page {
        "docs/credentials.md" => {
            let limits = "sed -i 's/^\\[auth\\]/&\\nusername-limits = true/' /etc/turnstone/turnserver.toml; \
                          printf '[[peers.policy]]\\nname = \"sfu\"\\nmode = \"sfu\"\\nallowed = [\"10.1.2.20 override\"]\\n' >>/etc/turnstone/turnserver.toml";
            reader.must(&format!("{limits}; {api}; openssl rand -hex 16 >auth-token"));
            let key = reader.must("cat key");
            reader.replaces("tsk_...", key.trim());
        }
        "docs/deploy.md" => {
            reader.must("nft -f /etc/nftables.conf");
        }
        "docs/tls-and-realms.md" => {
            // The page before has put rules of nftables in the place of ufw's.
            reader.must("ufw disable; ufw --force enable");
        }
        "docs/probe.md" => {
            reader.must(api);
        }
        _ => {}
    }
}
