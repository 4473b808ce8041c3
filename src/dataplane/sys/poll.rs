//! Waiting for sockets, and waking a thread that waits.
//!
//! Readiness is level-triggered: a socket left half drained is reported again, so a work budget
//! per socket loses nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use libc::{c_int, epoll_event};

use super::abi::outcome;

/// Events taken in one wait; what does not fit is reported by the next.
const EVENTS_MAX: c_int = 256;
const EVENTS_ROOM: usize = EVENTS_MAX as usize;

/// What a stream is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Until it can be read from.
    Read,
    /// Until it can be written to, or read from.
    ReadAndWrite,
    /// Until it can be written to.
    Write,
    /// Until it is gone, which is reported in any case.
    Nothing,
}

impl Interest {
    const fn events(self) -> u32 {
        match self {
            Self::Read => libc::EPOLLIN as u32,
            Self::ReadAndWrite => (libc::EPOLLIN | libc::EPOLLOUT) as u32,
            Self::Write => libc::EPOLLOUT as u32,
            Self::Nothing => 0,
        }
    }
}

/// A set of descriptors to wait for until one is ready.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        Ok(Self { epoll: own(fd)? })
    }

    /// Adds `source`; each wait that finds it readable or failed yields `token`.
    ///
    /// # Errors
    /// If it is in the set already, or cannot be waited for.
    pub fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        let mut event = epoll_event {
            events: libc::EPOLLIN as u32,
            u64: token,
        };
        self.control(libc::EPOLL_CTL_ADD, source.as_fd(), &mut event)
    }

    /// Changes what `source`, which is in the set, is waited for.
    ///
    /// # Errors
    /// If it is not in the set.
    pub fn change(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let mut event = epoll_event {
            events: interest.events(),
            u64: token,
        };
        self.control(libc::EPOLL_CTL_MOD, source.as_fd(), &mut event)
    }

    /// Takes `source` out of the set. Tokens of it that a wait has already yielded stay with the
    /// caller.
    ///
    /// # Errors
    /// If it is not in the set.
    pub fn remove(&self, source: impl AsFd) -> io::Result<()> {
        let mut event = epoll_event { events: 0, u64: 0 };
        self.control(libc::EPOLL_CTL_DEL, source.as_fd(), &mut event)
    }

    /// Waits until a source is ready or `timeout` has passed, rounded up to a millisecond; without
    /// one, as long as it takes. A signal ends it early, with nothing.
    ///
    /// # Errors
    /// Only if the set itself is broken.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Ready> {
        let mut ready = Ready {
            events: [epoll_event { events: 0, u64: 0 }; EVENTS_ROOM],
            next: 0,
            count: 0,
        };
        // SAFETY: the kernel writes at most `EVENTS_MAX` elements to `events`.
        let returned = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                ready.events.as_mut_ptr(),
                EVENTS_MAX,
                timeout.map_or(-1, whole_milliseconds),
            )
        };
        match outcome(returned) {
            Ok(count) => ready.count = count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(ready)
    }

    fn control(
        &self,
        operation: c_int,
        source: BorrowedFd<'_>,
        event: &mut epoll_event,
    ) -> io::Result<()> {
        // SAFETY: the kernel reads `event` during the call only.
        let returned = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), operation, source.as_raw_fd(), event)
        };
        outcome(returned).map(|_| ())
    }
}

/// The tokens of the sources that one wait found ready. It does not borrow the [`Poller`], so that
/// sources come and go while it is walked.
pub struct Ready {
    events: [epoll_event; EVENTS_ROOM],
    next: usize,
    count: usize,
}

impl Ready {
    /// Whether the source whose token came last has failed, or has something in its error queue.
    pub fn has_error(&self) -> bool {
        let last = self.next.checked_sub(1);
        let event = last.and_then(|index| self.events.get(index));
        event.is_some_and(|event| event.events & libc::EPOLLERR as u32 != 0)
    }
}

impl Iterator for Ready {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let event = self.events[..self.count].get(self.next)?;
        self.next += 1;
        Some(event.u64)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.count - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Ready {}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready")
            .field("left", &self.len())
            .finish_non_exhaustive()
    }
}

