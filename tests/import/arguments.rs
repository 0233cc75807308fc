//! coturn's command line, as containers have it.

use turnstone::addr::Family;
use turnstone::import::{FindingKind, Grade, Spot, import_coturn};

use super::{Imported, judged};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn taken(file: &str, line: &str) -> Imported {
    judged(import_coturn(file, &words(line)), line)
}

#[test]
fn a_containers_command_line_comes_over() {
    let group = taken("", include_str!("fixtures/docker-args.txt"));
    let relay = group.config.relay.of(Family::V4).next().unwrap();
    assert_eq!((relay.external.to_string(), group.config.relay.ports), ("203.0.113.7".to_owned(), (49160, 49200)));
    assert_eq!(group.config.auth.realm, "example.org");
    assert_eq!(group.config.auth.secrets[0].bytes.as_slice(), b"0123456789abcdef0");
    assert_eq!(group.lost(), Vec::<&str>::new());
    assert_eq!(group.about("no-cli").spot, Some(Spot::Argument(9)));
    // It was in `ps` for everybody.
    let about = group.about("[[auth.secrets]]");
    assert_eq!((about.kind, about.grade), (FindingKind::Note, Grade::Security));
    assert!(!format!("{:?}", group.import.findings).contains("0123456789"));
}

#[test]
fn beside_a_file_the_command_line_counts() {
    let file = "realm=of.the.file\nlistening-port=3479\nstatic-auth-secret=0f1e2d3c4b5a69788796\n";
    let group = taken(file, "-c /etc/turnserver.conf -p 3480 --min-port 50000");
    assert_eq!(group.config.auth.realm, "of.the.file");
    assert_eq!(group.listeners()[0], "udp 0.0.0.0:3480");
    assert_eq!(group.config.relay.ports, (50000, 65535));
    assert!(group.lost().is_empty());
    assert!(taken("", "-c /etc/turnserver.conf --use-auth-secret").lost().contains(&"-c"));
    assert!(taken(file, "-n --no-cli").message("-n").contains("reads no file"));
}

#[test]
fn what_belongs_to_no_option_is_not_shown() {
    let group = taken(
        "",
        "--use-auth-secret hunter2hunter2 --static-auth-secret 0f1e2d3c4b5a6978 --hunter2hunter2 -w --user $(secret)",
    );
    let shown = format!("{:?}", group.import.findings);
    assert!(!shown.contains("hunter2"), "{shown}");
    let unknown: Vec<_> = group.import.findings.iter().filter(|finding| finding.kind == FindingKind::Unknown).collect();
    assert_eq!(unknown.len(), 3);
    assert_eq!(group.config.auth.secrets.len(), 1);
    assert_eq!(group.about("user").kind, FindingKind::Invalid);
}
