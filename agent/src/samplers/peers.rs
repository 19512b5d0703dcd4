//! `peers`: how the network between the nodes is, probed from agent to agent: round trip, jitter, loss.
//!
//! Each agent answers small UDP packets (`--peer.listen-address`) and sends a few in every reading to the
//! peers it was given (`--peer.address`). Of a long list it takes those that follow it in order
//! (`--peer.fanout`), so a mesh of any size has each node probed by as many others, at a cost that does not grow.
//! A probe that has not come back when the reading ends is lost.

mod echo;

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{Sampler, SamplerOptions};
use echo::{Echo, PACKET_BYTES, Packet};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

/// Peers that one agent probes.
const PEERS_MAX: usize = 64;
/// How long probes of one reading are waited for; within a cluster ten milliseconds are slow already.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// Readings between two look-ups of a peer's name.
const READINGS_BETWEEN_LOOKUPS: u32 = 60;
/// Share of a new difference in the jitter, as in RFC 3550.
const JITTER_GAIN: f64 = 1.0 / 16.0;

/// Flags about probing peers.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Network between nodes")]
pub struct PeerOptions {
    /// UDP address to answer other agents' probes on [default: none]
    #[arg(id = "peer_listen_address", long = "peer.listen-address", value_name = "HOST:PORT")]
    pub listen_address: Option<String>,
    /// Agent to probe; repeat for more, the same list on every node will do
    #[arg(id = "peer_addresses", long = "peer.address", value_name = "HOST:PORT")]
    pub addresses: Vec<String>,
    /// How many of them to probe: those that follow this node in the list, in a circle
    #[arg(id = "peer_fanout", long = "peer.fanout", value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=PEERS_MAX as i64))]
    pub fanout: u16,
    /// Probes to each in every reading
    #[arg(id = "peer_probes", long = "peer.probes", value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub probes: u16,
}

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let peer = &options.peer;
    Box::new(PeerSampler {
        echo: peer.listen_address.clone().map(EchoState::Wanted),
        peers: chosen(&peer.addresses, &options.node, peer.fanout.into())
            .into_iter()
            .map(Peer::new)
            .collect(),
        probes: peer.probes.into(),
        socket: None,
        nonce: u64::from(std::process::id()) << 32 ^ options.paths.procfs.as_os_str().len() as u64,
        sequence: 0,
        sent: Vec::new(),
    })
}

/// The peers that follow `node` in the sorted list, in a circle, without itself.
fn chosen(addresses: &[String], node: &str, fanout: usize) -> Vec<String> {
    let mut all: Vec<&String> = addresses.iter().collect();
    all.sort_unstable();
    all.dedup();
    let host = |address: &str| address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
    let own = all.iter().position(|address| host(address) == node);
    let start = own.map_or(0, |own| own + 1);
    let others = all.len() - usize::from(own.is_some());
    (0..others.min(fanout).min(PEERS_MAX))
        .filter_map(|at| all.get((start + at) % all.len()))
        .map(|one| (*one).clone())
        .collect()
}

enum EchoState {
    Wanted(String),
    Runs { _echo: Echo },
}

struct PeerSampler {
    echo: Option<EchoState>,
    peers: Vec<Peer>,
    probes: usize,
    socket: Option<UdpSocket>,
    nonce: u64,
    sequence: u64,
    /// Probes of this reading: number, peer, when.
    sent: Vec<(u64, usize, Instant, bool)>,
}

struct Peer {
    name: String,
    address: Option<SocketAddr>,
    lookup_in: u32,
    group: Option<GroupHandle>,
    sent: u64,
    lost: u64,
    last_round_trip: Option<f64>,
    jitter: Option<f64>,
    /// Of this reading.
    sum: f64,
    max: f64,
    answers: u32,
}

/// Columns of a peer.
const COLUMNS: [&str; 6] = [
    "pharos_peer_up",
    "pharos_peer_round_trip_seconds",
    "pharos_peer_round_trip_max_seconds",
    "pharos_peer_jitter_seconds",
    "pharos_peer_probes_sent_total",
    "pharos_peer_probes_lost_total",
];

impl Sampler for PeerSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let listens = self.listen();
        if self.peers.is_empty() {
            return listens;
        }
        self.probe().map_err(|source| SampleError::Call { call: "probing peers", source })?;
        for peer in &mut self.peers {
            peer.publish(groups);
        }
        listens
    }
}

impl PeerSampler {
    fn listen(&mut self) -> Result<(), SampleError> {
        if let Some(EchoState::Wanted(address)) = &self.echo {
            let echo = Echo::start(address)
                .map_err(|source| SampleError::Call { call: "listening on --peer.listen-address", source })?;
            self.echo = Some(EchoState::Runs { _echo: echo });
        }
        Ok(())
    }