/// Wakes the thread whose [`Poller`] it was added to; clones wake the same one.
#[derive(Debug, Clone)]
pub struct Waker {
    event: Arc<File>,
}

impl Waker {
    /// A waker that nobody waits for yet.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        let event = Arc::new(File::from(own(fd)?));
        Ok(Self { event })
    }

    /// Makes it readable, until it is drained.
    pub fn wake(&self) {
        // The one way to fail is a full counter, which is readable already.
        (&*self.event).write_all(&1_u64.to_ne_bytes()).ok();
    }

    /// Takes back all wake-ups so far.
    pub fn drain(&self) {
        // The one way to fail is that there was none.
        (&*self.event).read_exact(&mut [0; 8]).ok();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Owns what a call that makes a descriptor returned.
fn own(fd: RawFd) -> io::Result<OwnedFd> {
    outcome(fd)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else has seen it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Rounded up, so that a deadline has passed when its wait ends.
fn whole_milliseconds(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(10));
    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn watched() -> (Poller, Waker) {
        let (poller, waker) = (Poller::new().unwrap(), Waker::new().unwrap());
        poller.add(&waker, u64::MAX).unwrap();
        (poller, waker)
    }

    #[test]
    fn a_wake_from_another_thread_ends_a_wait_without_timeout() {
        let (mut poller, waker) = watched();
        let started = Instant::now();
        let other = waker.clone();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            other.wake();
        });
        assert_eq!(poller.wait(None).unwrap().collect::<Vec<_>>(), [u64::MAX]);
        assert!(started.elapsed() >= Duration::from_millis(20));
        thread.join().unwrap();
        waker.drain();
        assert_eq!(poller.wait(NOW).unwrap().len(), 0);
    }

    #[test]
    fn a_waker_stays_ready_until_it_is_drained() {
        let (mut poller, waker) = watched();
        waker.wake();
        waker.wake();
        assert_eq!(poller.wait(LONG).unwrap().len(), 1);
        assert_eq!(poller.wait(LONG).unwrap().len(), 1);
        waker.drain();
        assert_eq!(poller.wait(NOW).unwrap().len(), 0);
        waker.drain();
        waker.wake();
        assert_eq!(poller.wait(LONG).unwrap().len(), 1);
    }

    #[test]
    fn a_wait_lasts_at_least_its_timeout() {
        let (mut poller, _waker) = watched();
        let started = Instant::now();
        let timeout = Duration::from_micros(2_100);
        assert_eq!(poller.wait(Some(timeout)).unwrap().count(), 0);
        assert!(started.elapsed() >= timeout);
    }

    #[test]
    fn timeouts_are_rounded_up_and_bounded() {
        assert_eq!(whole_milliseconds(Duration::ZERO), 0);
        assert_eq!(whole_milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(whole_milliseconds(Duration::from_millis(7)), 7);
        assert_eq!(whole_milliseconds(Duration::MAX), c_int::MAX);
    }

    #[test]
    fn sources_come_and_go_while_tokens_are_walked() {
        let (mut poller, first) = watched();
        let second = Waker::new().unwrap();
        first.wake();
        second.wake();
        for token in poller.wait(LONG).unwrap() {
            assert_eq!(token, u64::MAX);
            poller.remove(&first).unwrap();
            poller.add(&second, 2).unwrap();
        }
        assert_eq!(poller.wait(LONG).unwrap().collect::<Vec<_>>(), [2]);
        assert!(poller.remove(&first).is_err());
    }

    #[test]
    fn more_sources_than_one_wait_takes_all_get_their_turn() {
        let mut poller = Poller::new().unwrap();
        let wakers: Vec<_> = (0..300).map(|_| Waker::new().unwrap()).collect();
        for (token, waker) in (0..).zip(&wakers) {
            poller.add(waker, token).unwrap();
            waker.wake();
        }
        let mut seen: Vec<u64> = poller.wait(LONG).unwrap().collect();
        assert_eq!(seen.len(), EVENTS_ROOM);
        for token in &seen {
            wakers[usize::try_from(*token).unwrap()].drain();
        }
        seen.extend(poller.wait(LONG).unwrap());
        seen.sort_unstable();
        assert_eq!(seen, (0..300).collect::<Vec<_>>());
    }
}
