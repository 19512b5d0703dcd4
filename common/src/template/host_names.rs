//! Addresses as scrape configurations write them, in the parts that people read: `gpu-1.example:9100`, `[::1]:80`.

use std::net::IpAddr;

/// Host and port as Go's `net.SplitHostPort` tells them apart; `None` where it refuses.
fn split(address: &str) -> Option<(&str, &str)> {
    let (before, port) = address.rsplit_once(':')?;
    let host = match before.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None if before.contains(':') => return None,
        None => before,
    };
    let stray = |text: &str| text.contains(['[', ']']);
    (!stray(host) && !stray(port)).then_some((host, port))
}

/// The host; the text as it stands if it is not a host with a port.
pub(super) fn without_port(address: &str) -> &str {
    split(address).map_or(address, |(host, _)| host)
}

/// The first part of a host's name, with its port. Addresses of IP stay as they are.
pub(super) fn without_domain(address: &str) -> String {
    let (host, port) = split(address).unwrap_or((address, ""));
    if host.parse::<IpAddr>().is_ok() {
        return address.to_owned();
    }
    let name = host.split('.').next().unwrap_or(host);
    match (port, name.contains(':')) {
        ("", _) => name.to_owned(),
        (port, false) => format!("{name}:{port}"),
        (port, true) => format!("[{name}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expectations as promtool 2.42 prints them.
    #[test]
    fn hosts_lose_their_port_and_domain_as_in_prometheus() {
        for (address, port_gone, domain_gone) in [
            ("10.0.0.1:9100", "10.0.0.1", "10.0.0.1:9100"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
            ("gpu-1.dc.example:9100", "gpu-1.dc.example", "gpu-1:9100"),
            ("gpu-1.dc.example", "gpu-1.dc.example", "gpu-1"),
            ("300.1.1.1:80", "300.1.1.1", "300:80"),
            ("a.b:", "a.b", "a"),
            (":80", "", ":80"),
            ("[::1]:80", "::1", "[::1]:80"),
            ("[::1]", "[::1]", "[::1]"),
            ("::1", "::1", "::1"),
            ("fe80::1", "fe80::1", "fe80::1"),
            ("a.b:c.d:e", "a.b:c.d:e", "a"),
            ("[fe80::1%eth0]:80", "fe80::1%eth0", "[fe80::1%eth0]:80"),
        ] {
            assert_eq!(without_port(address), port_gone, "{address}");
            assert_eq!(without_domain(address), domain_gone, "{address}");
        }
    }
}
