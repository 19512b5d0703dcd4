//! In which order connections are served that come all at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

use axum::Router;
use pharos_common::server::{self, ServerLimits};
use pharos_common::shutdown::Shutdown;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const PEERS: usize = 40;
/// Steps of each answer, one behind the other, as those of an agent's first frame are.
const STEPS: usize = 10;

#[derive(Default)]
struct AtOnce {
    now: AtomicUsize,
    max: AtomicUsize,
}

/// Peers that return together do not all wait for the last of them to be greeted.
#[tokio::test]
async fn who_was_let_in_is_served_before_the_next_is_let_in() {
    let at_once = Arc::new(AtOnce::default());
    let counted = Arc::clone(&at_once);
    let app = Router::new().fallback(move || {
        let at_once = Arc::clone(&counted);
        async move {
            at_once.max.fetch_max(at_once.now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            for _ in 0..STEPS {
                tokio::spawn(async {}).await.unwrap();
            }
            at_once.now.fetch_sub(1, Ordering::Relaxed);
        }
    });
    let listener = server::listen("127.0.0.1:0", "--listen").await.unwrap();
    let address = listener.local_addr().unwrap();
    // All of them are there, and have asked, before the first is let in.
    let mut peers: Vec<TcpStream> = (0..PEERS).map(|_| TcpStream::connect(address).unwrap()).collect();
    for peer in &mut peers {
        peer.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    }
    let shutdown = Shutdown::new();
    let serving = tokio::spawn(server::serve(listener, app, None, ServerLimits::default(), shutdown.clone()));
    let answers = tokio::task::spawn_blocking(move || {
        for mut peer in peers {
            let mut answer = String::new();
            peer.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    });
    answers.await.unwrap();
    shutdown.cancel();
    serving.await.unwrap();
    let max = at_once.max.load(Ordering::Relaxed);
    assert!(max < PEERS / 4, "{max} of {PEERS} were under way at once");
}
