//! What the work costs, from /proc: CPU time and memory of the server's processes, and the busy
//! time of the whole machine.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::dataplane::sys;

/// Nanoseconds of a clock tick: USER_HZ is 100 on every Linux.
const TICK: u64 = 10_000_000;

/// Sockets of UDP, and of TCP.
pub(super) const UDP: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];
pub(super) const TCP: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// The processes that have UDP port `port` of this machine, as far as we may see them.
pub(super) fn processes_with_port(port: u16, tables: &[&str]) -> Vec<u32> {
    let mut sockets = HashSet::new();
    for table in tables {
        let text = fs::read_to_string(table).unwrap_or_default();
        sockets.extend(sockets_with_port(&text, port));
    }
    if sockets.is_empty() {
        return Vec::new();
    }
    let own = std::process::id();
    let mut found: Vec<u32> = numbers_in(Path::new("/proc"))
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
                return false;
            };
            descriptors
                .flatten()
                .filter_map(|entry| fs::read_link(entry.path()).ok())
                .any(|link| link.to_str().is_some_and(|link| sockets.contains(link)))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The names by which /proc/PID/fd calls the sockets with this local port.
fn sockets_with_port(table: &str, port: u16) -> impl Iterator<Item = String> {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let inode = fields.nth(7)?;
        local
            .ends_with(&suffix)
            .then(|| format!("socket:[{inode}]"))
    })
}

fn numbers_in(folder: &Path) -> impl Iterator<Item = u32> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Nanoseconds of CPU time that the threads of these processes have had.
pub(super) fn process_nanos(pids: &[u32]) -> Option<u64> {
    let mut total = None;
    for pid in pids {
        let folder = format!("/proc/{pid}/task");
        for task in numbers_in(Path::new(&folder)) {
            if let Ok(text) = fs::read_to_string(format!("{folder}/{task}/schedstat")) {
                *total.get_or_insert(0) += schedstat(&text).unwrap_or(0);
            }
        }
    }
    total
}

/// Nanoseconds of CPU time that the calling thread has had.
pub(super) fn thread_nanos() -> Option<u64> {
    schedstat(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

fn schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Bytes of memory that these processes have resident.
pub(super) fn resident(pids: &[u32]) -> Option<u64> {
    pids.iter()
        .map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            resident_of(&status)
        })
        .sum()
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Time of all CPUs of the machine together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) busy: u64,
    /// Time that the hypervisor gave to others.
    pub(super) stolen: u64,
    pub(super) cpus: usize,
}

/// What the machine has done so far.
pub(super) fn machine() -> Option<Machine> {
    machine_of(&fs::read_to_string("/proc/stat").ok()?)
}

fn machine_of(stat: &str) -> Option<Machine> {
    let mut lines = stat.lines();
    let fields: Vec<u64> = lines
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest times are part of user's.
    let &[user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = &fields[..] else {
        return None;
    };
    Some(Machine {
        busy: (user + nice + system + irq + softirq) * TICK,
        stolen: steal * TICK,
        cpus: lines.filter(|line| line.starts_with("cpu")).count(),
    })
}

/// What was used up to some moment, or between two.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) server: Option<u64>,
    pub(super) load: Option<u64>,
    pub(super) machine: Option<Machine>,
    /// Since some moment, or between two.
    pub(super) elapsed: Duration,
}

impl Used {
    pub(super) fn now(pids: &[u32]) -> Self {
        Self {
            server: process_nanos(pids),
            load: thread_nanos(),
            machine: machine(),
            elapsed: Duration::from_nanos(sys::monotonic_nanos()),
        }
    }

    pub(super) fn since(self, before: Self) -> Self {
        let less = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        Self {
            server: less(self.server, before.server),
            load: less(self.load, before.load),
            machine: self
                .machine
                .zip(before.machine)
                .map(|(now, before)| Machine {
                    busy: now.busy.saturating_sub(before.busy),
                    stolen: now.stolen.saturating_sub(before.stolen),
                    cpus: now.cpus,
                }),
            elapsed: self.elapsed.saturating_sub(before.elapsed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_sockets_is_understood() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             11: 0100007F:0D96 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000 0\n\
             12: 00000000:10D96 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000 0\n\
             13: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4713 2 0000 0\n";
        let found: Vec<String> = sockets_with_port(table, 3478).collect();
        assert_eq!(found, ["socket:[4711]"]);
    }

    #[test]
    fn the_figures_of_the_kernel_are_understood() {
        let stat = "cpu  100 1 50 9000 7 2 3 40 0 0\ncpu0 50 0 25 4500 3 1 1 20 0 0\ncpu1 50 1 25 4500 4 1 2 20 0 0\nintr 1 2\n";
        let expected = Machine {
            busy: 156 * TICK,
            stolen: 40 * TICK,
            cpus: 2,
        };
        assert_eq!(machine_of(stat), Some(expected));
        assert_eq!(machine_of("nonsense"), None);
        assert_eq!(schedstat("123456 7 8\n"), Some(123_456));
        assert_eq!(resident_of("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12_288));
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let own = [std::process::id()];
        assert!(process_nanos(&own).unwrap() > 0);
        // The kernel brings it up to date at a tick or a switch.
        assert!(thread_nanos().is_some());
        assert!(resident(&own).unwrap() > 100_000);
        assert!(machine().unwrap().cpus > 0);
    }

    #[test]
    fn the_process_behind_a_port_is_found_but_for_our_own() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(!processes_with_port(port, &UDP).contains(&std::process::id()));
    }
}
