//! A client and a peer that send back whatever they get.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Spec, wait_until};
use crate::{channel_data, relayed};

/// The server looks for ten seconds before it cuts.
const CUT_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn packets_that_go_round_are_cut_and_told_of_once() {
    let guard = "[guard]\nloop-packets-per-second = 100\n";
    let server = Spec { extra_toml: guard.to_owned(), ..Spec::local() }.start();
    let (client, peer, relayed) = relayed(&server);
    for n in 0..20 {
        client.send(&channel_data(format!("round and round {n}").as_bytes())).unwrap();
    }
    // Should the server not cut it, the test must fail, not hang.
    let (done, began) = (AtomicBool::new(false), Instant::now());
    let reflect = |socket: &UdpSocket, back: &dyn Fn(&[u8])| {
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut buffer = [0; 2048];
        let mut reflected = 0;
        while !done.load(Ordering::Relaxed) && began.elapsed() < 2 * CUT_LIMIT {
            if let Ok(len) = socket.recv(&mut buffer) {
                back(&buffer[..len]);
                reflected += 1;
            }
        }
        reflected
    };
    std::thread::scope(|scope| {
        let by_client = scope.spawn(|| reflect(&client, &|message| drop(client.send(message))));
        let by_peer = scope.spawn(|| reflect(&peer, &|payload| drop(peer.send_to(payload, relayed))));
        let told = || server.log().contains("packets went round a loop").then_some(());
        wait_until("the cut of the loop", CUT_LIMIT, told);
        done.store(true, Ordering::Relaxed);
        assert!(by_client.join().unwrap() > 1000 && by_peer.join().unwrap() > 1000);
    });
    // Nothing goes through any more, either way.
    peer.send_to(b"again", relayed).unwrap();
    client.send(&channel_data(b"again")).unwrap();
    let mut buffer = [0; 2048];
    while let Ok(len) = peer.recv(&mut buffer) {
        assert_ne!(&buffer[..len], b"again");
    }
    assert_eq!(server.log().matches("packets went round a loop").count(), 1);
}
