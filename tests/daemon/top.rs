//! `taciturn top` in a terminal of its own, over a real daemon with a call on it: keys go in, and its
//! screen is read.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::house::{Daemon, House, credential};
use crate::lab::Addresses;
use crate::lab::search::{assert_nothing, in_text};
use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::plane::V4;

/// Where one party is; the IPv6 address is nobody's.
const CLIENT: Addresses = Addresses {
    v4: std::net::Ipv4Addr::new(127, 41, 42, 43),
    v6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x41, 0x42, 0x43, 0, 0, 1),
};

/// A terminal and what runs in it.
struct Terminal {
    master: File,
    /// Kept, so that it outlives what runs in it.
    slave: OwnedFd,
    shown: Arc<Mutex<(vt100::Parser, Vec<u8>)>>,
    child: Child,
}

impl Terminal {
    fn open(house: &House, size: (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        let mut command =
            house.command(&["top", "--interval", "100ms", "--socket", "control.sock"]);
        let end = || slave.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end());
        resize(&slave, size);
        let [rows, columns] = [size.1, size.0].map(|side| NonZeroU16::new(side).unwrap());
        let parser = vt100::Parser::new(rows, columns, 0);
        let shown = Arc::new(Mutex::new((parser, Vec::new())));
        let master = File::from(master);
        let mut reads = master.try_clone().unwrap();
        let screen = Arc::clone(&shown);
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(length) = reads.read(&mut bytes) {
                let mut shown = screen.lock().unwrap();
                shown.0.process(&bytes[..length]);
                shown.1.extend_from_slice(&bytes[..length]);
            }
        });
        let child = command.spawn().unwrap();
        Self {
            master,
            slave,
            shown,
            child,
        }
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn screen(&self) -> String {
        self.shown.lock().unwrap().0.screen().contents()
    }

    /// Everything that ever came.
    fn told(&self) -> Vec<u8> {
        self.shown.lock().unwrap().1.clone()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        eventually(what, || is_so(&self.screen()));
    }

    /// Whether the terminal is one's own again: it echoes, takes lines, shows its cursor and the
    /// screen from before.
    fn is_put_back(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        let shown = self.shown.lock().unwrap();
        let screen = shown.0.screen();
        modes.contains(LocalModes::ECHO | LocalModes::ICANON)
            && !screen.alternate_screen()
            && !screen.hide_cursor()
    }

    fn end(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("top ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended where all went well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn resize(slave: &OwnedFd, (columns, rows): (u16, u16)) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(slave, size).unwrap();
}

/// Two parties who talk, and one who does not.
struct Call {
    is_over: Arc<AtomicBool>,
    idle: Client,
    talking: Option<thread::JoinHandle<Client>>,
}

impl Call {
    fn begin(house: &House, daemon: &Daemon) -> Self {
        let at = std::net::IpAddr::V4(CLIENT.v4);
        let talker = credential(&house.mint("alice"));
        let mut a = Client::at(at, daemon.listener(V4), talker);
        let mut b = house.client(daemon, "bob");
        let mut idle = house.client(daemon, "carol");
        idle.allocate(V4);
        let (at_a, at_b) = (a.allocate(V4), b.allocate(V4));
        assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let talking = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                a.send_channel(0x4000, &[7; 500]);
                thread::sleep(Duration::from_millis(2));
            }
            drop(b);
            a
        });
        Self {
            is_over,
            idle,
            talking: Some(talking),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(talking) = self.talking.take() {
            talking.join().ok();
        }
    }
}

