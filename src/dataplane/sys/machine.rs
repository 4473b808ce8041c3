//! What the machine is and allows: its addresses, clocks, CPUs and limits.

use std::fs;
use std::io;
use std::mem::size_of_val;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

use libc::{c_ulong, cpu_set_t, pid_t, rlimit, timespec};

use super::abi::outcome;

/// Destinations whose route is the default route wherever there is one: root name servers.
const PUBLIC_V4: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
const PUBLIC_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30);

/// Words of a CPU mask, enough for the 8,192 CPUs a kernel can be built for.
const MASK_WORDS: usize = 128;
const WORD_BITS: usize = usize::BITS as usize;
const CALLING_THREAD: pid_t = 0;
const NOT_DUMPABLE: c_ulong = 0;

/// The addresses of all interfaces that are up, loopback included; IPv6 link-local ones are left
/// out, as they mean nothing without an interface.
///
/// # Errors
/// If the kernel does not list them.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for interface in if_addrs::get_if_addrs()? {
        let address = interface.ip();
        let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        if interface.is_oper_up() && !link_local && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// The source addresses the kernel would choose towards the internet, at most one of each family;
/// an IPv6 one only if it is global. Sends nothing.
pub fn default_route_addresses() -> Vec<IpAddr> {
    let v4 = source_towards(Ipv4Addr::UNSPECIFIED.into(), PUBLIC_V4.into());
    let v6 = source_towards(Ipv6Addr::UNSPECIFIED.into(), PUBLIC_V6.into());
    let v6 = v6.filter(|address| matches!(address, IpAddr::V6(address) if is_global(*address)));
    v4.into_iter().chain(v6).collect()
}

