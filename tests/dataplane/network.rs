//! A network namespace with nothing but a loopback of its own, for tests that bend it.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// It is removed when it is dropped; what runs in it goes on there.
pub(crate) struct Network(String);

impl Network {
    /// A namespace whose loopback carries packets of so many bytes.
    pub(crate) fn with_mtu(mtu: u32) -> Self {
        let thread = format!("{:?}", thread::current().id());
        let number: String = thread.chars().filter(char::is_ascii_digit).collect();
        let network = Self(format!("taciturn-mtu-{}-{number}", std::process::id()));
        ip(&["netns", "add", &network.0]);
        let loopback = ["-n", &network.0, "link", "set", "lo", "up", "mtu"];
        ip(&[&loopback[..], &[&mtu.to_string()]].concat());
        network
    }

    /// Runs `work` inside, on a thread of its own, since a namespace belongs to a thread; threads
    /// that it starts are inside too.
    pub(crate) fn enter(&self, work: impl FnOnce() + Send) {
        let path = format!("/run/netns/{}", self.0);
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let file = File::open(&path).unwrap();
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work();
            });
            if let Err(panic) = inside.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        Command::new("ip")
            .args(["netns", "delete", &self.0])
            .output()
            .ok();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {said}");
}
