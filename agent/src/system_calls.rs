//! The two system calls that no safe wrapper covers: `adjtimex` and `localtime_r`.
#![expect(unsafe_code, reason = "neither the standard library nor rustix wraps adjtimex and localtime_r")]

use std::ffi::CStr;
use std::io;

/// State of the kernel's clock discipline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockDiscipline {
    /// Whether the clock is synchronised to a reliable server.
    pub(crate) synchronised: bool,
    /// The kernel's numbers.
    pub(crate) timex: libc::timex,
}

/// Asks the kernel for the state of its clock discipline; changes nothing.
///
/// # Errors
/// What the system says.
pub(crate) fn clock_discipline() -> io::Result<ClockDiscipline> {
    let mut timex = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: `timex` points to a zeroed, writable struct of the type that the call expects; zero in
    // `modes` makes the call read only. All bit patterns of its integer fields are valid.
    let (state, timex) = unsafe {
        let state = libc::adjtimex(timex.as_mut_ptr());
        (state, timex.assume_init())
    };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ClockDiscipline { synchronised: state != libc::TIME_ERROR, timex })
}

/// Name and offset (seconds east of UTC) of the local time zone at a moment.
pub(crate) fn local_time_zone(unix_seconds: i64) -> Option<(String, i64)> {
    let mut broken_down = std::mem::MaybeUninit::<libc::tm>::zeroed();
    let seconds: libc::time_t = unix_seconds;
    // SAFETY: both pointers lead to live values of the right types; on success the call has filled the
    // struct, and `tm_zone` points to a string that lives until the zone is changed by `tzset`, which
    // nobody calls meanwhile (`localtime_r` sets the zone at its first call only).
    unsafe {
        if libc::localtime_r(&raw const seconds, broken_down.as_mut_ptr()).is_null() {
            return None;
        }
        let broken_down = broken_down.assume_init();
        let zone = if broken_down.tm_zone.is_null() {
            String::new()
        } else {
            CStr::from_ptr(broken_down.tm_zone).to_string_lossy().into_owned()
        };
        Some((zone, broken_down.tm_gmtoff))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_calls_answer() {
        let (zone, offset) = super::local_time_zone(0).unwrap();
        assert!(!zone.is_empty() && offset.abs() <= 14 * 3_600);
        // Containers may forbid it; then it must say so.
        if let Ok(discipline) = super::clock_discipline() {
            assert!(discipline.timex.tick > 0);
        }
    }
}