fn source_towards(any: IpAddr, destination: IpAddr) -> Option<IpAddr> {
    const ANY_PORT: u16 = 9;
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket
        .connect(SocketAddr::new(destination, ANY_PORT))
        .ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

/// Whether it is in 2000::/3, all that is assigned for global unicast.
const fn is_global(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xe000 == 0x2000
}

/// Nanoseconds of the clock that never steps back, since some moment before the process began.
pub fn monotonic_nanos() -> u64 {
    let mut time = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes `time` only. It cannot fail: every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Nanoseconds for which CPUs have worked for this process, in user mode and in the kernel.
pub fn process_cpu_nanos() -> u64 {
    let mut time = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes `time` only. It cannot fail: every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Seconds since 1970 by the wall clock; 0 if it is set before.
pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Keeps the calling thread on `cpu`.
///
/// # Errors
/// If there is no such CPU, or the process may not use it.
pub fn pin_current_thread(cpu: usize) -> io::Result<()> {
    let mut mask = [0_usize; MASK_WORDS];
    let word = mask
        .get_mut(cpu / WORD_BITS)
        .ok_or(io::ErrorKind::InvalidInput)?;
    *word = 1 << (cpu % WORD_BITS);
    let mask_pointer = (&raw const mask).cast::<cpu_set_t>();
    // SAFETY: the kernel reads as many bytes as `mask` has; a CPU set is an array of words.
    let returned =
        unsafe { libc::sched_setaffinity(CALLING_THREAD, size_of_val(&mask), mask_pointer) };
    outcome(returned).map(|_| ())
}

/// The CPUs that the calling thread may run on, in order; none if the kernel does not say.
pub fn allowed_cpus() -> Vec<usize> {
    let mut mask = [0_usize; MASK_WORDS];
    let mask_pointer = (&raw mut mask).cast::<cpu_set_t>();
    // SAFETY: the kernel writes at most as many bytes as `mask` has.
    let returned =
        unsafe { libc::sched_getaffinity(CALLING_THREAD, size_of_val(&mask), mask_pointer) };
    if outcome(returned).is_err() {
        return Vec::new();
    }
    (0..MASK_WORDS * WORD_BITS)
        .filter(|cpu| mask[cpu / WORD_BITS] >> (cpu % WORD_BITS) & 1 == 1)
        .collect()
}

/// The hard limit of descriptors, to which the process may raise its own.
///
/// # Errors
/// If the kernel does not say.
pub fn hard_descriptor_limit() -> io::Result<u64> {
    let mut limit = rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes `limit` only.
    let returned = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    outcome(returned)?;
    Ok(limit.rlim_max)
}

/// How many descriptors the process has open.
///
/// # Errors
/// If the kernel does not say.
pub fn open_descriptors() -> io::Result<usize> {
    // One of them is the directory itself.
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

/// Raises the number of descriptors the process may open to its hard limit; returns that.
///
/// # Errors
/// If the kernel refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let hard = hard_descriptor_limit()?;
    let limit = rlimit {
        rlim_cur: hard,
        rlim_max: hard,
    };
    // SAFETY: the kernel reads `limit` only.
    let returned = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    outcome(returned)?;
    Ok(hard)
}

/// Whether something, such as NTP, keeps the wall clock right, as far as the kernel was told.
///
/// # Errors
/// If the kernel does not say.
pub fn clock_is_synchronised() -> io::Result<bool> {
    // SAFETY: `timex` has integers only, for which zero is a value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes `timex` only; with no mode set it changes nothing.
    let returned = unsafe { libc::adjtimex(&raw mut timex) };
    outcome(returned)?;
    Ok(timex.status & libc::STA_UNSYNC == 0)
}

/// Keeps addresses and keys out of core files, and other processes of this user out of our memory.
///
/// # Errors
/// If the kernel refuses.
pub fn forbid_core_dumps() -> io::Result<()> {
    let nothing = rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel reads `nothing` only.
    let returned = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const nothing) };
    outcome(returned)?;
    // SAFETY: this option takes one integer and no pointer.
    let returned = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, NOT_DUMPABLE) };
    outcome(returned).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::*;

    #[test]
    fn local_addresses_have_loopback_and_nothing_link_local() {
        let addresses = local_addresses().unwrap();
        assert!(addresses.contains(&Ipv4Addr::LOCALHOST.into()));
        for address in addresses {
            UdpSocket::bind((address, 0)).unwrap();
            assert!(!matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()));
        }
    }

    #[test]
    fn default_route_addresses_are_this_machines_own() {
        let local = local_addresses().unwrap();
        for address in default_route_addresses() {
            assert!(!address.is_loopback() && local.contains(&address));
        }
    }

    #[test]
    fn only_assigned_unicast_is_global() {
        for (text, global) in [
            ("2001:db8::1", true),
            ("3fff::1", true),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::1", false),
        ] {
            assert_eq!(is_global(text.parse().unwrap()), global, "{text}");
        }
    }

    #[test]
    fn the_monotonic_clock_moves_with_time() {
        let before = monotonic_nanos();
        thread::sleep(std::time::Duration::from_millis(2));
        let passed = monotonic_nanos() - before;
        assert!((2_000_000..60_000_000_000).contains(&passed), "{passed}");
    }

    #[test]
    fn the_wall_clock_is_past_the_release_of_this_code() {
        assert!(unix_seconds() > 1_735_689_600);
    }

    #[test]
    fn a_pinned_thread_may_run_on_its_cpu_alone() {
        let cpus = allowed_cpus();
        let last = *cpus.last().unwrap();
        thread::spawn(move || {
            pin_current_thread(last).unwrap();
            assert_eq!(allowed_cpus(), [last]);
        })
        .join()
        .unwrap();
        assert_eq!(allowed_cpus(), cpus);
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_refused() {
        assert!(pin_current_thread(MASK_WORDS * WORD_BITS - 1).is_err());
        assert!(pin_current_thread(usize::MAX).is_err());
    }

    #[test]
    fn the_descriptor_limit_is_raised_to_the_hard_one() {
        let granted = raise_descriptor_limit().unwrap().to_string();
        let (soft, hard) = limit("Max open files");
        assert_eq!((soft, hard), (granted.clone(), granted));
    }

    #[test]
    fn the_hard_limit_is_the_one_the_kernel_lists() {
        let hard = hard_descriptor_limit().unwrap().to_string();
        assert_eq!(limit("Max open files").1, hard);
    }

    #[test]
    fn the_clock_is_synchronised_or_not_but_known() {
        let first = clock_is_synchronised().unwrap();
        assert_eq!(clock_is_synchronised().unwrap(), first);
    }

    #[test]
    fn core_dumps_are_forbidden() {
        forbid_core_dumps().unwrap();
        assert_eq!(limit("Max core file size").0, "0");
        // SAFETY: this option takes no pointer.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 0);
    }

    /// Soft and hard limit as the kernel lists them.
    fn limit(name: &str) -> (String, String) {
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let values = limits.lines().find_map(|line| line.strip_prefix(name));
        let mut values = values.unwrap().split_whitespace().map(str::to_owned);
        (values.next().unwrap(), values.next().unwrap())
    }
}
