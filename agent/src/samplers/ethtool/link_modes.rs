//! What the bits of a link's modes mean, by `ethtool_link_mode_bit_indices` of `linux/ethtool.h`: speeds that a
//! port supports or advertises, and kinds of ports. node_exporter looks at the first 32 of them; the faster half
//! of the table, with everything from 25 Gbit/s on, is read here too.

/// Bits of a full duplex mode, with Mbit/s and what the kernel calls the medium.
const FULL: [(u32, u32, &str); 95] = [
    (1, 10, "T"),
    (3, 100, "T"),
    (5, 1_000, "T"),
    (12, 10_000, "T"),
    (15, 2_500, "X"),
    (17, 1_000, "KX"),
    (18, 10_000, "KX4"),
    (19, 10_000, "KR"),
    (20, 10_000, "R_FEC"),
    (21, 20_000, "MLD2"),
    (22, 20_000, "KR2"),
    (23, 40_000, "KR4"),
    (24, 40_000, "CR4"),
    (25, 40_000, "SR4"),
    (26, 40_000, "LR4"),
    (27, 56_000, "KR4"),
    (28, 56_000, "CR4"),
    (29, 56_000, "SR4"),
    (30, 56_000, "LR4"),
    (31, 25_000, "CR"),
    (32, 25_000, "KR"),
    (33, 25_000, "SR"),
    (34, 50_000, "CR2"),
    (35, 50_000, "KR2"),
    (36, 100_000, "KR4"),
    (37, 100_000, "SR4"),
    (38, 100_000, "CR4"),
    (39, 100_000, "LR4_ER4"),
    (40, 50_000, "SR2"),
    (41, 1_000, "X"),
    (42, 10_000, "CR"),
    (43, 10_000, "SR"),
    (44, 10_000, "LR"),
    (45, 10_000, "LRM"),
    (46, 10_000, "ER"),
    (47, 2_500, "T"),
    (48, 5_000, "T"),
    (52, 50_000, "KR"),
    (53, 50_000, "SR"),
    (54, 50_000, "CR"),
    (55, 50_000, "LR_ER_FR"),
    (56, 50_000, "DR"),
    (57, 100_000, "KR2"),
    (58, 100_000, "SR2"),
    (59, 100_000, "CR2"),
    (60, 100_000, "LR2_ER2_FR2"),
    (61, 100_000, "DR2"),
    (62, 200_000, "KR4"),
    (63, 200_000, "SR4"),
    (64, 200_000, "LR4_ER4_FR4"),
    (65, 200_000, "DR4"),
    (66, 200_000, "CR4"),
    (67, 100, "T1"),
    (68, 1_000, "T1"),
    (69, 400_000, "KR8"),
    (70, 400_000, "SR8"),
    (71, 400_000, "LR8_ER8_FR8"),
    (72, 400_000, "DR8"),
    (73, 400_000, "CR8"),
    (75, 100_000, "KR"),
    (76, 100_000, "SR"),
    (77, 100_000, "LR_ER_FR"),
    (78, 100_000, "CR"),
    (79, 100_000, "DR"),
    (80, 200_000, "KR2"),
    (81, 200_000, "SR2"),
    (82, 200_000, "LR2_ER2_FR2"),
    (83, 200_000, "DR2"),
    (84, 200_000, "CR2"),
    (85, 400_000, "KR4"),
    (86, 400_000, "SR4"),
    (87, 400_000, "LR4_ER4_FR4"),
    (88, 400_000, "DR4"),
    (89, 400_000, "CR4"),
    (91, 100, "FX"),
    (92, 10, "T1L"),
    (93, 800_000, "CR8"),
    (94, 800_000, "KR8"),
    (95, 800_000, "DR8"),
    (96, 800_000, "DR8_2"),
    (97, 800_000, "SR8"),
    (98, 800_000, "VR8"),
    (99, 10, "T1S"),
    (103, 200_000, "CR"),
    (104, 200_000, "KR"),
    (105, 200_000, "DR"),
    (106, 200_000, "DR_2"),
    (107, 200_000, "SR"),
    (108, 200_000, "VR"),
    (109, 400_000, "CR2"),
    (110, 400_000, "KR2"),
    (111, 400_000, "DR2"),
    (112, 400_000, "DR2_2"),
    (113, 400_000, "SR2"),
    (114, 400_000, "VR2"),
];
/// The same of half duplex modes.
const HALF: [(u32, u32, &str); 5] =
    [(0, 10, "T"), (2, 100, "T"), (4, 1_000, "T"), (90, 100, "FX"), (100, 10, "T1S")];
/// Bits of kinds of ports.
const PORTS: [(u32, &str); 6] =
    [(7, "TP"), (8, "AUI"), (9, "MII"), (10, "FIBRE"), (11, "BNC"), (16, "Backplane")];
/// Bytes a second of a Mbit/s, which is what other speeds of interfaces are counted in.
const BYTES_PER_SECOND: f64 = 1_000_000.0 / 8.0;

/// A speed that a link can have.
#[derive(Debug, PartialEq)]
pub(super) struct Speed {
    /// As the kernel calls it, `1000baseT`.
    pub(super) mode: String,
    /// `full` or `half`.
    pub(super) duplex: &'static str,
    pub(super) bytes_per_second: f64,
}

/// Whether a bit is set.
pub(super) fn has(modes: u128, bit: u32) -> bool {
    modes.checked_shr(bit).is_some_and(|rest| rest & 1 == 1)
}

/// The speeds among some modes.
pub(super) fn speeds(modes: u128) -> impl Iterator<Item = Speed> {
    let full = FULL.iter().map(|mode| (mode, "full"));
    let all = full.chain(HALF.iter().map(|mode| (mode, "half")));
    all.filter(move |((bit, ..), _)| has(modes, *bit)).map(|((_, megabits, medium), duplex)| Speed {
        mode: format!("{megabits}base{medium}"),
        duplex,
        bytes_per_second: f64::from(*megabits) * BYTES_PER_SECOND,
    })
}

/// The kinds of ports among some modes.
pub(super) fn ports(modes: u128) -> impl Iterator<Item = &'static str> {
    PORTS.iter().filter(move |(bit, _)| has(modes, *bit)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_speeds_and_ports() {
        let modes = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 39 | 1u128 << 93;
        let shown: Vec<String> =
            speeds(modes).map(|s| format!("{} {} {}", s.mode, s.duplex, s.bytes_per_second)).collect();
        let want = [
            "1000baseT full 125000000",
            "100000baseLR4_ER4 full 12500000000",
            "800000baseCR8 full 100000000000",
            "1000baseT half 125000000",
        ];
        assert_eq!(shown, want);
        assert_eq!(ports(modes).collect::<Vec<_>>(), ["TP"]);
        assert!(FULL.windows(2).all(|pair| pair[0].0 < pair[1].0), "one entry a bit");
        assert!(!has(u128::MAX, 128));
    }
}
