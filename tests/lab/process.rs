//! A child process whose whole output goes to a file, and which never
//! outlives the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// A running child, with its own process group.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `<directory>/<name>.log`.
    pub(crate) fn spawn(name: &str, mut command: Command, directory: &Path) -> Self {
        use std::os::unix::process::CommandExt;

        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).expect("the lab's directory is writable");
        let child = command
            .process_group(0)
            .stdout(output.try_clone().expect("a file handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// All that the process has written so far, byte for byte.
    pub(crate) fn written(&self) -> Vec<u8> {
        fs::read(&self.log).expect("the log exists")
    }

    /// The same to be read.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&self.written()).into_owned()
    }

    /// Waits for a line of output with `mark` in it; what follows that mark.
    /// Panics when the process ends first or the time is up.
    pub(crate) fn expect_line(&mut self, mark: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait().expect("the child can be waited for");
            let output = self.output();
            // The last piece may be half a line.
            let (lines, _) = output.rsplit_once('\n').unwrap_or_default();
            if let Some((_, rest)) = lines.lines().find_map(|line| line.split_once(mark)) {
                return rest.trim().to_owned();
            }
            let (name, log) = (&self.name, self.last_words());
            assert!(ended.is_none(), "{name} ended without \"{mark}\":\n{log}");
            assert!(Instant::now() < deadline, "{name}: no \"{mark}\":\n{log}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last lines of its output.
    pub(crate) fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Panics, with its output, if the process has ended.
    pub(crate) fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("the child can be waited for");
        assert!(
            ended.is_none(),
            "{} has ended:\n{}",
            self.name,
            self.last_words()
        );
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            let name = &self.name;
            assert!(
                Instant::now() < deadline,
                "{name} does not end:\n{}",
                self.last_words()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks the process to end and waits for that.
    pub(crate) fn stop(&mut self, signal: Signal) -> ExitStatus {
        kill_process_group(self.group(), signal).expect("the child is there");
        self.wait(Duration::from_secs(10))
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A number that was waited for may belong to another process by now.
        if let Ok(None) = self.child.try_wait() {
            kill_process_group(self.group(), Signal::KILL).ok();
            self.child.wait().ok();
        }
    }
}
