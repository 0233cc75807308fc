//! The script in a real Redis, beside the model of it.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::{Client, Connection, Script};

use super::model::Model;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> (Running, Connection) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--logfile", "/dev/null"]);
    let running = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let running = Running(running.expect("redis-server is installed by tests/run"));
    let client = Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    for _ in 0..2_000 {
        if let Ok(connection) = client.get_connection() {
            return (running, connection);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("Redis does not listen");
}

#[derive(Clone, Debug)]
enum Step {
    /// A call of a server, its number so much higher than the last one: a late one if it is not.
    Call {
        server: u8,
        ahead: i8,
        floor: u8,
        need: u8,
        wish: u8,
        limit: u8,
        term_millis: u8,
    },
    Wait(u8),
    /// Somebody else writes into the hash.
    Garbage(String),
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let call = (0..4_u8, -2..6_i8, 0..6_u8, 0..9_u8, 0..14_u8, 1..20_u8, 1..60_u8);
    prop_oneof![
        12 => call.prop_map(|(server, ahead, floor, need, wish, limit, term_millis)| {
            Step::Call { server, ahead, floor, need, wish, limit, term_millis }
        }),
        3 => (0..12_u8).prop_map(Step::Wait),
        1 => "[0-9:x]{0,6}".prop_map(Step::Garbage),
        1 => Just(Step::Forget),
    ]
}

#[test]
fn the_script_in_redis_answers_as_the_model_does() {
    let (_running, connection) = start();
    let connection = RefCell::new(connection);
    let script = Script::new(include_str!("../script.lua"));
    let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let key_number = Cell::new(0);
    runner
        .run(&vec(step(), 1..60), |steps| {
            key_number.set(key_number.get() + 1);
            let key = format!("turnstone:q:static:turn.test:{}", key_number.get());
            let connection = &mut *connection.borrow_mut();
            let (mut model, mut last_id) = (Model::default(), 3_i64);
            for step in steps {
                match step {
                    Step::Call { server, ahead, floor, need, wish, limit, term_millis } => {
                        last_id = (last_id + i64::from(ahead)).max(1);
                        let arguments = [last_id as u64, floor.into(), need.into(), wish.into(), limit.into()];
                        let arguments = [&arguments[..], &[u64::from(term_millis)]].concat();
                        let server = format!("turn{server}:0123456789abcdef");
                        let mut invocation = script.key(&key);
                        invocation.arg(&server);
                        for argument in &arguments {
                            invocation.arg(*argument);
                        }
                        let answer: Vec<i64> = invocation.invoke(connection).unwrap();
                        let now_millis = answer[3] as u64;
                        let expected = model.call(now_millis, &key, &server, arguments.try_into().unwrap());
                        prop_assert_eq!(answer, expected);
                    }
                    Step::Wait(millis) => std::thread::sleep(Duration::from_millis(millis.into())),
                    Step::Garbage(text) if text.split(':').count() != 3 => {
                        let _: i64 = redis::cmd("HSET").arg(&key).arg("somebody").arg(text).query(connection).unwrap();
                    }
                    Step::Garbage(_) => {}
                    Step::Forget => {
                        let _: i64 = redis::cmd("DEL").arg(&key).query(connection).unwrap();
                        model.flush();
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_key_of_another_type_is_deleted_and_what_else_is_wrong_is_told() {
    let (_running, mut connection) = start();
    let key = "turnstone:q:static:turn.test:ann";
    let share = Script::new(include_str!("../script.lua"));
    let servers = Script::new(include_str!("../servers.lua"));
    let call = |connection: &mut Connection, id: u64| -> redis::RedisResult<Vec<i64>> {
        let mut invocation = share.key(key);
        for argument in ["a".to_owned(), id.to_string(), "0".into(), "1".into(), "1".into(), "4".into(), "60000".into()]
        {
            invocation.arg(argument);
        }
        invocation.invoke(connection)
    };
    let run = |connection: &mut Connection, command: &[&str]| {
        redis::cmd(command[0]).arg(&command[1..]).query::<redis::Value>(connection).unwrap()
    };
    for other in [&["SET", key, "7"][..], &["RPUSH", key, "a:1:b"]] {
        run(&mut connection, &["DEL", key]);
        run(&mut connection, other);
        let answer = call(&mut connection, 1).unwrap();
        assert_eq!((&answer[..3], answer[4]), (&[1, 1, 0][..], 1));
        assert_eq!(call(&mut connection, 2).unwrap()[4], 0);
    }
    run(&mut connection, &["SET", "turnstone:q-servers", "7"]);
    let (was_known, count): (bool, u32) =
        servers.key("turnstone:q-servers").arg("a").arg(60_000).invoke(&mut connection).unwrap();
    assert_eq!((was_known, count), (false, 1));
    // Who may not read must not delete.
    run(&mut connection, &["ACL", "SETUSER", "default", "-hgetall"]);
    let refused = call(&mut connection, 3).unwrap_err().to_string();
    assert!(refused.contains("permission") || refused.contains("can't run"), "{refused}");
    run(&mut connection, &["ACL", "SETUSER", "default", "+@all"]);
    assert_eq!(call(&mut connection, 3).unwrap()[..3], [1, 3, 0]);
}

#[test]
fn the_servers_that_are_there_are_counted_and_the_silent_ones_are_not() {
    let (_running, mut connection) = start();
    let script = Script::new(include_str!("../servers.lua"));
    let mut say = |server: &str, millis: u64| -> (bool, u32) {
        script.key("turnstone:q-nodes").arg(server).arg(millis).invoke(&mut connection).unwrap()
    };
    assert_eq!([say("a", 60_000), say("b", 2_000), say("a", 60_000)], [(false, 1), (false, 2), (true, 2)]);
    // By the store's clock, which nobody can set.
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!([say("a", 60_000), say("c", 60_000), say("a", 0)], [(true, 1), (false, 2), (true, 1)]);
    assert_eq!(say("c", 60_000), (true, 1));
}
