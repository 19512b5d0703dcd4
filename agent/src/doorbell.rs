//! A doorbell that can be rung for later: the sampling thread sets it, the push listens.
//!
//! Frames go out a little after their readings, each node at a moment of its own. Whichever thread slept until
//! then would wake up once more a second, into cold caches, for nothing; the kernel's timer wakes only who has
//! work to do.
#![expect(unsafe_code, reason = "tokio watches a descriptor of ours only on our word that it stays open")]

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A ring so recent may not have been heard yet, and setting the timer anew would take it back.
const HEARD_WITHIN: Duration = Duration::from_millis(20);

/// The bell.
#[derive(Debug)]
pub struct Doorbell {
    timer: OwnedFd,
    /// When it rings next, or has rung last.
    due: Mutex<Option<Instant>>,
}

impl Doorbell {
    /// A bell that is still.
    ///
    /// # Errors
    /// If the system gives no timer.
    pub fn new() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK.union(TimerfdFlags::CLOEXEC))?;
        Ok(Doorbell { timer, due: Mutex::new(None) })
    }

    /// Rings once, when `delay` has passed; sooner if it is set to ring sooner already.
    pub fn ring_in(&self, delay: Duration) {
        self.ring_at(Instant::now(), delay);
    }

    fn ring_at(&self, now: Instant, mut delay: Duration) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(due) = *due {
            if now < due && due <= now + delay {
                return;
            }
            if due <= now && now - due < HEARD_WITHIN {
                delay = Duration::ZERO;
            }
        }
        *due = Some(now + delay);
        // A timer set to zero would be switched off.
        let delay = delay.max(Duration::from_nanos(1));
        let value = Timespec { tv_sec: delay.as_secs() as i64, tv_nsec: delay.subsec_nanos().into() };
        let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let set = Itimerspec { it_interval: interval, it_value: value };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &set) {
            tracing::error!(%error, "The push cannot be told of a frame");
        }
    }
}

/// Who hears the bell. One that has rung before is heard once by a new listener.
#[derive(Debug)]
pub struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    /// Begins to listen; wants a runtime.
    ///
    /// # Errors
    /// If the runtime cannot watch the timer.
    pub fn new(bell: &Doorbell) -> io::Result<Self> {
        // A descriptor of its own, for a runtime watches each but once.
        let timer = bell.timer.try_clone()?;
        // SAFETY: the `AsyncFd` owns the descriptor and gives it to nobody: it stays open and the same.
        let watched = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        Ok(Listener(watched?))
    }

    /// Waits for a ring. The timer is not read: each ring is an event for everybody who listens, and one system
    /// call less.
    ///
    /// # Errors
    /// If the runtime ends.
    pub fn poll_rung(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(context))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn heard(listener: &Listener) {
        poll_fn(|context| listener.poll_rung(context)).await.unwrap();
    }

    fn is_still(bell: &Doorbell) -> bool {
        rustix::io::read(&bell.timer, &mut [0; 8]).is_err()
    }

    #[tokio::test]
    async fn a_ring_is_heard_by_all_who_listen_and_by_who_comes_later() {
        let bell = Doorbell::new().unwrap();
        let listener = || Listener::new(&bell).unwrap();
        let first = listener();
        bell.ring_in(Duration::ZERO);
        heard(&first).await;
        let second = listener();
        heard(&second).await;
        for _ in 0..3 {
            bell.ring_in(Duration::from_millis(1));
            heard(&first).await;
            heard(&second).await;
        }
    }

    #[tokio::test]
    async fn a_later_ring_neither_delays_nor_takes_back_an_earlier_one() {
        let bell = Doorbell::new().unwrap();
        let (now, hour) = (Instant::now(), Duration::from_secs(3_600));
        bell.ring_at(now, hour);
        assert!(is_still(&bell));
        bell.ring_at(now, Duration::ZERO);
        bell.ring_at(now + Duration::from_millis(1), hour);
        heard(&Listener::new(&bell).unwrap()).await;
    }

    #[test]
    fn rings_in_quick_succession_do_not_put_it_off_for_ever() {
        let bell = Doorbell::new().unwrap();
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let due = || *bell.due.lock().unwrap();
        for tick in 0..4u32 {
            bell.ring_at(now + tick * second / 2, 2 * second);
            assert_eq!(due(), Some(now + 2 * second), "the first ring stands");
        }
        bell.ring_at(now + 3 * second, 2 * second);
        assert_eq!(due(), Some(now + 5 * second));
    }
}
