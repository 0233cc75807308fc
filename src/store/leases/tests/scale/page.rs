//! What `docs/scale.md` has of the simulation, as it is to be.

use std::fmt::Write as _;
use std::path::Path;

use super::plan::{CALL_MICROS, DIE, FLEET, FORGET, LOSE, Most, RETURN, SHARDS, START, TIMES};
use super::spread::BeforeAndAfter;
use super::world::Second;

const BEGIN: &str = "<!-- by the simulation -->\n";
const END: &str = "<!-- end -->\n";

/// Each table of the page, in its order.
pub(super) fn tables(
    fleet: &[Second],
    fixed: &[Second],
    greed: &[Most; 3],
    spreads: &[BeforeAndAfter; 3],
) -> Vec<String> {
    vec![of_a_node(), of_spreads(spreads), of_store(fleet, fixed), of_greed(greed)]
}

fn table(head: [&str; 2], rows: &[(String, String)]) -> String {
    let mut text = format!("| {} | {} |\n|---|---:|\n", head[0], head[1]);
    rows.iter().for_each(|(what, value)| writeln!(text, "| {what} | {value} |").unwrap());
    text
}

/// By what one allocation costs in `docs/benchmarks.md`.
fn of_a_node() -> String {
    let benchmarks = include_str!("../../../../../docs/benchmarks.md");
    let of = |case: &str, column: usize| -> f64 {
        let row = benchmarks.lines().find(|line| line.starts_with(&format!("| {case} | ")));
        row.and_then(|row| row.split(" | ").nth(column)).and_then(|value| value.trim().parse().ok()).unwrap()
    };
    let (up, down) =
        (of("client to peer, 160 B, 1000 allocations", 4), of("peer to client, 160 B, 1000 allocations", 4));
    let (setup, idle) = (of("401, Allocate, Refresh 0", 4), of("resident memory per idle allocation", 4));
    let allocations = 10_000.0;
    // A voice: 50 packets of 160 bytes a second each way, and 62 bytes of headers of IP, UDP, TURN and Ethernet.
    let cores = allocations * 50.0 * (up + down) / 1e6;
    let bits = allocations * 50.0 * 222.0 * 8.0;
    let new = allocations / 300.0;
    let rows = [
        ("resident memory of 10,000 allocations", format!("{:.0} MB", allocations * idle / 1000.0)),
        ("cores, if each carries a voice (50 packets of 160 B a second each way)", format!("{cores:.1}")),
        ("cores, if one in five does, and the others wait", format!("{:.1}", cores / 5.0)),
        ("bit rate of all voices with all headers, each way", format!("{:.1} Gbit/s", bits / 1e9)),
        ("cores for new allocations, if each lasts five minutes", format!("{:.4}", new * setup / 1e6)),
        ("calls of the store a second", number(calls_of_users(4_000))),
    ];
    table(["a server with 10,000 allocations", ""], &rows.map(|(what, value)| (what.to_owned(), value)))
}

/// One renewal each 20 seconds, one call when a user comes and one when he goes, after five minutes.
fn calls_of_users(users: u64) -> u64 {
    users / 20 + 2 * users / 300
}

fn of_spreads(spreads: &[BeforeAndAfter; 3]) -> String {
    let mut text = "| how clients find a server | busiest of 100 | busiest of all | of 100, a tenth is dead | of all, a tenth is dead |\n|---|---:|---:|---:|---:|\n".to_owned();
    let names = ["a list, each client by chance", "DNS, by resolvers that keep answers", "anycast, the nearest"];
    for (name, (before, after)) in names.iter().zip(spreads) {
        let percents = [before.percent_99, before.percent_most, after.percent_99, after.percent_most];
        let times = percents.map(|percent| format!("{}.{:02}", percent / 100, percent % 100));
        writeln!(text, "| {name} | {} |", times.join(" | ")).unwrap();
    }
    text
}

