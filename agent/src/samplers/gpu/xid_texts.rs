//! What XIDs mean: a class to route by, and a line for people. Numbers as in NVIDIA's catalogue of XIDs.

/// Class and text of an XID.
pub(super) fn describe(xid: u32) -> (&'static str, &'static str) {
    match xid {
        8 | 109 => ("application", "A channel waited too long"),
        11 | 25 | 68 => ("application", "Invalid or corrupt work was submitted"),
        13 => ("application", "Exception in the graphics engine, most often a fault of the program"),
        31 => ("application", "Memory page fault, most often a fault of the program"),
        32 => ("application", "Corrupt push buffer, perhaps a fault of the program or of PCIe"),
        38 => ("firmware", "Firmware of the driver failed"),
        43 => ("application", "The GPU stopped processing a program"),
        44 | 56 | 57 | 58 => ("driver", "Fault in an engine of the GPU"),
        45 => ("application", "A program was cleaned up after an earlier error"),
        46 => ("driver", "The GPU stopped processing"),
        48 => ("memory", "Double-bit ECC error"),
        54 => ("power", "Auxiliary power is not connected"),
        60 | 69 => ("application", "Exception in a video or graphics engine"),
        61 => ("firmware", "Internal micro-controller breakpoint or warning"),
        62 => ("firmware", "Internal micro-controller halt"),
        63 => ("memory", "A row or page was marked for remapping"),
        64 => ("memory", "A row or page could not be marked for remapping"),
        65 | 80 => ("application", "Exception while submitting work"),
        74 => ("nvlink", "NVLink error"),
        78 => ("driver", "The vGPU did not start"),
        79 => ("bus", "The GPU has fallen off the bus"),
        92 => ("memory", "High rate of single-bit ECC errors"),
        93 => ("firmware", "The inforom could not be written"),
        94 => ("memory", "Contained memory error: one program was hit"),
        95 => ("memory", "Uncontained memory error: all programs are hit"),
        110 => ("security", "Security fault"),
        119 | 120 => ("firmware", "The GPU's system processor (GSP) does not answer or failed"),
        121 => ("nvlink", "Error on the chip-to-chip link"),
        122 | 123 => ("firmware", "Fault of a firmware interface (SPI, power management)"),
        140 => ("memory", "Unrecovered ECC error"),
        143 => ("firmware", "The GPU did not start"),
        144..=150 => ("nvlink", "NVLink 5 error"),
        154 => ("recovery", "The GPU asks for a recovery action"),
        155 => ("nvlink", "NVLink state change after an error"),
        156 | 160 => ("memory", "Memory was retired"),
        157 | 161 => ("memory", "Memory could not be retired"),
        158 => ("memory", "Fatal memory error"),
        _ => ("other", "See NVIDIA's catalogue of XIDs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_shipped_rules() {
        let rules = include_str!("../../../../rules/gpu.yml");
        let mut class = None;
        let mut compared = 0;
        let mut numbers = Vec::new();
        for line in rules.lines().map(str::trim) {
            if line.starts_with("expr: DCGM_FI_DEV_XID_ERRORS") {
                let words = line.split("== ").skip(1).filter_map(|word| word.split(' ').next());
                numbers = words.filter_map(|word| word.parse::<u32>().ok()).collect();
            } else if let Some(name) = line.strip_prefix("class: ") {
                class = Some(name);
            }
            if let Some(class) = class.take() {
                for xid in numbers.drain(..) {
                    assert_eq!(describe(xid).0, class, "XID {xid}");
                    compared += 1;
                }
            }
        }
        assert!(compared > 10, "{compared}");
    }
}
