//! `xfrm`: packets that IPsec has dropped, by reason, from `/proc/net/xfrm_stat`.

use super::named_lines::{self, NamedLines};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};

/// The kernel's names of the reasons.
const REASONS: [&str; 28] = [
    "XfrmAcquireError",
    "XfrmFwdHdrError",
    "XfrmInBufferError",
    "XfrmInError",
    "XfrmInHdrError",
    "XfrmInNoPols",
    "XfrmInNoStates",
    "XfrmInPolBlock",
    "XfrmInPolError",
    "XfrmInStateExpired",
    "XfrmInStateInvalid",
    "XfrmInStateMismatch",
    "XfrmInStateModeError",
    "XfrmInStateProtoError",
    "XfrmInStateSeqError",
    "XfrmInTmplMismatch",
    "XfrmOutBundleCheckError",
    "XfrmOutBundleGenError",
    "XfrmOutError",
    "XfrmOutNoStates",
    "XfrmOutPolBlock",
    "XfrmOutPolDead",
    "XfrmOutPolError",
    "XfrmOutStateExpired",
    "XfrmOutStateInvalid",
    "XfrmOutStateModeError",
    "XfrmOutStateProtoError",
    "XfrmOutStateSeqError",
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let mut lines = NamedLines::default();
    for reason in REASONS {
        lines.add(reason, 0, ColumnSpec::plain(metric(reason)));
    }
    named_lines::sampler("xfrm", options.paths.proc("net/xfrm_stat"), "the kernel counts no IPsec", lines)
}

/// `XfrmInHdrError` is counted by `node_xfrm_in_hdr_error_packets_total`.
fn metric(reason: &str) -> String {
    let mut name = String::from("node");
    for letter in reason.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name + "_packets_total"
}