    fn probe(&mut self) -> std::io::Result<()> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => self.socket.insert(UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?),
        };
        let own_is_v6 = socket.local_addr()?.is_ipv6();
        self.sent.clear();
        for (at, peer) in self.peers.iter_mut().enumerate() {
            (peer.sum, peer.max, peer.answers) = (0.0, 0.0, 0);
            let Some(address) = peer.look_up(own_is_v6) else { continue };
            for _ in 0..self.probes {
                self.sequence += 1;
                let packet = Packet { nonce: self.nonce, sequence: self.sequence };
                peer.sent += 1;
                // A network that refuses loses the probe.
                if socket.send_to(&packet.bytes(), address).is_ok() {
                    self.sent.push((self.sequence, at, Instant::now(), false));
                } else {
                    peer.lost += 1;
                }
            }
        }
        let started = Instant::now();
        let mut waiting = self.sent.len();
        let mut buffer = [0; PACKET_BYTES + 1];
        while waiting > 0 {
            let left = WAIT_MAX.saturating_sub(started.elapsed());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
            let now = Instant::now();
            let packet =
                buffer.get(..length).and_then(Packet::parse).filter(|packet| packet.nonce == self.nonce);
            let Some(packet) = packet else { continue };
            let probe = self.sent.iter_mut().find(|(sequence, ..)| *sequence == packet.sequence);
            // Twice the same answer is one.
            let Some((_, at, when, answered)) = probe.filter(|probe| !probe.3) else { continue };
            *answered = true;
            waiting -= 1;
            if let Some(peer) = self.peers.get_mut(*at) {
                peer.take(now.duration_since(*when).as_secs_f64());
            }
        }
        for (_, at, ..) in self.sent.iter().filter(|probe| !probe.3) {
            if let Some(peer) = self.peers.get_mut(*at) {
                peer.lost += 1;
            }
        }
        Ok(())
    }
}

impl Peer {
    fn new(name: String) -> Self {
        Peer {
            name,
            address: None,
            lookup_in: 0,
            group: None,
            sent: 0,
            lost: 0,
            last_round_trip: None,
            jitter: None,
            sum: 0.0,
            max: 0.0,
            answers: 0,
        }
    }

    fn look_up(&mut self, own_is_v6: bool) -> Option<SocketAddr> {
        if self.lookup_in == 0 {
            self.lookup_in = READINGS_BETWEEN_LOOKUPS;
            let found = self.name.to_socket_addrs().ok().and_then(|mut found| found.next());
            self.address = found.map(|found| match (found, own_is_v6) {
                // A socket for both kinds reaches IPv4 by its address within IPv6.
                (SocketAddr::V4(v4), true) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
                (other, _) => other,
            });
        }
        self.lookup_in -= 1;
        self.address
    }

    fn take(&mut self, seconds: f64) {
        self.sum += seconds;
        self.max = self.max.max(seconds);
        self.answers += 1;
        if let Some(last) = self.last_round_trip.replace(seconds) {
            let difference = (seconds - last).abs();
            let jitter = self.jitter.unwrap_or(difference);
            self.jitter = Some(jitter + (difference - jitter) * JITTER_GAIN);
        }
    }

    fn publish(&mut self, groups: &mut GroupSet) {
        let handle = *self.group.get_or_insert_with(|| {
            let columns = COLUMNS.into_iter().map(ColumnSpec::plain).collect();
            groups.define(format!("peer/{}", self.name), vec![("peer".into(), self.name.clone())], columns)
        });
        let Some(group) = groups.group(handle) else { return };
        group.put(0, f64::from(u8::from(self.answers > 0)));
        if self.answers > 0 {
            group.put(1, self.sum / f64::from(self.answers));
            group.put(2, self.max);
            group.put_some(3, self.jitter);
        }
        group.put(4, self.sent as f64);
        group.put(5, self.lost as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(peers: &[String]) -> PeerSampler {
        PeerSampler {
            echo: None,
            peers: peers.iter().cloned().map(Peer::new).collect(),
            probes: 5,
            socket: None,
            nonce: 7,
            sequence: 0,
            sent: Vec::new(),
        }
    }

    fn values(groups: &GroupSet, at: usize) -> Vec<Option<f64>> {
        let group = groups.iter().nth(at).unwrap();
        (0..COLUMNS.len()).map(|at| group.present().contains(at).then(|| group.values()[at])).collect()
    }

    #[test]
    fn a_peer_that_answers_has_a_round_trip_and_one_that_does_not_loses_all() {
        let echo = Echo::start("127.0.0.1:0").unwrap();
        // Bound and silent.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut sampler = sampler(&[echo.address().to_string(), silent.local_addr().unwrap().to_string()]);
        let mut groups = GroupSet::default();
        for _ in 0..2 {
            groups.begin();
            sampler.sample(&mut ReadBuffer::default(), &mut groups).unwrap();
        }
        // A loaded machine may lose some to the deadline, and not all.
        let answers = values(&groups, 0);
        assert_eq!((answers[0], answers[4]), (Some(1.0), Some(10.0)));
        assert!(answers[1].unwrap() > 0.0 && answers[2] >= answers[1] && answers[3].is_some());
        assert_eq!(values(&groups, 1), [Some(0.0), None, None, None, Some(10.0), Some(10.0)]);
    }

    #[test]
    fn a_node_probes_those_that_follow_it_in_the_circle() {
        let list: Vec<String> = ["c:1", "a:1", "b:1", "d:1"].map(str::to_owned).into();
        assert_eq!(chosen(&list, "c", 2), ["d:1", "a:1"]);
        assert_eq!(chosen(&list, "c", 64), ["d:1", "a:1", "b:1"]);
        assert_eq!(chosen(&list, "elsewhere", 2), ["a:1", "b:1"]);
        assert!(chosen(&[], "a", 8).is_empty());
    }
}
