//! Questions to the drivers of network interfaces, over `ioctl(SIOCETHTOOL)`: the one way to the counters that
//! a driver keeps for itself.
#![expect(
    unsafe_code,
    reason = "no safe wrapper covers SIOCETHTOOL, and netlink does not carry these counters"
)]

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;

const SIOCETHTOOL: u64 = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GLINKSETTINGS: u32 = 0x4c;
/// The set of strings that names the counters.
const ETH_SS_STATS: u32 = 1;
/// `ETH_GSTRING_LEN`
const STRING_BYTES: usize = 32;
/// Counters of one interface; large adapters with many queues have thousands.
const COUNTERS_MAX: usize = 1 << 13;
/// Room for an answer, in 64 bit words: four times what the names of that many take, should a driver get more
/// between being asked how many and telling them. The kernel does not ask how much room there is.
const ROOM_WORDS: usize = 4 * COUNTERS_MAX * STRING_BYTES / 8;
/// Words of one mask of link modes, at most: the kernel counts them in an `i8`.
const MASK_WORDS_MAX: usize = 127;

/// The parts of `struct ethtool_drvinfo` that are texts, in its order.
const DRIVER_TEXTS: usize = 5;

/// What a driver says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DriverInfo {
    /// Name, version, firmware's version, bus address, and version of the expansion ROM.
    pub(super) texts: [String; DRIVER_TEXTS],
}

/// What a port can do, and what it tells its neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkModes {
    pub(super) autonegotiates: bool,
    /// The first 128 link modes.
    pub(super) supported: u128,
    pub(super) advertised: u128,
}

/// Asks drivers. Errors are the system's: `EOPNOTSUPP` from a driver that has no answer.
pub(super) trait Drivers: Send {
    fn info(&mut self, device: &str) -> io::Result<DriverInfo>;
    fn link_modes(&mut self, device: &str) -> io::Result<LinkModes>;
    /// The names of its counters.
    fn names(&mut self, device: &str) -> io::Result<Vec<String>>;
    /// Its counters, as many as it has names.
    fn counters(&mut self, device: &str) -> io::Result<&[u64]>;
}

/// The drivers of this machine.
pub(super) struct KernelDrivers {
    socket: OwnedFd,
    /// Request and answer, as 64 bit words: the strictest alignment that any of the structures needs.
    words: Vec<u64>,
}

/// `struct ifreq` with a pointer in its union.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut u64,
    rest: [u64; 2],
}

impl KernelDrivers {
    pub(super) fn open() -> io::Result<Self> {
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        // Of what no driver ever fills the system makes no memory.
        Ok(KernelDrivers { socket, words: vec![0; ROOM_WORDS] })
    }

    /// Carries out the command in `words`.
    fn ask(&mut self, device: &str) -> io::Result<()> {
        let mut name = [0; libc::IFNAMSIZ];
        // The last byte stays zero.
        match name.get_mut(..device.len()) {
            Some(place) if device.len() < libc::IFNAMSIZ => place.copy_from_slice(device.as_bytes()),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        let mut request = Request { name, data: self.words.as_mut_ptr(), rest: [0; 2] };
        // SAFETY: `request` is laid out as `struct ifreq` and lives through the call; its name ends with a
        // zero. `data` points to a megabyte that nothing else refers to. The kernel writes there the fixed
        // structure of the command, and behind it masks of the announced length, or an entry of at most 32
        // bytes for each counter that the driver has, for which there is four times the room that its answer
        // to ETHTOOL_GSSET_INFO is allowed to call for. Any bytes are valid in a u64.
        let outcome = unsafe {
            libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, std::ptr::from_mut(&mut request))
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// A 32 bit field at a place counted in such fields.
    fn field(&self, at: usize) -> u32 {
        let word = self.words.get(at / 2).copied().unwrap_or_default().to_ne_bytes();
        let half = if at.is_multiple_of(2) { [0, 1, 2, 3] } else { [4, 5, 6, 7] };
        u32::from_ne_bytes(half.map(|at: usize| word[at]))
    }

    fn set_fields(&mut self, fields: [u32; 4]) {
        for (word, pair) in self.words.iter_mut().zip(fields.chunks_exact(2)) {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&pair[0].to_ne_bytes());
            bytes[4..].copy_from_slice(&pair[1].to_ne_bytes());
            *word = u64::from_ne_bytes(bytes);
        }
    }

    /// A text that ends with a zero or fills its place.
    fn text(&self, from: usize) -> String {
        let bytes = (from..from + STRING_BYTES).map(|at| {
            let word = self.words.get(at / 8).copied().unwrap_or_default().to_ne_bytes();
            word[at % 8]
        });
        String::from_utf8_lossy(&bytes.take_while(|byte| *byte != 0).collect::<Vec<u8>>()).into_owned()
    }

    /// How many counters a driver has.
    fn count(&mut self, device: &str) -> io::Result<usize> {
        // Command, reserved, and the mask of the sets that are asked for.
        self.set_fields([ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_STATS, 0]);
        self.ask(device)?;
        let known = self.field(2) & 1 << ETH_SS_STATS != 0;
        let count = if known { self.field(4) as usize } else { 0 };
        if count > COUNTERS_MAX {
            return Err(io::Error::other("the driver has more counters than are kept"));
        }
        Ok(count)
    }
}

impl Drivers for KernelDrivers {
    fn info(&mut self, device: &str) -> io::Result<DriverInfo> {
        self.words[..32].fill(0);
        self.set_fields([ETHTOOL_GDRVINFO, 0, 0, 0]);
        self.ask(device)?;
        Ok(DriverInfo { texts: std::array::from_fn(|at| self.text(4 + at * STRING_BYTES)) })
    }

