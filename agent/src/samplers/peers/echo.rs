//! Answers other agents' probes: sends each packet of the right form back to where it came from, once, as
//! long as it was, so nobody can use an agent to make more traffic than he sends.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Length of a probe.
pub(super) const PACKET_BYTES: usize = 24;
const MAGIC: [u8; 8] = *b"PHAROS\x00\x01";
/// How often the thread looks whether it is to end.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A probe, on its way there or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// The sender's, so that he knows his own.
    pub(super) nonce: u64,
    /// Which of the sender's probes it is.
    pub(super) sequence: u64,
}

impl Packet {
    pub(super) fn bytes(self) -> [u8; PACKET_BYTES] {
        let mut bytes = [0; PACKET_BYTES];
        let parts = [MAGIC, self.nonce.to_le_bytes(), self.sequence.to_le_bytes()];
        for (place, part) in bytes.chunks_exact_mut(8).zip(parts) {
            place.copy_from_slice(&part);
        }
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; PACKET_BYTES] = bytes.try_into().ok()?;
        let part = |at: usize| bytes.get(at..at + 8).and_then(|part| part.first_chunk::<8>()).copied();
        if part(0)? != MAGIC {
            return None;
        }
        Some(Packet { nonce: u64::from_le_bytes(part(8)?), sequence: u64::from_le_bytes(part(16)?) })
    }
}

/// A thread that answers until it is dropped.
#[derive(Debug)]
pub(super) struct Echo {
    stop: Arc<AtomicBool>,
    address: SocketAddr,
}

impl Echo {
    pub(super) fn start(address: &str) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(LOOK_INTERVAL))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new().name("pharos-echo".into()).stack_size(128 << 10).spawn(move || {
            let mut buffer = [0; PACKET_BYTES + 1];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(packet) = buffer.get(..length).filter(|bytes| Packet::parse(bytes).is_some()) {
                    // What cannot be sent is lost, which is what the other side measures.
                    let _ = socket.send_to(packet, from);
                }
            }
        })?;
        tracing::info!(%address, "Answering other agents' probes");
        Ok(Echo { stop, address })
    }

    /// Where it listens.
    #[cfg(test)]
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        tracing::debug!(address = %self.address, "No more probes are answered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_are_answered_and_answers_are_no_longer_than_they() {
        let echo = Echo::start("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let packet = Packet { nonce: 1, sequence: 2 };
        let long = [packet.bytes().as_slice(), &[0]].concat();
        for noise in [&b"hello"[..], &long, &[0; PACKET_BYTES]] {
            socket.send_to(noise, echo.address()).unwrap();
        }
        socket.send_to(&packet.bytes(), echo.address()).unwrap();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(Packet::parse(&buffer[..length]), Some(packet), "the first answer is to the probe");
    }
}
