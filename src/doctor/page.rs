//! The operator's page: where it is, who gets in, and whether the running server shows it there.

use std::time::Duration;

use crate::config::{Admin, Endpoint};
use crate::probe::{Status, Step};

use super::finding;
use super::health::{ask_as, read_status};

/// What the configuration says of it.
pub(crate) fn judge(admin: &Admin) -> Option<Step> {
    let listen = &admin.listen;
    let open = match listen {
        Endpoint::Tcp(address) => format!("ssh -L 9642:{address} HOST, then http://localhost:9642/"),
        Endpoint::Unix(path) => format!("ssh -L 9642:{} HOST, then http://localhost:9642/", path.display()),
    };
    let by_proxy = match &*admin.page_origins {
        [] => String::new(),
        origins => format!("; by a proxy at {}", origins.join(", ")),
    };
    let who = match admin.token {
        Some(_) => "it asks for the token of [admin]",
        None => {
            "it asks for no token: whoever may open the socket, or finds the port that ssh leads there, rules the server"
        }
    };
    admin.page.then(|| finding("page", Status::Ok, format!("at {listen} ({open}){by_proxy}; {who}")))
}

/// Whether the running server shows it, at each name that browsers know it by.
pub(super) fn judge_running(admin: &Admin, timeout: Duration) -> Vec<Step> {
    let is_found = !matches!(admin.listen, Endpoint::Tcp(address) if address.port() == 0);
    if !admin.page || !is_found {
        return Vec::new();
    }
    let hosts = admin.page_origins.iter().filter_map(|origin| origin.strip_prefix("https://"));
    let mut steps = Vec::new();
    for host in ["localhost"].into_iter().chain(hosts) {
        let listen = &admin.listen;
        let answer = ask_as(listen, host, "/", timeout);
        let (status, message) = match answer.as_deref().map(read_status) {
            Ok(Some((200, body))) if body.starts_with("<!doctype html>") => {
                (Status::Ok, format!("the running server shows the page as {host}"))
            }
            Ok(Some((code, _))) => {
                let message = format!(
                    "the running server does not show the page as {host}: {listen} says {code}; page and page-origins of [admin] take effect \
                     after a restart"
                );
                (Status::Fail, message)
            }
            Ok(None) => (Status::Fail, format!("{listen}: the answer is not HTTP; is it another program?")),
            Err(error) => (Status::Fail, format!("the page at {listen} cannot be reached: {error}")),
        };
        let is_ok = status == Status::Ok;
        steps.push(finding("page", status, message));
        if !is_ok {
            break;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    #[test]
    fn what_is_said_names_the_way_there_and_who_gets_in() {
        let said = |admin: &str| {
            let config = config(&format!("[relay]\nipv4 = \"5.44.1.1\"\n[admin]\n{admin}\n"));
            judge(config.admin.as_ref().unwrap()).map(|step| step.message)
        };
        assert_eq!(said("listen = \"unix:/run/turnstone/admin.sock\""), None);
        let open = said("listen = \"unix:/run/turnstone/admin.sock\"\npage = true").unwrap();
        assert!(open.contains("ssh -L 9642:/run/turnstone/admin.sock HOST") && open.contains("no token"), "{open}");
        let token = "token = \"0123456789abcdef0123456789abcdef\"";
        let behind =
            format!("listen = \"127.0.0.1:9642\"\n{token}\npage = true\npage-origins = \"https://ops.example.org\"");
        let behind = said(&behind).unwrap();
        assert!(behind.contains("by a proxy at https://ops.example.org; it asks for the token"), "{behind}");
    }
}