    fn link_modes(&mut self, device: &str) -> io::Result<LinkModes> {
        // Asked without room for masks, the kernel says how many words one takes, as a negative number.
        self.words[..16].fill(0);
        self.set_fields([ETHTOOL_GLINKSETTINGS, 0, 0, 0]);
        self.ask(device)?;
        // `link_mode_masks_nwords` is the byte behind four bytes from byte 8 on, and three more.
        let words = |drivers: &Self| drivers.words[1].to_ne_bytes()[7] as i8;
        let count = usize::from(words(self).unsigned_abs()).min(MASK_WORDS_MAX);
        if words(self) >= 0 || count == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.words[..6 + 2 * count].fill(0);
        let mut second = [0; 8];
        second[7] = count as u8;
        self.set_fields([ETHTOOL_GLINKSETTINGS, 0, 0, 0]);
        self.words[1] = u64::from_ne_bytes(second);
        self.ask(device)?;
        // Two fields, eight bytes, four bytes and seven reserved fields: the masks begin at field 12.
        let mask = |which: usize| {
            let at = 12 + which * count;
            let words = (0..count.min(4)).map(|word| u128::from(self.field(at + word)) << (32 * word));
            words.fold(0, |mask, word| mask | word)
        };
        let autonegotiates = self.words[1].to_ne_bytes()[3] == 1;
        Ok(LinkModes { autonegotiates, supported: mask(0), advertised: mask(1) })
    }

    fn names(&mut self, device: &str) -> io::Result<Vec<String>> {
        let count = self.count(device)?;
        self.set_fields([ETHTOOL_GSTRINGS, ETH_SS_STATS, count as u32, 0]);
        self.ask(device)?;
        let count = (self.field(2) as usize).min(count);
        Ok((0..count).map(|at| self.text(12 + at * STRING_BYTES)).collect())
    }

    fn counters(&mut self, device: &str) -> io::Result<&[u64]> {
        let count = self.count(device)?;
        self.set_fields([ETHTOOL_GSTATS, count as u32, 0, 0]);
        self.ask(device)?;
        let count = (self.field(1) as usize).min(count);
        Ok(self.words.get(1..1 + count).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_of_this_machine_answers_or_says_that_it_cannot() {
        let mut drivers = KernelDrivers::open().unwrap();
        for entry in std::fs::read_dir("/sys/class/net").unwrap().flatten() {
            let device = entry.file_name().into_string().unwrap();
            if let Ok(info) = drivers.info(&device) {
                assert!(!info.texts[0].is_empty(), "{device}");
            }
            let _ = drivers.link_modes(&device);
            if let Ok(names) = drivers.names(&device) {
                assert!(names.iter().all(|name| !name.is_empty()), "{device}: {names:?}");
                assert_eq!(drivers.counters(&device).unwrap().len(), names.len(), "{device}");
            }
        }
        for nothing in ["", "no-such-interface0", "a-name-that-is-longer-than-any-interface-may-have"] {
            assert!(drivers.info(nothing).is_err());
            assert!(drivers.counters(nothing).is_err());
        }
    }
}
