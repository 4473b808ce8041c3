//! One network namespace: made, entered, and removed with all that runs in it.
//!
//! Child processes are started by `ip netns exec`; code of the test itself
//! enters on a thread of its own, since a namespace belongs to a thread.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Addresses;

/// Namespaces of this lab are called `<PREFIX><pid>-<number>-<role>`.
const PREFIX: &str = "taciturn-lab-";

/// Tells apart the labs of one test process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace that lives as long as this value.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = Self {
            name: format!("{PREFIX}{}-{number}-{role}", std::process::id()),
        };
        run(Command::new("ip").args(["netns", "add", &namespace.name]));
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside, with nothing to read.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command inside to its end; panics if it fails.
    pub(crate) fn run(&self, line: &[&str]) {
        run(self.command(line[0]).args(&line[1..]));
    }

    /// Configures the network inside.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments));
    }

    /// Sets a kernel setting of this namespace, by its path below `/proc/sys`.
    pub(crate) fn write_setting(&self, path: &str, value: &str) {
        let file = format!("/proc/sys/{path}");
        self.enter(|| fs::write(&file, value))
            .unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// Lets the commands that run inside find `name`, and no other but their own.
    pub(crate) fn know(&self, name: &str, addresses: Addresses) {
        // Chromium asks with a dot at the end.
        let lines = addresses
            .all()
            .map(|address| format!("{address} {name} {name}.\n"));
        let hosts = format!("127.0.0.1 localhost\n{}", lines.concat());
        // Refused at once, while a server out of reach would be waited for.
        let resolver = "nameserver 127.0.0.1\n";
        let directory = files(&self.name);
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("hosts"), hosts))
            .and_then(|()| fs::write(directory.join("resolv.conf"), resolver))
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    }

    /// Runs `work` inside. Sockets that it opens stay inside for good.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let file = File::open(&path).expect("the namespace exists");
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter a namespace");
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes what test processes that were killed have left behind.
pub(crate) fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for name in entries.flatten().map(|entry| entry.file_name()) {
        let Some(name) = name.to_str() else { continue };
        if let Some(owner) = owner(name)
            && !is_running(owner)
        {
            remove(name);
        }
    }
}

/// The test process that made the namespace of this name.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Whether a process runs; one that nobody has waited for after its end does not.
fn is_running(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

/// Ends what runs in a namespace of ours, then removes it. Goes on after
/// errors: it also runs while a test is failing.
fn remove(name: &str) {
    if let Ok(pids) = Command::new("ip").args(["netns", "pids", name]).output() {
        String::from_utf8_lossy(&pids.stdout)
            .lines()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
            // The test's own threads count as inside while they are there.
            .filter(|pid| *pid != rustix::process::getpid())
            .for_each(|pid| {
                kill_process(pid, Signal::KILL).ok();
            });
    }
    let mut delete = Command::new("ip");
    delete.args(["netns", "delete", name]).output().ok();
    fs::remove_dir_all(files(name)).ok();
}

/// What commands inside find in `/etc` instead of this machine's files.
fn files(name: &str) -> PathBuf {
    Path::new("/etc/netns").join(name)
}

fn run(command: &mut Command) {
    let output = command.output().expect("the command is installed");
    assert!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
}
