//! Measures: each round of a cell starts every server once, fresh, warms it up, drives it, and
//! ends it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::cells::{self, Cell, Kind, Work};
use super::results::{self, Results, Round, STEAL_MAX};
use super::servers::{self, PORT, Program, SECRET, Server, Setting};
use super::{Run, machine, report};

/// The server has one core, the load the other; a machine with more leaves the rest alone.
const SERVER_CORE: &str = "0";
const LOAD_CORE: &str = "1";
const WARM_UP: &str = "1s";
const QUICK: &str = "300ms";

pub(crate) fn run(run: &Run) -> Result<()> {
    let bench = Bench::new(run)?;
    let (cells, servers) = (selected_cells(run)?, selected_servers(run)?);
    fs::create_dir_all(&run.out)?;
    let file = run.out.join(if run.veth {
        "veth.json"
    } else {
        "loopback.json"
    });
    let mut results = bench.earlier(&file, &cells, &servers);
    let mut there = Vec::new();
    for server in servers {
        match bench.setting(Work::Call).command(&server) {
            Ok(_) => there.push(server),
            Err(why) => {
                eprintln!("left out: {}: {why:#}", server.name);
                results.missing.insert(server.name, format!("{why:#}"));
            }
        }
    }
    ensure!(!there.is_empty(), "no server is left");
    let rounds = if run.quick { 1 } else { run.rounds };
    for cell in &cells {
        for round in 0..rounds {
            // A, B, C, then B, C, A: nobody always follows the same neighbour.
            for place in 0..there.len() {
                let server = &there[(place + round) % there.len()];
                if let Some(round) = bench.round(cell, server, round) {
                    results.rounds.push(round);
                    results.write(&file)?;
                }
            }
        }
    }
    report::write(&file)?;
    if run.quick {
        let failed = results.rounds.iter().find_map(|round| {
            let why = round
                .failed
                .as_ref()
                .filter(|why| !why.starts_with("cannot"))?;
            Some(anyhow!("{} in {}: {why}", round.server, round.cell))
        });
        return failed.map_or(Ok(()), Err);
    }
    Ok(())
}

fn selected_cells(run: &Run) -> Result<Vec<Cell>> {
    let all = || cells::ALL.iter().copied();
    if run.cells.is_empty() {
        return Ok(all()
            .filter(|cell| !run.quick || cells::QUICK.contains(&cell.name))
            .collect());
    }
    let named = |name: &String| {
        let found = all().find(|cell| cell.name == name);
        found.with_context(|| format!("no cell is called {name}"))
    };
    run.cells.iter().map(named).collect()
}

fn selected_servers(run: &Run) -> Result<Vec<Server>> {
    let mut all = servers::all();
    for also in &run.also {
        let (name, binary) = also.split_once('=').context("--also takes NAME=BINARY")?;
        all.push(Server {
            name: name.to_owned(),
            about: "another build of this project",
            program: Program::Taciturn,
            binary: Some(PathBuf::from(binary).canonicalize()?),
            on_request: false,
        });
    }
    if let Some(unknown) = run
        .servers
        .iter()
        .find(|name| all.iter().all(|s| s.name != **name))
    {
        bail!("no server is called {unknown}");
    }
    all.retain(|server| match run.servers.is_empty() {
        true => !server.on_request,
        false => run.servers.contains(&server.name),
    });
    Ok(all)
}

/// All that does not change from round to round.
struct Bench<'a> {
    run: &'a Run,
    directory: PathBuf,
    secret: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    address: &'static str,
    peers: &'static str,
}

