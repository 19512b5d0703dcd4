//! Tells whether any network interface has changed, by listening to route netlink: one system call a reading
//! instead of several files for each interface.

use rustix::fd::OwnedFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use std::path::Path;

/// `RTMGRP_LINK`: interfaces that come, go or change.
const LINKS: u32 = 1;
/// Messages that are taken in one reading; behind more the next reading goes on.
const MESSAGES_MAX: u32 = 1_024;
/// What a message says does not matter, so its beginning is enough.
const PEEK_BYTES: usize = 16;

/// A socket that hears of changes.
#[derive(Debug)]
pub(super) struct LinkWatch {
    socket: Option<OwnedFd>,
}

impl LinkWatch {
    /// Listens for the interfaces that `sysfs` shows. Those of another network namespace, mounted elsewhere,
    /// cannot be listened for.
    pub(super) fn new(sysfs: &Path) -> Self {
        let socket = (sysfs == Path::new("/sys")).then(|| listen().ok()).flatten();
        LinkWatch { socket }
    }

    /// Whether something may have changed since the last call; `None` if nobody can tell.
    pub(super) fn has_changed(&mut self) -> Option<bool> {
        let socket = self.socket.as_ref()?;
        let mut peek = [0u8; PEEK_BYTES];
        for message in 0..MESSAGES_MAX {
            match rustix::net::recv(socket, &mut peek[..], RecvFlags::DONTWAIT) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Some(message > 0),
                // More than the socket holds came at once.
                Err(rustix::io::Errno::NOBUFS) => return Some(true),
                Err(error) => {
                    tracing::debug!(%error, "Changes of interfaces are not told any more");
                    self.socket = None;
                    return None;
                }
            }
        }
        Some(true)
    }
}

fn listen() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is the route family.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, LINKS))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_elsewhere_are_not_listened_for_and_quiet_ones_have_not_changed() {
        assert_eq!(LinkWatch::new(Path::new("/host/sys")).has_changed(), None);
        let mut here = LinkWatch::new(Path::new("/sys"));
        // Whoever runs this may have no netlink, or a busy network; an answer comes at once in any case.
        let _ = here.has_changed();
    }
}
