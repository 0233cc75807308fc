//! An application that hangs, lies, floods or is gone: users that it knows are refused for the time being, and nobody else notices.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::application::{Application, Behaviour};
use crate::support::{Transport, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, allocate, asking, fixed, known, metric};

/// What a user of the configuration may have to wait, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_millis(1500);

const FAULTS: [Behaviour; 11] = [
    Behaviour::Promises,
    Behaviour::Hangs,
    Behaviour::IsDeaf,
    Behaviour::Floods,
    Behaviour::FloodsHead,
    Behaviour::Drips,
    Behaviour::Babbles,
    Behaviour::Lies,
    Behaviour::Fails,
    Behaviour::Redirects,
    Behaviour::HangsUp,
];

impl Behaviour {
    /// Whether it answers at all: then it is asked about everybody.
    fn is_an_answer(self) -> bool {
        matches!(self, Self::Floods | Self::Promises | Self::Lies | Self::Fails | Self::Redirects)
    }
}

#[test]
fn names_over_which_it_fails_are_refused_and_others_are_served_all_the_while() {
    let application = Application::start(Behaviour::Answers);
    let server = asking(&format!("url = \"{}/\"\n", application.url())).start();
    std::thread::scope(|scope| {
        let strangers: Vec<_> = (0..4)
            .map(|of| {
                let server = &server;
                scope.spawn(move || {
                    for n in 0..25 {
                        let boom = known(&format!("boom-{of}-{n}"));
                        assert_eq!(allocate(server, Transport::Tcp, &boom).err(), Some(500));
                    }
                })
            })
            .collect();
        let mut n = 0;
        while !strangers.iter().all(|stranger| stranger.is_finished()) {
            assert!(allocate(&server, Transport::Tcp, &known(&format!("user-{n}"))).is_ok(), "user {n}");
            n += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(metric(&server, "turnstone_hook_broken"), 0);
    assert_eq!(metric(&server, "turnstone_hook_questions_total{result=\"failed\"}"), 100);
    assert_eq!(metric(&server, "turnstone_hook_questions_total{result=\"not-asked\"}"), 0);
    let warnings = server.log().matches("the application's own log should say why").count();
    assert!((1..=2).contains(&warnings), "{warnings} lines, and one a minute is enough");
}

#[test]
fn a_network_has_a_budget_of_questions() {
    let application = Application::start(Behaviour::Answers);
    let server = asking(&format!("url = \"{}/\"\n", application.url())).start();
    std::thread::scope(|scope| {
        for of in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut n = 0;
                wait_until("the budget to be used up", LIMIT, || {
                    for _ in 0..50 {
                        assert_eq!(
                            allocate(server, Transport::Tcp, &known(&format!("boom-{of}-{n}"))).err(),
                            Some(500)
                        );
                        n += 1;
                    }
                    (metric(server, "turnstone_hook_questions_total{result=\"too-often\"}") > 0).then_some(())
                });
            });
        }
    });
    assert!(metric(&server, "turnstone_hook_questions_total{result=\"failed\"}") >= 500);
}

#[test]
fn whatever_it_does_wrong_its_users_are_refused_in_time_others_go_on_and_it_is_asked_again_once_it_is_mended() {
    std::thread::scope(|scope| {
        for fault in FAULTS {
            scope.spawn(move || {
                let application = Application::start(fault);
                let hook = format!("url = \"{}/\"\ntimeout = \"500ms\"\nconcurrency = 2\n", application.url());
                let server = asking(&hook).start();
                // A call of somebody who is configured.
                let mut call = allocate(&server, Transport::Udp, &fixed()).unwrap();
                // Its port may by chance be that of a listener over TCP, which no peer may have.
                let peer = std::iter::repeat_with(|| UdpSocket::bind("127.0.0.1:0").unwrap())
                    .find(|peer| call.bind(0x4001, peer.local_addr().unwrap()).is_ok())
                    .unwrap();
                peer.set_read_timeout(Some(LIMIT)).unwrap();
                let is_over = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    // Thirty who are not, all at once.
                    let crowd: Vec<_> = (0..30)
                        .map(|n| {
                            let (server, user) = (&server, known(&format!("user-{n}")));
                            scope.spawn(move || {
                                let began = Instant::now();
                                let code = allocate(server, Transport::Tcp, &user).err();
                                (code, began.elapsed())
                            })
                        })
                        .collect();
                    let is_over = &is_over;
                    let server = &server;
                    scope.spawn(move || {
                        while !is_over.load(Ordering::Relaxed) {
                            let began = Instant::now();
                            call.send_on(0x4001, b"voice");
                            peer.recv(&mut [0; 64]).unwrap();
                            assert!(began.elapsed() < SOON, "{fault:?}: a packet took {:?}", began.elapsed());
                            let began = Instant::now();
                            allocate(server, Transport::Tcp, &fixed()).unwrap();
                            assert!(began.elapsed() < SOON, "{fault:?}: a static user waited {:?}", began.elapsed());
                            std::thread::sleep(Duration::from_millis(20));
                        }
                    });
                    for waiting in crowd {
                        let (code, time) = waiting.join().unwrap();
                        assert_eq!(code, Some(500), "{fault:?}");
                        assert!(time < Duration::from_secs(5), "{fault:?}: refused after {time:?}");
                    }
                    is_over.store(true, Ordering::Relaxed);
                });
                if fault.is_an_answer() {
                    assert_eq!(metric(&server, "turnstone_hook_broken"), 0, "{fault:?}");
                    wait_until("the warning", LIMIT, || {
                        server.log().contains("the hook has not answered as it should").then_some(())
                    });
                    application.behave(Behaviour::Answers);
                    allocate(&server, Transport::Tcp, &known("erin")).unwrap();
                    return;
                }
                // Of thirty who waited for two that hang, not all were asked about.
                wait_until("nobody to be asked", LIMIT, || {
                    assert_eq!(allocate(&server, Transport::Tcp, &known("one-more")).err(), Some(500), "{fault:?}");
                    (metric(&server, "turnstone_hook_broken") == 1).then_some(())
                });
                let asked = metric(&server, "turnstone_hook_questions_total{result=\"failed\"}");
                assert!((5..=20).contains(&asked), "{fault:?}: asked {asked} times");
                server.wait_for_log("the hook does not answer: nobody");
                application.behave(Behaviour::Answers);
                wait_until("it to be asked again", LIMIT, || allocate(&server, Transport::Tcp, &known("erin")).ok());
                assert_eq!(metric(&server, "turnstone_hook_broken"), 0, "{fault:?}");
            });
        }
    });
}

#[test]
fn one_that_is_not_there_costs_its_users_a_refusal_and_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let server = asking(&format!("url = \"http://127.0.0.1:{port}/\"\n")).start();
    for n in 0..10 {
        let began = Instant::now();
        assert_eq!(allocate(&server, Transport::Udp, &known(&format!("user-{n}"))).err(), Some(500));
        assert!(began.elapsed() < SOON);
    }
    allocate(&server, Transport::Udp, &fixed()).unwrap();
    assert!(metric(&server, "turnstone_hook_questions_total{result=\"not-asked\"}") >= 4);
    let wrong = crate::support::Credentials { password: "guessed".to_owned(), ..fixed() };
    assert_eq!(Wire::connect(&server, Transport::Udp, &wrong).allocate().unwrap_err(), 401);
}