/// A server that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is what was to be.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl<'a> Bench<'a> {
    fn new(run: &'a Run) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("taciturn-peers-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let secret = directory.join("secret");
        fs::write(&secret, SECRET)?;
        let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        // ECDSA on P-256, as most servers have it.
        let issued = rcgen::generate_simple_self_signed(vec!["bench.invalid".to_owned()])?;
        fs::write(&certificate, issued.cert.pem())?;
        fs::write(&key, issued.signing_key.serialize_pem())?;
        let (address, peers) = match run.veth {
            true => ("10.8.0.1", "\"10.8.0.0/24\", \"10.9.0.0/16\""),
            false => ("127.0.0.1", "\"127.0.0.0/8\""),
        };
        Ok(Self {
            run,
            directory,
            secret,
            certificate,
            key,
            address,
            peers,
        })
    }

    fn setting(&self, work: Work) -> Setting<'_> {
        Setting {
            address: self.address,
            peers: self.peers,
            work,
            cores: 1,
            tools: &self.run.tools,
            taciturn: &self.run.taciturn,
            certificate: [&self.certificate, &self.key],
            directory: &self.directory,
        }
    }

    /// What an earlier run left, without what is measured now.
    fn earlier(&self, file: &Path, cells: &[Cell], servers: &[Server]) -> Results {
        let mut results = Results::read(file).unwrap_or_default();
        results.rounds.retain(|round| {
            let cell = cells.iter().any(|cell| cell.name == round.cell);
            !(cell && servers.iter().any(|server| server.name == round.server))
        });
        let topology = if self.run.veth { "veth" } else { "loopback" };
        topology.clone_into(&mut results.topology);
        results.command = "benches/peers/run".to_owned();
        // Paths say more about the machine than about the run.
        let arguments = std::env::var("PEERS_ARGUMENTS").unwrap_or_default();
        for argument in arguments
            .split_whitespace()
            .filter(|said| !said.contains('/'))
        {
            results.command = format!("{} {argument}", results.command);
        }
        results.date = machine::date();
        results.machine = machine::describe();
        let versions = machine::versions(servers, &self.run.tools, &self.run.taciturn);
        results.versions.extend(versions);
        for server in servers {
            results.missing.remove(&server.name);
        }
        results
    }

    fn round(&self, cell: &Cell, server: &Server, number: usize) -> Option<Round> {
        let mut round = Round {
            cell: cell.name.to_owned(),
            server: server.name.clone(),
            round: number,
            steal: 0.0,
            failed: None,
            load: Value::Null,
        };
        if let Some(why) = server.cannot(cell.work) {
            round.failed = Some(format!("cannot: {why}"));
            return (number == 0).then_some(round);
        }
        match self.measure(cell, server, number) {
            Ok((load, steal)) => (round.load, round.steal) = (load, steal),
            Err(why) => round.failed = Some(format!("{why:#}")),
        }
        let note = match (&round.failed, round.steal > STEAL_MAX) {
            (Some(why), _) => why.clone(),
            (_, true) => format!("dropped, {:.1} % of the time was stolen", round.steal),
            _ => report::in_short(cell, &round),
        };
        eprintln!(
            "{:14} round {:<2} {:18} {note}",
            cell.name,
            number + 1,
            server.name
        );
        Some(round)
    }

    fn measure(&self, cell: &Cell, server: &Server, number: usize) -> Result<(Value, f64)> {
        let running = self.start(cell, server)?;
        let pid = running.0.id();
        if let Some(pace) = cell.warm_up() {
            let warm_up = if self.run.quick { QUICK } else { WARM_UP };
            // What goes wrong here goes wrong again below, where it is said.
            self.load(cell, pace, warm_up, pid, false)?;
        }
        let duration = if self.run.quick {
            QUICK
        } else {
            &self.run.duration
        };
        let before = machine::time();
        // What the load itself can do is measured once for each server and cell.
        let output = self.load(cell, cell.pace, duration, pid, number == 0)?;
        let steal = machine::steal(before, machine::time());
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("no word");
        ensure!(output.status.success(), "the load: {last}");
        let load = serde_json::from_slice(&output.stdout)?;
        Ok((results::shortened(load), steal))
    }

    fn start(&self, cell: &Cell, server: &Server) -> Result<Running> {
        let command = self.setting(cell.work).command(server)?;
        let mut command = self.within(SERVER_CORE, "server", &command);
        let log = fs::File::create(self.directory.join("server.log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut running = Running(command.spawn()?);
        let mut ready = Command::new(std::env::current_exe()?);
        ready.args(["ready", &format!("{}:{PORT}", self.address)]);
        let ready = self.within(LOAD_CORE, "load", &ready).output()?;
        if running.0.try_wait()?.is_some() || !ready.status.success() {
            let log = fs::read_to_string(self.directory.join("server.log"))?;
            bail!(
                "it does not start: {}",
                log.lines().next_back().unwrap_or("no word")
            );
        }
        Ok(running)
    }

    fn load(
        &self,
        cell: &Cell,
        pace: &str,
        duration: &str,
        server: u32,
        ceiling: bool,
    ) -> Result<Output> {
        let mut load = Command::new(&self.run.taciturn);
        load.arg("load")
            .arg(format!("--server={}:{PORT}", self.address))
            .arg(format!("--secret-file={}", self.secret.display()))
            .arg(format!("--server-pid={server}"))
            .args(["--cpu", LOAD_CORE, "--duration", duration, "--json"])
            .args(cell.shape.split(' '))
            .args(pace.split(' '));
        if self.run.veth {
            load.args(["--sources=10.9.0.0/16", "--peer-address=10.8.0.2"]);
        } else {
            // Not the address that relayed addresses have.
            load.arg("--peer-address=127.0.0.2");
        }
        if !ceiling || cell.kind != Kind::Rate {
            load.arg("--no-ceiling");
        }
        Ok(self
            .within(LOAD_CORE, "load", &load)
            .stdin(Stdio::null())
            .output()?)
    }

    /// `command` on one core, in the namespace of that side.
    fn within(&self, core: &str, side: &str, command: &Command) -> Command {
        let mut within = Command::new("ip");
        let side = if self.run.veth { side } else { "server" };
        within.args(["netns", "exec", &format!("{}-{side}", self.run.namespace)]);
        within
            .args(["taskset", "--cpu-list", core])
            .arg(command.get_program());
        within.args(command.get_args());
        for (name, value) in command.get_envs() {
            within.env(name, value.unwrap_or_default());
        }
        within
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        // What stays behind is a few small files for the system to clear.
        fs::remove_dir_all(&self.directory).ok();
    }
}
