//! `nfs` and `nfsd`: what the NFS client and server of the kernel have done, from `/proc/net/rpc`.

use super::named_lines::{self, NamedLines};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};

/// Procedures in the order of the kernel's counters, by version of the protocol.
#[rustfmt::skip]
const V2: [&str; 18] = [
    "Null", "GetAttr", "SetAttr", "Root", "Lookup", "ReadLink", "Read", "WrCache", "Write",
    "Create", "Remove", "Rename", "Link", "SymLink", "MkDir", "RmDir", "ReadDir", "FsStat",
];
#[rustfmt::skip]
const V3: [&str; 22] = [
    "Null", "GetAttr", "SetAttr", "Lookup", "Access", "ReadLink", "Read", "Write", "Create",
    "MkDir", "SymLink", "MkNod", "Remove", "RmDir", "Rename", "Link", "ReadDir", "ReadDirPlus",
    "FsStat", "FsInfo", "PathConf", "Commit",
];
/// Of version 4 the client counts procedures, the server operations; each has an order of its own.
#[rustfmt::skip]
const V4_CLIENT: [&str; 59] = [
    "Null", "Read", "Write", "Commit", "Open", "OpenConfirm", "OpenNoattr", "OpenDowngrade",
    "Close", "Setattr", "FsInfo", "Renew", "SetClientID", "SetClientIDConfirm", "Lock", "Lockt",
    "Locku", "Access", "Getattr", "Lookup", "LookupRoot", "Remove", "Rename", "Link", "Symlink",
    "Create", "Pathconf", "StatFs", "ReadLink", "ReadDir", "ServerCaps", "DelegReturn", "GetACL",
    "SetACL", "FsLocations", "ReleaseLockowner", "Secinfo", "FsidPresent", "ExchangeID",
    "CreateSession", "DestroySession", "Sequence", "GetLeaseTime", "ReclaimComplete", "LayoutGet",
    "GetDeviceInfo", "LayoutCommit", "LayoutReturn", "SecinfoNoName", "TestStateID", "FreeStateID",
    "GetDeviceList", "BindConnToSession", "DestroyClientID", "Seek", "Allocate", "DeAllocate",
    "LayoutStats", "Clone",
];
/// The operations that node_exporter shows, with their numbers.
#[rustfmt::skip]
const V4_SERVER: [(usize, &str); 33] = [
    (3, "Access"), (4, "Close"), (5, "Commit"), (6, "Create"), (7, "DelegPurge"),
    (8, "DelegReturn"), (9, "GetAttr"), (10, "GetFH"), (11, "Link"), (12, "Lock"), (13, "Lockt"),
    (14, "Locku"), (15, "Lookup"), (16, "LookupRoot"), (17, "Nverify"), (18, "Open"),
    (19, "OpenAttr"), (20, "OpenConfirm"), (21, "OpenDgrd"), (22, "PutFH"), (25, "Read"),
    (26, "ReadDir"), (27, "ReadLink"), (28, "Remove"), (29, "Rename"), (30, "Renew"),
    (31, "RestoreFH"), (32, "SaveFH"), (33, "SecInfo"), (34, "SetAttr"), (35, "Verify"),
    (36, "Write"), (37, "RelLockOwner"),
];

fn requests(metric: &'static str, proto: &str, method: &str) -> ColumnSpec {
    ColumnSpec::plain(metric).with("method", method).with("proto", proto)
}

/// Adds a line of counters behind their number.
fn add_procedures(
    lines: &mut NamedLines,
    metric: &'static str,
    line: &'static str,
    proto: &str,
    methods: &[&'static str],
    from: usize,
) {
    for (at, method) in methods.iter().enumerate().skip(from) {
        lines.add(line, 1 + at, requests(metric, proto, method));
    }
}

/// Makes `nfs`.
pub fn client(options: &SamplerOptions) -> Box<dyn Sampler> {
    let mut lines = NamedLines::default();
    for (at, protocol) in ["udp", "tcp"].into_iter().enumerate() {
        lines.add("net", 1 + at, ColumnSpec::plain("node_nfs_packets_total").with("protocol", protocol));
    }
    lines.add_all("net", &[(3, "node_nfs_connections_total")]);
    let rpc = [
        (0, "node_nfs_rpcs_total"),
        (1, "node_nfs_rpc_retransmissions_total"),
        (2, "node_nfs_rpc_authentication_refreshes_total"),
    ];
    lines.add_all("rpc", &rpc);
    let metric = "node_nfs_requests_total";
    add_procedures(&mut lines, metric, "proc2", "2", &V2, 0);
    add_procedures(&mut lines, metric, "proc3", "3", &V3, 0);
    add_procedures(&mut lines, metric, "proc4", "4", &V4_CLIENT, 0);
    named_lines::sampler("nfs", options.paths.proc("net/rpc/nfs"), "no NFS client", lines)
}

/// Makes `nfsd`.
pub fn server(options: &SamplerOptions) -> Box<dyn Sampler> {
    let mut lines = NamedLines::default();
    let cache = [
        (0, "node_nfsd_reply_cache_hits_total"),
        (1, "node_nfsd_reply_cache_misses_total"),
        (2, "node_nfsd_reply_cache_nocache_total"),
    ];
    lines.add_all("rc", &cache);
    lines.add_all("fh", &[(0, "node_nfsd_file_handles_stale_total")]);
    let io = [(0, "node_nfsd_disk_bytes_read_total"), (1, "node_nfsd_disk_bytes_written_total")];
    lines.add_all("io", &io);
    lines.add_all("th", &[(0, "node_nfsd_server_threads")]);
    let read_ahead =
        [(0, "node_nfsd_read_ahead_cache_size_blocks"), (11, "node_nfsd_read_ahead_cache_not_found_total")];
    lines.add_all("ra", &read_ahead);
    for (at, proto) in ["udp", "tcp"].into_iter().enumerate() {
        lines.add("net", 1 + at, ColumnSpec::plain("node_nfsd_packets_total").with("proto", proto));
    }
    lines.add_all("net", &[(3, "node_nfsd_connections_total")]);
    lines.add_all("rpc", &[(0, "node_nfsd_server_rpcs_total")]);
    for (at, error) in [(2, "fmt"), (3, "auth"), (4, "cInt")] {
        lines.add("rpc", at, ColumnSpec::plain("node_nfsd_rpc_errors_total").with("error", error));
    }
    let metric = "node_nfsd_requests_total";
    // The server does not count what asks for nothing.
    add_procedures(&mut lines, metric, "proc2", "2", &V2, 1);
    add_procedures(&mut lines, metric, "proc3", "3", &V3, 1);
    for (at, method) in V4_SERVER {
        lines.add("proc4ops", 1 + at, requests(metric, "4", method));
    }
    named_lines::sampler("nfsd", options.paths.proc("net/rpc/nfsd"), "no NFS server", lines)
}