fn of_store(fleet: &[Second], fixed: &[Second]) -> String {
    let calls = |second: &Second| second.asked + second.kept;
    let sum = |seconds: &[Second], of: fn(&Second) -> u64| seconds.iter().map(of).sum::<u64>();
    let mean = |seconds: &[Second], of: fn(&Second) -> u64| sum(seconds, of) * TIMES / seconds.len() as u64;
    let usual = &fleet[..DIE];
    let whole = 10_000 * SHARDS as u64;
    let busy = (mean(usual, |second| second.asked + second.kept) * CALL_MICROS + whole / 2) / whole;
    let share = |part: u64, all: u64| format!("{} %", (part * 100 + all / 2) / all.max(1));
    let waits = |second: &Second| second.lost + second.late + second.without > 0;
    // Seconds until the last one in which somebody had to do without the store.
    let until = |seconds: &[Second]| seconds.iter().rposition(waits).map_or(0, |last| last + 1);
    let most_kept = usual.iter().map(|second| second.kept).max().unwrap_or_default();
    let herd = |seconds: &[Second]| seconds.iter().filter(|second| second.kept > most_kept * 5 / 4).count();
    let slowest = |seconds: &[Second]| seconds.iter().map(|second| second.slowest_micros / 1000).max().unwrap_or(0);
    let tried = |seconds: &[Second]| sum(seconds, |second| second.made + second.without + second.refused);
    let lost = &fleet[LOSE + 2..RETURN];
    let back = &fleet[RETURN..FORGET];
    let forgotten = &fleet[FORGET..];
    let died = &fleet[DIE..START];
    let rows = [
        ("calls a second, renewals and returns", number(mean(usual, |second| second.kept))),
        ("calls a second, for users who come", number(mean(usual, |second| second.asked))),
        ("servers that say that they are there, a second", number(mean(usual, |second| second.beats))),
        ("how busy eight shards are with it", format!("{busy} %")),
        (
            "the most calls sent in a second; those that are more than the shards can do wait",
            number(fleet.iter().map(calls).max().unwrap_or_default() * TIMES),
        ),
        ("users in the store", number(FLEET.users as u64 * TIMES)),
        ("memory in the store", format!("{} MB", FLEET.users as u64 * TIMES * 152 / 1_000_000)),
        ("**a tenth of the servers dies**: the most calls for users who come, a second", {
            number(died.iter().map(|second| second.asked).max().unwrap_or_default() * TIMES)
        }),
        (
            "Allocates that did not get an answer of the store in time then",
            number(sum(died, |second| second.late) * TIMES),
        ),
        ("**the store is lost for 30 seconds**: of new allocations, made", {
            share(sum(lost, |second| second.made + second.without), tried(lost))
        }),
        ("seconds after its return until no Allocate has to do without it", until(back).to_string()),
        ("seconds in which renewals are a quarter above the usual", herd(back).to_string()),
        ("the longest that a call waits for its answer then", format!("{} ms", slowest(back))),
        ("calls that come to nothing then", number(sum(back, |second| second.failed) * TIMES)),
        (
            "**the store forgets everything**: seconds until no Allocate has to do without it",
            until(forgotten).to_string(),
        ),
        ("the longest that a call waits then", format!("{} ms", slowest(forgotten))),
        ("**without these two, as it was at first**: calls that come to nothing in the minute after a return", {
            number(sum(fixed, |second| second.failed) * TIMES)
        }),
        (
            "of that minute, seconds in which a server cannot ask",
            fixed.iter().filter(|second| second.lost > 0).count().to_string(),
        ),
    ];
    table(
        ["1,000 servers, 10,000,000 allocations, eight shards", ""],
        &rows.map(|(what, value)| (what.to_owned(), value)),
    )
}

fn of_greed(greed: &[Most; 3]) -> String {
    let mut text =
        "| `on-loss` | usually | 10 servers of 100 cut off | the store has forgotten |\n|---|---:|---:|---:|\n"
            .to_owned();
    for (name, most) in ["refuse", "local-share", "allow"].iter().zip(greed) {
        writeln!(text, "| `\"{name}\"` | {} | {} | {} |", most.usual, most.cut_off, most.forgotten).unwrap();
    }
    text.push_str("| promised | 20 | 220 | 40 |\n");
    text
}

/// Two digits that count, with commas.
fn number(value: u64) -> String {
    let mut unit = 1;
    while value / unit >= 100 {
        unit *= 10;
    }
    let digits = ((value + unit / 2) / unit * unit).to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The page has these tables between its marks, and the picture beside it is this one.
pub(super) fn compare(tables: &[String], picture: &str) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let (page, plot) = (docs.join("scale.md"), docs.join("scale.svg"));
    let text = std::fs::read_to_string(&page).unwrap();
    let mut parts = text.split(BEGIN);
    let mut written = parts.next().unwrap_or_default().to_owned();
    let mut count = 0;
    for (part, table) in parts.zip(tables) {
        let (_, rest) = part.split_once(END).unwrap_or_else(|| panic!("a mark of docs/scale.md has no end"));
        write!(written, "{BEGIN}{table}{END}{rest}").unwrap();
        count += 1;
    }
    assert_eq!(count, tables.len(), "docs/scale.md lacks a place for a table");
    if std::env::var_os("TURNSTONE_WRITE_REFERENCE").is_some() {
        std::fs::write(page, written).unwrap();
        std::fs::write(plot, picture).unwrap();
        return;
    }
    let how = "docs/scale.md is not what the simulation says: TURNSTONE_WRITE_REFERENCE=1 cargo test --lib scale";
    assert!(written == text && std::fs::read_to_string(plot).is_ok_and(|there| there == picture), "{how}\n{written}");
}
