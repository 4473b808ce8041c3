//! A user at a shell of their own: no environment but what they set, a home and a runtime
//! directory that nobody shares, and servers that end with them.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// How long a server may take to answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A Binding request (RFC 8489 §5) without attributes.
const BINDING: [u8; 20] = [
    0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, b'c', b'l', b'i', b' ', b't', b'e', b's', b't', 1, 2, 3, 4,
];

/// One user.
pub(crate) struct User {
    home: TempDir,
    environment: Vec<(String, String)>,
    /// Runs a command where `/run` is empty.
    apart: Option<&'static [&'static str]>,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Stops the test unless the command ended with `code`.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }

    /// Stops the test unless standard output has every one of these.
    #[track_caller]
    pub(crate) fn out_has(&self, parts: &[&str]) {
        has(&self.out, parts);
    }

    /// Stops the test unless standard error has every one of these.
    #[track_caller]
    pub(crate) fn err_has(&self, parts: &[&str]) {
        has(&self.err, parts);
    }
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

impl User {
    pub(crate) fn new() -> Self {
        Self {
            home: TempDir::new().unwrap(),
            environment: Vec::new(),
            apart: None,
        }
    }

    /// The same user, who sets a variable.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// The same user, whose servers share no port with those of other tests.
    pub(crate) fn apart(self) -> Self {
        self.with("TACITURN_ADMIN__LISTEN", "off")
            .with("TACITURN_RELAY__PORTS", "20000-20999")
    }

    /// The same user, whose commands do not see what servers of this machine left in `/run`: for
    /// root, or where users may have namespaces.
    pub(crate) fn alone(mut self) -> Self {
        const EMPTY: &str = "mount -t tmpfs none /run && exec \"$@\"";
        const WAYS: [&[&str]; 2] = [
            &["unshare", "--mount", "sh", "-c", EMPTY, "sh"],
            &[
                "unshare",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                EMPTY,
                "sh",
            ],
        ];
        self.apart = WAYS.into_iter().find(|way| {
            let mut command = Command::new(way[0]);
            command.args(&way[1..]).arg("true").stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        });
        self
    }

    /// Whether nobody left a credential where the commands of this user look.
    pub(crate) fn is_alone(&self) -> bool {
        self.apart.is_some() || !Path::new("/run/taciturn/ice.json").exists()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file that nobody else may read; returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The same user, who has an authority of their own: its certificate is in the file `ca.pem`,
    /// and servers have one that it issued for `name`, good for so many days.
    pub(crate) fn with_certificate(self, name: &str, days: u64) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Whoever bears the name of its issuer looks self-signed.
        authority
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(authority, key).unwrap();
        let mut server = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let day = Duration::from_secs(86_400);
        // The last hour is for slow machines.
        let ends = now + day * u32::try_from(days).unwrap() + Duration::from_secs(3_600);
        server.not_before = rcgen::date_time_ymd(1970, 1, 1) + (now - day);
        server.not_after = rcgen::date_time_ymd(1970, 1, 1) + ends;
        let key = KeyPair::generate().unwrap();
        let server = server.signed_by(&key, &authority).unwrap();
        self.file("ca.pem", &authority.pem());
        let cert = self.file("cert.pem", &server.pem());
        let key = self.file("key.pem", &key.serialize_pem());
        self.with("TACITURN_TLS__CERT", cert)
            .with("TACITURN_TLS__KEY", key)
    }

    /// Where `serve` leaves its credential.
    pub(crate) fn left(&self) -> PathBuf {
        self.path("taciturn/ice.json")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let taciturn = [env!("CARGO_BIN_EXE_taciturn")];
        let line = [self.apart.unwrap_or_default(), &taciturn, arguments].concat();
        let mut command = Command::new(line[0]);
        command
            .args(&line[1..])
            .env_clear()
            .env("XDG_RUNTIME_DIR", self.home.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn runs(&self, arguments: &[&str]) -> Said {
        self.runs_with_input(arguments, "")
    }

    /// Runs a command that reads `input`.
    pub(crate) fn runs_with_input(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that reads nothing may have ended.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts `serve` and waits until it answers on `port`.
    pub(crate) fn serves(&self, port: u16, arguments: &[&str]) -> Server {
        let arguments = [&["serve"], arguments].concat();
        let said = fs::File::create(self.path("serve.log")).unwrap();
        let child = self
            .command(&arguments)
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        let mut server = Server { child };
        let began = Instant::now();
        while !answers(port) {
            let ended = server.child.try_wait().unwrap();
            if ended.is_some() || began.elapsed() > PATIENCE {
                panic!(
                    "serve does not answer ({ended:?}): {}",
                    fs::read_to_string(self.path("serve.log")).unwrap()
                );
            }
        }
        server
    }
}

/// A running `taciturn serve`.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Asks it to end, as a service manager does, and waits.
    pub(crate) fn stops(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until there is a file.
pub(crate) fn appears(path: &Path) {
    let began = Instant::now();
    while !path.exists() {
        assert!(began.elapsed() < PATIENCE, "{} is missing", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn answers(port: u16) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut reply = [0; 512];
    let answered = socket.send(&BINDING).is_ok() && socket.recv(&mut reply).is_ok();
    if !answered {
        std::thread::sleep(Duration::from_millis(20));
    }
    answered
}

/// A port of loopback that nobody has, of UDP and TCP, outside the relay ports of these tests.
pub(crate) fn free_port() -> u16 {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let tcp = TcpListener::bind(("127.0.0.1", port));
        if !(20000..=20999).contains(&port) && tcp.is_ok() {
            return port;
        }
    }
}
