//! Each page, and what its reader has before he types what is on it.

use crate::blocks::{Block, Run, blocks_of, pages};
use crate::typed::{Reader, outside};

/// Whoever comes from coturn has one that runs.
const COTURN: &str = "rm -f imported.toml; systemctl disable --now turnstone; \
                      printf '%s\\n' use-auth-secret static-auth-secret=0123456789abcdef0123456789abcdef realm=example.org >/etc/turnserver.conf; \
                      systemctl enable --now coturn";

fn blocks_for_typing() -> Vec<(String, Vec<Block>)> {
    pages().into_iter().map(|(name, text)| (name.clone(), blocks_of(&name, &text).unwrap())).collect()
}

#[test]
fn what_the_pages_show_for_typing_does_what_they_say() {
    let Some(mut reader) = Reader::at_a_fresh_machine() else { return };
    let mut pages = blocks_for_typing();
    let (_, readme) = pages.remove(0);
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
    wrong.extend(types(&reader, more));
    for (name, blocks) in pages {
        if blocks.iter().any(|block| !matches!(block.run, Run::Not(_))) {
            reader.must(
                "rm -rf /etc/turnstone; cp -a /etc/turnstone-of-readme /etc/turnstone; systemctl restart turnstone",
            );
            has_beforehand(&mut reader, &name);
            wrong.extend(types(&reader, &blocks));
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

/// What a page takes for granted, beyond a server as README sets it up.
fn has_beforehand(reader: &mut Reader, page: &str) {
    let api = "printf '[credentials]\\nlisten = \"0.0.0.0:8443\"\\n' >>/etc/turnstone/turnserver.toml; \
               turnstone credentials key --id backend >/tmp/key; (umask 077; sed -n '/^tsk_/p' /tmp/key >key); \
               sed -n '/^\\[\\[credentials.keys/,$p' /tmp/key >>/etc/turnstone/turnserver.toml; \
               ufw allow 8443/tcp; systemctl restart turnstone";
    match page {
        "docs/credentials.md" => {
            reader.must(&format!("{api}; openssl rand -hex 16 >auth-token"));
            let key = reader.must("cat key");
            reader.replaces("tsk_...", key.trim());
        }
        "docs/deploy.md" => {
            reader.must("nft -f /etc/nftables.conf");
        }
        "docs/probe.md" => {
            reader.must(api);
        }
        _ => {}
    }
}
