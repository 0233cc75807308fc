//! Some servers and a store, whatever becomes of either, of the clocks, and of what is on its way between them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::auth::IssuedBefore;
use crate::store::{Counts, KEPT_SECS, entry_of_line};

const NOW: u64 = 1_800_000_000;
const USERS: [&str; 3] = ["alice", "bob", "carol"];

fn revocation(user: &str, until_unix: u64) -> Revocation {
    Revocation { realm: None, whose: Revoked::User(user.into()), issued_before: None, until_unix }
}

fn new(run: &str) -> RevokedEntries {
    RevokedEntries::new(Arc::new(Revocations::default()), "turn.test", run)
}

/// Until when all of a user is revoked.
fn until(of: &RevokedEntries, user: &str) -> Option<u64> {
    until_by(of, user, false)
}

/// The same by one of the two terms.
fn until_by(of: &RevokedEntries, user: &str, is_issued: bool) -> Option<u64> {
    let stored = of.revocations.stored();
    let is_it =
        |found: &&Revocation| found.whose == Revoked::User(user.into()) && found.issued_before.is_some() == is_issued;
    stored.iter().find(is_it).map(|found| found.until_unix)
}

fn restored(run: &str, lines: &[String]) -> RevokedEntries {
    let mut entries = new(run);
    for line in lines {
        let (id, entry) = entry_of_line(line).unwrap().unwrap();
        entries.restore(&id, entry);
    }
    entries.put_in_force(NOW);
    entries
}

#[test]
fn a_shorter_revocation_takes_nothing_off_a_longer_one_of_the_same_or_another_server() {
    let (mut one, mut other) = (new("one"), new("other"));
    one.revoke(&revocation("alice", NOW + 900), Asker::Operator, NOW).unwrap();
    for (text, entry) in one.to_give() {
        assert_eq!(other.learn(text, Some(entry), NOW), Change::Revoked);
    }
    for of in [&mut one, &mut other] {
        assert_eq!(of.revoke(&revocation("alice", NOW + 15), Asker::Operator, NOW).unwrap().until_unix, NOW + 900);
        of.put_in_force(NOW);
        assert_eq!(until(of, "alice"), Some(NOW + 900));
    }
}

#[test]
fn what_is_revoked_again_and_again_is_one_entry_and_what_cannot_be_read_is_told() {
    let mut one = new("one");
    for n in 0..1000 {
        let issued_before = Some(IssuedBefore { unix: NOW + n, lifetime_secs: 60 });
        let revocation = Revocation { issued_before, ..revocation("alice", NOW + n + 360) };
        one.revoke(&revocation, Asker::Operator, NOW + n).unwrap();
    }
    assert_eq!((one.len(), one.revocations.len()), (1, 1));
    assert_eq!(one.revocations.stored()[0].issued_before, Some(IssuedBefore { unix: NOW + 999, lifetime_secs: 60 }));
    let stored: Entries = [("~ junk".to_owned(), None), ("other".to_owned(), Some(Entry::default()))].into();
    assert!(
        one.meet(stored, NOW, NOW) == one.to_give().is_empty() && one.problems()[0].starts_with("2 of what is revoked")
    );
    one.meet(Entries::new(), NOW, NOW);
    assert_eq!(one.problems(), [""; 0]);
}

#[test]
fn the_realm_of_an_entry_is_its_own_whichever_is_the_default() {
    let mut one = new("one");
    one.revoke(&revocation("kim", NOW + 900), Asker::Operator, NOW).unwrap();
    assert!(one.set_default_realm("b.example", NOW) && !one.set_default_realm("b.example", NOW));
    assert_eq!(one.undo(None, &Revoked::User("kim".into()), NOW), 0);
    let (lines, _) = one.lines();
    for of in [one, restored("two", &lines)] {
        let realms: Vec<_> = of.revocations.stored().into_iter().map(|found| found.realm).collect();
        assert!(realms == [Some(Arc::from("turn.test"))] || realms == [None], "{realms:?}");
    }
}