/// The id and the way in each line of the table.
fn rows(screen: &str) -> Vec<(String, bool)> {
    let lines = screen.lines();
    let lines = lines.filter(|line| {
        let id = line.get(..16).unwrap_or_default();
        id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    lines
        .map(|line| (line[..16].to_owned(), line.contains("hairpin")))
        .collect()
}

#[test]
fn what_goes_on_is_seen_sorted_filtered_and_one_allocation_ended() {
    let house = House::new("");
    let daemon = house.serve();
    let mut call = Call::begin(&house, &daemon);
    let mut top = Terminal::open(&house, (120, 30));
    let quiet_last = |screen: &str| matches!(&rows(screen)[..], [a, b, c] if a.1 && b.1 && !c.1);
    top.wait_for("the call stands before who is silent", quiet_last);
    top.wait_for("rates are shown", |screen| {
        screen.contains("3 allocations") && screen.contains('█') && screen.contains("packets/s")
    });
    let quiet = rows(&top.screen())[2].0.clone();

    top.press("r");
    top.wait_for("the order is reversed", |screen| {
        rows(screen).first().is_some_and(|row| row.0 == quiet)
    });
    top.press("t/hairpin\r");
    top.wait_for("two pass the filter", |screen| rows(screen).len() == 2);
    top.press("\u{1b}");
    // A lone escape is told from the beginning of another key by what does not follow.
    top.wait_for("all are there again", |screen| rows(screen).len() == 3);
    top.press("/");
    top.press(&quiet);
    top.press("\r");
    top.wait_for("the silent one is alone", |screen| rows(screen).len() == 1);
    top.press("x");
    top.wait_for("it asks first", |screen| {
        screen.contains(&format!("end allocation {quiet}? y/n"))
    });
    top.press("y");
    top.wait_for("it is told", |screen| {
        screen.contains(&format!("ended {quiet}"))
    });
    top.wait_for("its line is gone", |screen| rows(screen).is_empty());
    assert_eq!(call.idle.refresh(600).code(), 437);
    let listed = house.run(&["allocations", "--json", "--socket", "control.sock"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(!listed.contains(&quiet));

    top.press("\u{1b}");
    top.wait_for("the others are there", |screen| rows(screen).len() == 2);
    for size in [(10, 3), (1, 1), (200, 50), (33, 9)] {
        resize(&top.slave, size);
        thread::sleep(Duration::from_millis(250));
        assert!(
            top.child.try_wait().unwrap().is_none(),
            "it ended at {size:?}"
        );
    }
    assert!(!top.is_put_back());
    top.press("q");
    assert_eq!(top.end().code(), Some(0));
    eventually("the terminal is put back", || top.is_put_back());
    let told = top.told();
    assert_nothing(&in_text(CLIENT, &told), "on the screen");
    assert!(String::from_utf8_lossy(&told).contains(&quiet));
    for name in ["alice", "bob", "carol"] {
        assert!(!String::from_utf8_lossy(&told).contains(name), "{name}");
    }
}

#[test]
fn however_it_ends_the_terminal_is_put_back() {
    let house = House::new("");
    let mut daemon = house.serve();
    for end in ["ctrl-c", "term", "hangup"] {
        let mut top = Terminal::open(&house, (80, 24));
        top.wait_for("it is there", |screen| screen.contains("0 allocations"));
        assert!(!top.is_put_back());
        let pid = Pid::from_child(&top.child);
        match end {
            "ctrl-c" => top.press("\u{3}"),
            "term" => kill_process(pid, Signal::TERM).unwrap(),
            _ => kill_process(pid, Signal::HUP).unwrap(),
        }
        assert_eq!(top.end().code(), Some(0), "{end}");
        eventually("the terminal is put back", || top.is_put_back());
    }
    // A daemon that goes is told of, and found again.
    let mut top = Terminal::open(&house, (80, 24));
    top.wait_for("it is there", |screen| screen.contains("0 allocations"));
    daemon.stop(Signal::TERM);
    top.wait_for("it says that nobody answers", |screen| {
        screen.contains("cannot reach a daemon")
    });
    let _daemon = house.serve();
    top.wait_for("it says so no more", |screen| {
        !screen.contains("cannot reach")
    });
    top.press("q");
    assert_eq!(top.end().code(), Some(0));
}

#[test]
fn without_a_terminal_or_a_daemon_it_says_so_and_touches_nothing() {
    let house = House::new("");
    let piped = house.run(&["top", "--socket", "control.sock"]);
    let said = String::from_utf8(piped.stderr).unwrap();
    assert_eq!(
        (piped.status.code(), piped.stdout.len()),
        (Some(1), 0),
        "{said}"
    );
    assert!(
        said.contains("needs a terminal") && said.contains("taciturn status"),
        "{said}"
    );
    let mut top = Terminal::open(&house, (200, 24));
    assert_eq!(top.end().code(), Some(1));
    top.wait_for("it says so", |screen| {
        screen.contains("no taciturn runs there")
    });
    assert!(top.is_put_back());
    let told = String::from_utf8(top.told()).unwrap();
    assert!(!told.contains('\u{1b}'), "{told:?}");
}
