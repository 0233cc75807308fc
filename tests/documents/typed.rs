//! Types what the pages show, in a machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::blocks::{Block, Run, Typed, is_like};
use crate::support::machine::{Machine, Plan};
use crate::support::{Finished, require_tool, run};

/// The longest of them installs everything.
const LIMIT: Duration = Duration::from_secs(60);

/// Whoever reads the pages, at a machine.
pub(crate) struct Reader {
    machine: Machine,
    /// What is put in place of what a page leaves to its reader.
    own: Vec<(String, String)>,
}

impl Reader {
    /// At a machine on which nothing has been done yet; `None`, with a message, where there cannot be one.
    pub(crate) fn at_a_fresh_machine() -> Option<Reader> {
        for tool in ["pebble", "nginx", "ufw", "crun"] {
            require_tool(tool, tool);
        }
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let all = std::fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path());
        let is_source = |path: &PathBuf| !["target", ".git", "fuzz"].iter().any(|name| path.ends_with(name));
        let files: Vec<PathBuf> = all.filter(is_source).chain([env!("CARGO_BIN_EXE_turnstone").into()]).collect();
        let machine = Machine::start(&Plan {
            root: Path::new("/"),
            wrapper: &["unshare", "--net"],
            setup: include_str!("machine.sh"),
            files: &files.iter().map(PathBuf::as_path).collect::<Vec<_>>(),
        })?;
        // README: "Change the first two lines". The name stays.
        Some(Reader { machine, own: vec![("203.0.113.5 ".to_owned(), "5.44.9.1 ".to_owned())] })
    }

    /// From now on, this is typed in place of that.
    pub(crate) fn replaces(&mut self, from: &str, to: &str) {
        self.own.push((from.to_owned(), to.to_owned()));
    }

    /// Types a block, to its end or to its first command that fails, which is the error.
    pub(crate) fn types(&self, block: &Block) -> Result<(), String> {
        let began = Instant::now();
        for (number, command) in block.commands.iter().enumerate() {
            match &block.run {
                Run::Not(_) => return Ok(()),
                Run::Until(text) if number + 1 == block.commands.len() => self.types_until(block, command, text)?,
                Run::Here | Run::Outside | Run::Until(_) => self.types_one(block, command)?,
            }
        }
        println!("{} took {:?}", block.place, began.elapsed());
        Ok(())
    }

    fn types_one(&self, block: &Block, command: &Typed) -> Result<(), String> {
        let text = self.with_own(&command.text);
        let text = if block.run == Run::Outside { outside(&text) } else { text };
        let finished = self.shell(&text);
        if finished.code == Some(0) && is_like(&command.shown, &finished.all_output()) {
            return Ok(());
        }
        let log: Vec<_> = self.machine.log().lines().map(str::to_owned).collect();
        let log = log[log.len().saturating_sub(20)..].join(
            "
",
        );
        let (place, code, said, shown) = (&block.place, finished.code, finished.all_output(), command.shown.join("\n"));
        Err(format!(
            "{place}: {text}\nends with {code:?} and prints\n{said}\nin place of\n{shown}\nwhere the log is\n{log}"
        ))
    }

    /// Ctrl-C once it has printed `until`.
    fn types_until(&self, block: &Block, command: &Typed, until: &str) -> Result<(), String> {
        let text = self.with_own(&command.text);
        let script = format!(
            "set -m +e; ({text}) >/tmp/output 2>&1 & \
             for i in $(seq 300); do grep -qF -- {0} /tmp/output && break; kill -0 $! || break; sleep 0.1; done; \
             kill -INT -- -$!; wait $!; status=$?; cat /tmp/output; grep -qF -- {0} /tmp/output && exit $status",
            quoted(until)
        );
        let finished = self.shell(&script);
        match finished.code {
            Some(0) => Ok(()),
            code => Err(format!("{}: {text}\nends with {code:?} and prints\n{}", block.place, finished.all_output())),
        }
    }

    /// With what the reader has in its place.
    pub(crate) fn with_own(&self, text: &str) -> String {
        self.own.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// Runs a script there, in the folder of the repository; it must succeed.
    pub(crate) fn must(&self, script: &str) -> String {
        let finished = self.shell(script);
        assert_eq!(finished.code, Some(0), "{script}: {}", finished.all_output());
        finished.stdout
    }

    /// Runs a script there, in the folder of the repository.
    pub(crate) fn shell(&self, script: &str) -> Finished {
        let settings = ["HOME=/root", "USER=root", "LANG=C.UTF-8"];
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut command = self.machine.command(&["env", "-i", "--chdir=/run/source"]);
        command.args(settings).args([path, "bash", "-o", "pipefail", "-e", "-c", script]);
        run(&mut command, LIMIT)
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The same, typed on the host outside.
pub(crate) fn outside(script: &str) -> String {
    format!("ip netns exec outside bash -o pipefail -e -c {}", quoted(script))
}
