//! The rules that come with Pharos, from the folder `rules/` of the repository.

/// Name and text of each file.
pub const SHIPPED: &[(&str, &str)] = &[
    ("pharos:gpu.yml", include_str!("../../../rules/gpu.yml")),
    ("pharos:host.yml", include_str!("../../../rules/host.yml")),
    ("pharos:inference.yml", include_str!("../../../rules/inference.yml")),
    ("pharos:pharos.yml", include_str!("../../../rules/pharos.yml")),
];

#[cfg(test)]
mod tests {
    use crate::rules::file::{Defaults, parse};
    use std::path::Path;

    #[test]
    fn every_shipped_file_loads() {
        for (name, text) in super::SHIPPED {
            let defaults = Defaults { interval_ms: 1_000, query_offset_ms: 0 };
            let groups = parse(Path::new(name), text, defaults).unwrap_or_else(|error| panic!("{error}"));
            assert!(!groups.is_empty(), "{name}");
        }
    }
}
