//! `cpu_vulnerabilities`: which of the known flaws the CPUs have and what is done about each, from
//! `/sys/devices/system/cpu/vulnerabilities`.

use super::inventory::{self, Found, names, text};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};
use std::path::Path;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("devices/system/cpu/vulnerabilities");
    let source = folder.clone();
    inventory::sampler(&source, "the kernel tells of no vulnerabilities", move || find(&folder))
}

fn find(folder: &Path) -> Vec<Found> {
    let mut found = Found::new("cpu_vulnerabilities", Vec::new());
    let flaws = names(folder);
    for flaw in &flaws {
        let text = text(&folder.join(flaw));
        let (state, mitigation) = parse(&text);
        let column = ColumnSpec::plain("node_cpu_vulnerabilities_info").with("codename", flaw.as_str());
        found.info(column.with("mitigation", mitigation).with("state", state));
    }
    if flaws.is_empty() { Vec::new() } else { vec![found] }
}

/// `Mitigation: PTI` is a state and what is done; so is `Vulnerable: no microcode`.
fn parse(text: &str) -> (&'static str, &str) {
    for state in ["Vulnerable", "Mitigation"] {
        if let Some(rest) = text.strip_prefix(state) {
            return (state, rest.strip_prefix(": ").unwrap_or(rest));
        }
    }
    (if text == "Not affected" { "Not affected" } else { "Unknown" }, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_states_and_what_is_done() {
        assert_eq!(parse("Not affected"), ("Not affected", ""));
        assert_eq!(parse("Vulnerable"), ("Vulnerable", ""));
        assert_eq!(parse("Vulnerable: Safe RET, no microcode"), ("Vulnerable", "Safe RET, no microcode"));
        assert_eq!(parse("Mitigation: PTI"), ("Mitigation", "PTI"));
        assert_eq!(parse("Processor vulnerable"), ("Unknown", ""));
    }
}
