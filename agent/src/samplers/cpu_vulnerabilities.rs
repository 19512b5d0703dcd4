//! `cpu_vulnerabilities`: which of the known flaws the CPUs have and what is done about each, from
//! `/sys/devices/system/cpu/vulnerabilities`.

use super::inventory::{self, Found, names, text};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};
use std::path::Path;

/// How the kernel's texts begin, and the state that each tells of.
const STATES: [(&str, &str); 3] =
    [("not affected", "not affected"), ("vulnerable", "vulnerable"), ("mitigation", "mitigation")];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("devices/system/cpu/vulnerabilities");
    inventory::sampler("the kernel tells of no vulnerabilities", move || find(&folder))
}

fn find(folder: &Path) -> Vec<Found> {
    let mut found = Found::new("cpu_vulnerabilities", Vec::new());
    let flaws = names(folder);
    for flaw in &flaws {
        let (state, mitigation) = parse(&text(&folder.join(flaw)));
        let column = ColumnSpec::plain("node_cpu_vulnerabilities_info").with("codename", flaw.as_str());
        found.info(column.with("mitigation", mitigation).with("state", state));
    }
    if flaws.is_empty() { Vec::new() } else { vec![found] }
}

/// `Mitigation: PTI` is a state and what is done; so is `Vulnerable: no microcode`.
fn parse(text: &str) -> (&'static str, String) {
    let text = text.to_lowercase();
    let Some((_, state)) = STATES.iter().find(|(start, _)| text.starts_with(start)) else {
        return ("unknown", String::new());
    };
    let rest = if *state == "not affected" { "" } else { text.split_once(' ').unwrap_or_default().1 };
    (state, rest.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_states_and_what_is_done() {
        #[track_caller]
        fn check(text: &str, state: &str, mitigation: &str) {
            assert_eq!(
                parse(text),
                (STATES.iter().find(|s| s.1 == state).map_or("unknown", |s| s.1), mitigation.into())
            );
        }
        check("Not affected", "not affected", "");
        check("Vulnerable", "vulnerable", "");
        check("Vulnerable: Safe RET, no microcode", "vulnerable", "safe ret, no microcode");
        check("Mitigation: PTI", "mitigation", "pti");
        check("Processor vulnerable", "unknown", "");
        check("", "unknown", "");
    }
}