#[test]
fn the_operator_has_room_while_anything_is_over_or_of_the_credentials_api_and_it_gives_way_in_that_order() {
    let mut one = new("one");
    for n in 2..BELIEVED_MAX {
        one.revoke(&revocation(&n.to_string(), NOW + 900), Asker::Operator, NOW).unwrap();
    }
    one.revoke(&revocation("of api", NOW + 900), Asker::CredentialsApi, NOW).unwrap();
    one.revoke(&revocation("over", NOW + 60), Asker::Operator, NOW).unwrap();
    let now = NOW + 61;
    let mut more = |user: &str| {
        let revoked =
            one.revoke(&revocation(user, NOW + 900), Asker::Operator, now).map(|in_force| in_force.until_unix);
        (revoked, until(&one, "of api").is_some(), one.len())
    };
    assert_eq!(more("first"), (Ok(NOW + 900), true, BELIEVED_MAX));
    assert_eq!(more("second"), (Ok(NOW + 900), false, BELIEVED_MAX));
    assert_eq!(more("third"), (Err(TooManyRevocations), false, BELIEVED_MAX));
    assert_eq!(more("2"), (Ok(NOW + 900), false, BELIEVED_MAX), "which has an entry");
    let later = NOW + 900 + KEPT_SECS + 1;
    one.revocations.forget_what_is_over(later);
    one.revoke(&revocation("later", later + 60), Asker::Operator, later).unwrap();
    assert_eq!((one.len(), one.to_give().len(), one.recent_lines().len()), (1, 1, 1));
}

#[test]
fn the_credentials_api_has_room_by_realm_and_what_is_over_or_undone_makes_some() {
    let mut one = new("one");
    let of = |realm: &str, user: &str, secs| Revocation { realm: Some(realm.into()), ..revocation(user, NOW + secs) };
    let revoke = |one: &mut RevokedEntries, revocation: Revocation, now| {
        one.make_room_for_api(revocation.realm.as_ref(), &revocation.whose, now)?;
        one.revoke(&revocation, Asker::CredentialsApi, now).unwrap();
        Ok::<_, UsedUp>(())
    };
    for n in 0..OF_REALM_MAX {
        revoke(&mut one, of("a", &n.to_string(), if n < 10 { 60 } else { 900 }), NOW).unwrap();
    }
    assert_eq!(revoke(&mut one, of("a", "more", 900), NOW), Err(UsedUp::OfRealm));
    revoke(&mut one, of("a", "0", 60), NOW).unwrap();
    for n in OF_REALM_MAX..OF_API_MAX {
        revoke(&mut one, of("b", &n.to_string(), 900), NOW).unwrap();
    }
    assert_eq!(revoke(&mut one, of("c", "more", 900), NOW), Err(UsedUp::OfAll));
    one.revoke(&of("a", "more", 900), Asker::Operator, NOW).unwrap();
    // What is over makes room for all, and the store is told of what it has.
    one.given(&one.to_give(), &[], NOW);
    revoke(&mut one, of("c", "more", 900), NOW + 61).unwrap();
    assert_eq!((one.len(), one.to_let_go().len()), (OF_API_MAX + 2 - 10, 10));
    let gone = one.to_let_go();
    assert_eq!(one.learn(gone[0].0.clone(), Some(gone[0].1), NOW + 61), Change::Nothing, "it is on its way out");
    one.are_gone(&gone);
    assert!(one.to_let_go().is_empty());
    // So does what is undone, once the store has heard of that: else it would come back from there.
    for n in 0..9 {
        revoke(&mut one, of("b", &format!("more {n}"), 900), NOW + 61).unwrap();
    }
    assert_eq!(one.undo(Some("b"), &Revoked::User(OF_REALM_MAX.to_string().into()), NOW + 61), 1);
    assert_eq!(revoke(&mut one, of("c", "another", 900), NOW + 62), Err(UsedUp::OfAll));
    one.given(&one.to_give(), &[], NOW);
    assert_eq!(revoke(&mut one, of("c", "another", 900), NOW + 62), Err(UsedUp::OfAll), "looked for once a second");
    assert_eq!(revoke(&mut one, of("c", "another", 900), NOW + 63), Err(UsedUp::OfAll), "somebody may not have heard");
    revoke(&mut one, of("c", "another", 900), NOW + 61 + 61).unwrap();
    assert_eq!(one.len(), OF_API_MAX + 1);
}

