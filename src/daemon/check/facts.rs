//! What the machine is, as far as warnings need it. What the kernel does not tell stays unknown,
//! and nothing is warned of.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use rustix::fs::Access;

use crate::config::Settings;
use crate::dataplane::sys::{self, SocketOptions, UdpSocket};

/// Which bit of `CapEff` lets a process bind ports below 1024; linux/capability.h.
const CAP_NET_BIND_SERVICE: u32 = 10;

/// What was found out.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The addresses of this machine's interfaces.
    pub(super) addresses: Vec<IpAddr>,
    /// What the kernel grants of `listen.receive_buffer`.
    pub(super) listen_buffer: Option<usize>,
    /// What the kernel grants of `relay.receive_buffer`.
    pub(super) relay_buffer: Option<usize>,
    /// What it grants of any buffer to a process that has no privilege.
    pub(super) rmem_max: Option<usize>,
    /// Ports that the kernel gives to programs that ask for any.
    pub(super) ephemeral: Option<RangeInclusive<u16>>,
    /// Ports that it does not give them all the same.
    pub(super) reserved: Vec<RangeInclusive<u16>>,
    /// The hard limit of descriptors.
    pub(super) descriptors: Option<u64>,
    /// The least port that needs no privilege.
    pub(super) unprivileged_port: Option<u16>,
    /// Whether this process may bind ports below that.
    pub(super) binds_low_ports: Option<bool>,
    /// The place of `state.dir`, where there is one.
    pub(super) state: Option<Place>,
    /// UDP ports that answer nobody when they are free, by the table of deploy/nftables.
    pub(super) silent_ports: Option<Vec<RangeInclusive<u16>>>,
    /// Whether the wall clock is kept right.
    pub(super) clock_synchronised: Option<bool>,
    /// Seconds of the Unix epoch.
    pub(super) now: u64,
    /// Cores that this process may use.
    pub(super) cores: usize,
}

/// A directory, there or to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// It, or the nearest directory above it that is there.
    pub(super) nearest: PathBuf,
    /// Whether that is the directory itself.
    pub(super) is_there: bool,
    /// Whether what is there is a directory.
    pub(super) is_directory: bool,
    /// Whether this process may write in it.
    pub(super) is_writable: bool,
    /// Who may do what, as `chmod` counts it.
    pub(super) mode: u32,
}

impl Place {
    /// Looks at `directory`, or at what is above it; none when the machine does not say.
    fn of(directory: &Path) -> Option<Self> {
        let directory = std::path::absolute(directory).ok()?;
        let (nearest, metadata) = directory
            .ancestors()
            .find_map(|place| Some((place, fs::metadata(place).ok()?)))?;
        Some(Self {
            nearest: nearest.to_owned(),
            is_there: nearest == directory,
            is_directory: metadata.is_dir(),
            is_writable: rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
            mode: metadata.permissions().mode() & 0o7777,
        })
    }
}

impl Facts {
    /// Asks the machine.
    pub(super) fn gather(settings: &Settings) -> anyhow::Result<Self> {
        let addresses = sys::local_addresses().context("cannot list this machine's addresses")?;
        let sysctl = |name| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
        let rmem_max = fs::read_to_string("/proc/sys/net/core/rmem_max").ok();
        let status = fs::read_to_string("/proc/self/status").ok();
        Ok(Self {
            addresses,
            listen_buffer: granted(settings.listen.receive_buffer),
            relay_buffer: granted(settings.relay.receive_buffer),
            rmem_max: rmem_max.and_then(|text| text.trim().parse().ok()),
            ephemeral: sysctl("ip_local_port_range").and_then(|text| port_range(&text)),
            reserved: sysctl("ip_local_reserved_ports")
                .map(|text| port_list(&text))
                .unwrap_or_default(),
            descriptors: sys::hard_descriptor_limit().ok(),
            unprivileged_port: sysctl("ip_unprivileged_port_start")
                .and_then(|text| text.trim().parse().ok()),
            binds_low_ports: status.and_then(|text| has_capability(&text, CAP_NET_BIND_SERVICE)),
            state: settings.state.dir.as_deref().and_then(Place::of),
            silent_ports: silent_ports(),
            clock_synchronised: sys::clock_is_synchronised().ok(),
            now: sys::unix_seconds(),
            cores: sys::allowed_cpus().len().max(1),
        })
    }
}