#[test]
fn what_a_full_store_refuses_gets_the_room_of_what_is_worth_less_and_takes_nothing_out_of_force() {
    let (mut one, mut other) = (new("one"), new("other"));
    for (user, asker) in [
        ("api", Asker::CredentialsApi),
        ("undone", Asker::Operator),
        ("undone api", Asker::CredentialsApi),
        ("operator", Asker::Operator),
    ] {
        one.revoke(&revocation(user, NOW + 900), asker, NOW).unwrap();
    }
    for user in ["undone", "undone api"] {
        one.undo(None, &Revoked::User(user.into()), NOW);
    }
    for (text, entry) in one.to_give() {
        other.learn(text, Some(entry), NOW);
    }
    one.given(&one.to_give(), &[], NOW);
    for (n, asker) in [Asker::CredentialsApi, Asker::Operator, Asker::Operator, Asker::Operator].into_iter().enumerate()
    {
        one.revoke(&revocation(&format!("new {n}"), NOW + 900), asker, NOW).unwrap();
    }
    let given = one.to_give();
    let refused: Vec<_> = given.iter().map(|(text, _)| text.clone()).collect();
    one.given(&given, &refused, NOW);
    assert!(
        one.to_give().is_empty() && one.to_give_again(NOW).len() == 4 && one.refused_len() == 4 && !one.is_all_given()
    );
    let (way, _) = one.giving_way_to(&refused, NOW);
    assert_eq!(way.len(), 1, "what has just been undone stays, so that all hear of it: {way:?}");
    let (way, wanted) = one.giving_way_to(&refused, NOW + 61);
    let users = |of: &[(String, Entry)]| -> Vec<_> {
        of.iter().map(|(text, _)| text.split('"').nth(3).unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(users(&way), ["undone api", "undone", "api"]);
    assert_eq!(users(&wanted), ["new 1", "new 2", "new 3"]);
    for (text, was) in &way {
        for of in [&mut one, &mut other] {
            let is_out = of.has_given_way(text, was, NOW);
            assert_eq!(is_out, text.contains("undone"), "{text}");
        }
    }
    one.given(&wanted, &[], NOW);
    assert_eq!((one.refused_len(), other.refused_len(), other.len()), (2, 1, 2));
    for of in [&one, &other] {
        assert!(until(of, "api").is_some() && until(of, "operator").is_some() && until(of, "undone").is_none());
    }
    // Once it is over, it needs no room.
    one.given(&one.to_give_again(NOW + 901), &refused, NOW + 901);
    assert_eq!((one.refused_len(), one.is_all_given(), one.len()), (0, true, 2));
    // One that has changed since is given again.
    let (text, was) = other.entries.iter().map(|(text, known)| (text.clone(), known.entry)).next().unwrap();
    other.undo(None, &Revoked::User("api".into()), NOW);
    assert!(
        !other.has_given_way(&text, &was, NOW) && other.to_give_again(NOW).is_empty() && other.to_give().len() == 1
    );
}

#[test]
fn behind_many_of_applications_what_the_operator_revokes_and_undoes_gets_room() {
    let mut one = new("one");
    let refuse = |one: &mut RevokedEntries| {
        let given = one.to_give();
        let texts: Vec<_> = given.iter().map(|(text, _)| text.clone()).collect();
        one.given(&given, &texts, NOW);
        given
    };
    for user in ["sent 1", "sent 2", "pushed out"] {
        one.revoke(&revocation(user, NOW + 900), Asker::CredentialsApi, NOW).unwrap();
    }
    let sent = one.to_give();
    one.given(&sent, &[], NOW);
    let pushed_out = sent.iter().find(|(text, _)| text.contains("pushed out")).unwrap();
    assert!(!one.has_given_way(&pushed_out.0, &pushed_out.1, NOW));
    for n in 0..150 {
        one.revoke(&revocation(&format!("a {n}"), NOW + 900), Asker::CredentialsApi, NOW).unwrap();
    }
    one.revoke(&revocation("zoe", NOW + 900), Asker::Operator, NOW).unwrap();
    refuse(&mut one);
    one.undo(None, &Revoked::User("pushed out".into()), NOW);
    assert_eq!(refuse(&mut one).len(), 1, "it is given once, if the store has it");
    let first: Vec<_> = one.to_give_again(NOW).into_iter().take(2).collect();
    assert!(["zoe", "pushed out"].iter().all(|user| first.iter().any(|(text, _)| text.contains(user))), "{first:?}");
    let (way, wanted) = one.giving_way_to_all(NOW);
    assert!(way.len() == 2 && way.iter().all(|(text, _)| text.contains("sent")), "{way:?}");
    assert_eq!(wanted, first);
    // What the store has after all takes what changes it.
    let (text, entry) = first.into_iter().find(|(text, _)| text.contains("pushed out")).unwrap();
    assert!(one.to_give().is_empty());
    one.learn(text.clone(), Some(pushed_out.1), NOW);
    assert_eq!(one.to_give(), [(text, entry)]);
}

#[test]
fn what_gave_way_and_is_revoked_again_is_not_undone_by_who_has_it_from_before() {
    let (mut one, mut other) = (new("one"), new("other"));
    one.revoke(&revocation("alice", NOW + 900), Asker::CredentialsApi, NOW).unwrap();
    one.undo(None, &Revoked::User("alice".into()), NOW);
    let before = one.to_give();
    one.given(&before, &[], NOW);
    other.learn(before[0].0.clone(), Some(before[0].1), NOW);
    assert!(one.has_given_way(&before[0].0, &before[0].1, NOW) && one.len() == 0);
    one.revoke(&revocation("alice", NOW + 900), Asker::CredentialsApi, NOW).unwrap();
    one.learn(before[0].0.clone(), Some(before[0].1), NOW);
    for (text, entry) in one.to_give() {
        other.learn(text, Some(entry), NOW);
    }
    for of in [&one, &other] {
        assert_eq!(until(of, "alice"), Some(NOW + 900));
    }
}

#[test]
fn what_is_over_by_the_clock_of_the_store_is_not_given_again_by_a_server_whose_clock_is_behind() {
    let behind = NOW - 3 * 86_400;
    let mut one = new("one");
    one.revoke(&revocation("alice", behind + 3600), Asker::Operator, behind).unwrap();
    one.revoke(&revocation("bob", NOW), Asker::Operator, behind).unwrap();
    one.given(&one.to_give(), &[], behind);
    let bob: Entries = one.entries.iter().skip(1).map(|(text, known)| (text.clone(), Some(known.entry))).collect();
    assert!(!one.meet(bob, NOW, behind) && one.to_give().is_empty());
    assert!(until(&one, "alice").is_some(), "in force here, by its clock");
    // What is not over by it yet is given again.
    assert!(one.meet(Entries::new(), NOW, behind) && one.to_give().len() == 1);
}

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Revoke {
        server: u8,
        user: u8,
        secs: u16,
        /// What was issued before some moment, rather than all.
        is_issued: bool,
    },
    Undo {
        server: u8,
        user: u8,
    },
    /// What a server gives the store is on its way.
    Send(u8),
    /// Something that is on its way arrives, and is told all servers or some of them.
    Arrive {
        which: u8,
        told: u8,
    },
    ArriveTwice(u8),
    /// It never does.
    Lose(u8),
    /// A server takes all that the store has.
    Meet(u8),
    /// The store is copied, and later is what it was then.
    Copy,
    ComeBack,
    Empty,
    /// The state directory of a server is copied.
    Keep(u8),
    /// It is killed, and starts with the copy, or with what it wrote last.
    Kill {
        server: u8,
        is_old: bool,
    },
    /// Its clock is wrong, by so many days.
    SetClock {
        server: u8,
        days: i16,
    },
}

struct Server {
    entries: RevokedEntries,
    clock: u64,
    copy: Vec<String>,
    runs: u32,
}

/// Something that was revoked, and not undone by who knew of it.
struct Standing {
    user: usize,
    is_issued: bool,
    id: String,
    count: u64,
    until_unix: u64,
}

fn counts(of: &Entry, is_issued: bool) -> Counts {
    if is_issued { of.issued } else { of.all }
}

struct Fleet {
    servers: Vec<Server>,
    store: Entries,
    copy: Entries,
    on_the_way: Vec<(u8, Vec<(String, Entry)>)>,
    standing: Vec<Standing>,
}

impl Fleet {
    fn new(count: usize) -> Self {
        let server = |n: usize| Server { entries: new(&format!("s{n}r0")), clock: NOW, copy: Vec::new(), runs: 0 };
        let servers = (0..count).map(server).collect();
        let (store, copy, on_the_way, standing) = Default::default();
        Self { servers, store, copy, on_the_way, standing }
    }

    fn index(&self, server: u8) -> usize {
        usize::from(server) % self.servers.len()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Revoke { server, user, secs, is_issued } => {
                let index = self.index(server);
                let user = usize::from(user) % USERS.len();
                let server = &mut self.servers[index];
                let mut revoked = revocation(USERS[user], NOW + 3600 + u64::from(secs));
                revoked.issued_before = is_issued.then_some(IssuedBefore { unix: NOW, lifetime_secs: u64::from(secs) });
                server.entries.revoke(&revoked, Asker::Operator, server.clock).unwrap();
                let text = server.entries.ids_of("turn.test", &revoked.whose);
                let id = text.into_iter().find(|text| text.ends_with(&*server.entries.run)).unwrap();
                let count = counts(&server.entries.entries[&id].entry, is_issued).revoked;
                self.standing.push(Standing { user, is_issued, id, count, until_unix: revoked.until_unix });
            }
            Step::Undo { server, user } => {
                let index = self.index(server);
                let user = usize::from(user) % USERS.len();
                let server = &mut self.servers[index];
                let whose = Revoked::User(USERS[user].into());
                server.entries.undo(None, &whose, server.clock);
                for is_issued in [false, true] {
                    assert_eq!(until_by(&server.entries, USERS[user], is_issued), None, "undone where it was");
                }
                let known = &server.entries.entries;
                self.standing.retain(|of| {
                    known.get(&of.id).is_none_or(|known| counts(&known.entry, of.is_issued).undone < of.count)
                });
            }
            Step::Send(server) => {
                let giving = self.servers[self.index(server)].entries.to_give();
                self.on_the_way.push((server, giving));
            }
            Step::Arrive { which, told } => self.arrive(which, told, true),
            Step::ArriveTwice(which) => self.arrive(which, 0, false),
            Step::Lose(which) => {
                if !self.on_the_way.is_empty() {
                    self.on_the_way.swap_remove(usize::from(which) % self.on_the_way.len());
                }
            }
            Step::Meet(server) => {
                let index = self.index(server);
                let server = &mut self.servers[index];
                server.entries.meet(self.store.clone(), NOW, server.clock);
                server.entries.put_in_force(server.clock);
            }
            Step::Copy => self.copy = self.store.clone(),
            Step::ComeBack => self.store = self.copy.clone(),
            Step::Empty => self.store.clear(),
            Step::Keep(server) => {
                let index = self.index(server);
                self.servers[index].copy = self.servers[index].entries.lines().0;
            }
            Step::Kill { server, is_old } => {
                let index = self.index(server);
                // What it has answered is in one of its two files; a copy has what was there then, and another server has the rest.
                let lines = self.servers[index].entries.lines().0;
                let is_old = is_old && self.servers.len() > 1;
                if is_old {
                    self.give_all(index);
                }
                let server = &mut self.servers[index];
                server.runs += 1;
                let run = format!("s{index}r{}", server.runs);
                server.entries = restored(&run, if is_old { &server.copy } else { &lines });
            }
            Step::SetClock { server, days } => {
                let index = self.index(server);
                self.servers[index].clock = NOW.saturating_add_signed(i64::from(days) * 86_400);
            }
        }
    }

    /// Who loses what it wrote must have given it away before: else nobody has it.
    fn give_all(&mut self, from: usize) {
        let all: Vec<_> = {
            let known = self.servers[from].entries.entries.iter();
            known.map(|(text, known)| (text.clone(), known.entry)).collect()
        };
        for (text, entry) in &all {
            let of_store = self.store.get(text).copied().flatten().unwrap_or_default();
            self.store.insert(text.clone(), Some(of_store.merged(*entry)));
        }
        for server in self.servers.iter_mut().enumerate().filter(|(n, _)| *n != from).map(|(_, server)| server) {
            for (text, entry) in &all {
                server.entries.learn(text.clone(), Some(*entry), server.clock);
            }
        }
    }

    fn arrive(&mut self, which: u8, told: u8, is_over: bool) {
        if self.on_the_way.is_empty() {
            return;
        }
        let place = usize::from(which) % self.on_the_way.len();
        let (server, giving) = self.on_the_way[place].clone();
        for (text, entry) in &giving {
            let of_store = self.store.get(text).copied().flatten().unwrap_or_default();
            let merged = of_store.merged(*entry);
            self.store.insert(text.clone(), Some(merged));
            for (n, server) in self.servers.iter_mut().enumerate() {
                if told & (1 << n) != 0 {
                    server.entries.learn(text.clone(), Some(merged), server.clock);
                }
            }
        }
        if is_over {
            let index = self.index(server);
            self.servers[index].entries.given(&giving, &[], NOW);
            self.on_the_way.swap_remove(place);
        }
    }

    /// All is well again.
    fn settle(&mut self) {
        while !self.on_the_way.is_empty() {
            self.arrive(0, 0, true);
        }
        for _ in 0..2 {
            for n in 0..self.servers.len() as u8 {
                self.take(Step::SetClock { server: n, days: 0 });
                self.take(Step::Meet(n));
                self.take(Step::Send(n));
                self.take(Step::Arrive { which: 0, told: 0 });
                let index = self.index(n);
                assert!(self.servers[index].entries.to_give().is_empty());
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let (server, user) = (0..4_u8, 0..3_u8);
    prop_oneof![
        10 => (server.clone(), user.clone(), any::<u16>(), any::<bool>())
            .prop_map(|(server, user, secs, is_issued)| Step::Revoke { server, user, secs, is_issued }),
        7 => (server.clone(), user).prop_map(|(server, user)| Step::Undo { server, user }),
        10 => server.clone().prop_map(Step::Send),
        10 => (any::<u8>(), any::<u8>()).prop_map(|(which, told)| Step::Arrive { which, told }),
        2 => any::<u8>().prop_map(Step::ArriveTwice),
        2 => any::<u8>().prop_map(Step::Lose),
        5 => server.clone().prop_map(Step::Meet),
        1 => Just(Step::Copy),
        1 => Just(Step::ComeBack),
        1 => Just(Step::Empty),
        2 => server.clone().prop_map(Step::Keep),
        2 => (server.clone(), any::<bool>()).prop_map(|(server, is_old)| Step::Kill { server, is_old }),
        1 => (server, -2000..2000_i16).prop_map(|(server, days)| Step::SetClock { server, days }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_what_is_revoked_is_so_everywhere_in_the_end_and_what_is_undone_nowhere(
        count in 1..5_usize,
        steps in vec(step(), 1..120),
    ) {
        let mut fleet = Fleet::new(count);
        for step in steps {
            fleet.take(step);
        }
        fleet.settle();
        for (n, is_issued) in (0..USERS.len()).flat_map(|n| [(n, false), (n, true)]) {
            let user = USERS[n];
            let standing = fleet.standing.iter().filter(|of| of.user == n && of.is_issued == is_issued);
            let standing = standing.map(|of| of.until_unix).max();
            for server in &fleet.servers {
                let until = until_by(&server.entries, user, is_issued);
                prop_assert_eq!(until.is_some(), standing.is_some(), "{}: {:?} {:?}", user, until, standing);
                prop_assert!(until >= standing, "{}: {:?} {:?}", user, until, standing);
            }
        }
    }
}