/// Bytes of receive buffer that a socket gets which asks for so many.
pub(super) fn granted(receive_buffer: usize) -> Option<usize> {
    let options = SocketOptions {
        receive_buffer,
        dscp: 0,
    };
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = UdpSocket::relay(anywhere, &options).ok()?;
    socket.receive_buffer().ok()
}

/// The ports that the table `inet taciturn` keeps silent. Only root, and who has CAP_NET_ADMIN, may
/// list it; that there is no such table is told from not being told.
fn silent_ports() -> Option<Vec<RangeInclusive<u16>>> {
    // A service's path may be without /usr/sbin.
    let output = ["nft", "/usr/sbin/nft"].into_iter().find_map(|nft| {
        let mut list = Command::new(nft);
        list.args(["list", "table", "inet", "taciturn"]);
        list.stdin(Stdio::null()).output().ok()
    })?;
    let absent = String::from_utf8_lossy(&output.stderr).contains("No such file");
    if absent {
        return Some(Vec::new());
    }
    let table = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| dropped_ports(&table))
}

/// `udp dport 49152-65535 drop`, behind the hook of what comes in.
fn dropped_ports(table: &str) -> Vec<RangeInclusive<u16>> {
    if !table.contains("hook input") || !table.contains("socket wildcard") {
        return Vec::new();
    }
    let lines = table.lines().map(str::trim);
    let dropped = lines.filter_map(|line| line.strip_prefix("udp dport ")?.strip_suffix(" drop"));
    dropped.flat_map(port_list).collect()
}

/// `32768 60999`, with any space between.
fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace();
    let first = words.next()?.parse().ok()?;
    let last = words.next()?.parse().ok()?;
    Some(first..=last)
}

/// `8080,9148-9200`
fn port_list(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

/// Whether `/proc/self/status` says that a capability is in effect.
fn has_capability(status: &str, bit: u32) -> Option<bool> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_the_kernel_writes_them() {
        assert_eq!(port_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(port_range("32768"), None);
        assert_eq!(port_list("\n"), []);
        assert_eq!(port_list("8080,9148-9200\n"), [8080..=8080, 9148..=9200]);
    }

    #[test]
    fn silent_ports_are_read_as_nft_lists_them() {
        let table = "table inet taciturn {\n\tchain relay_ports {\n\
                     \t\ttype filter hook input priority filter - 5; policy accept;\n\
                     \t\tudp dport 49152-65535 socket wildcard { 0, 1 } accept\n\
                     \t\tudp dport 49152-65535 drop\n\t}\n}\n";
        assert_eq!(dropped_ports(table), [49152..=65535]);
        assert_eq!(dropped_ports(&table.replace("input", "forward")), []);
        assert_eq!(dropped_ports(&table.replace(" drop", " reject")), []);
        let bound_too = table.replace("socket wildcard { 0, 1 } ", "");
        assert_eq!(dropped_ports(&bound_too), []);
    }

    #[test]
    fn a_capability_is_read_from_the_mask_in_effect() {
        let status = "CapPrm:\t00000000000004ff\nCapEff:\t0000000000000400\n";
        assert_eq!(has_capability(status, CAP_NET_BIND_SERVICE), Some(true));
        assert_eq!(has_capability(status, 9), Some(false));
        assert_eq!(has_capability("Name:\ta\n", 9), None);
    }

    #[test]
    fn a_directory_to_be_made_is_judged_by_what_is_above_it() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let there = Place {
            nearest: home.path().to_owned(),
            is_there: true,
            is_directory: true,
            is_writable: true,
            mode: 0o700,
        };
        assert_eq!(Place::of(home.path()), Some(there.clone()));
        let absent = Place {
            is_there: false,
            ..there
        };
        assert_eq!(Place::of(&home.path().join("a/b")), Some(absent));
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        for below in [file.clone(), file.join("a")] {
            assert!(!Place::of(&below).unwrap().is_directory);
        }
    }

    #[test]
    fn a_small_buffer_is_granted_whole() {
        assert!(granted(8192).unwrap() >= 8192);
    }

    #[test]
    fn this_machine_has_addresses_cores_and_limits() {
        let sources = crate::config::Sources::default();
        let settings = crate::config::load(&sources).unwrap().settings;
        let facts = Facts::gather(&settings).unwrap();
        assert!(facts.addresses.contains(&Ipv4Addr::LOCALHOST.into()));
        assert!(facts.cores > 0 && facts.descriptors > Some(0));
        assert!(facts.ephemeral.is_some() && facts.clock_synchronised.is_some());
    }
}
