//! The table, in Markdown, and the plots beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::cells::{ALL, Cell, Kind};
use super::results::{Entry, Figure, Results, Round, STEAL_MAX, Spread};
use super::servers::{self, Server};
use super::{plot, targets};

/// Writes what belongs to a file of raw rounds, and prints how the targets are met.
pub(crate) fn write(file: &Path) -> Result<()> {
    let results = Results::read(file)?;
    let servers = rows(&results);
    let cells: Vec<&Cell> = ALL.iter().filter(|cell| has(&results, cell)).collect();
    let lines = targets::lines(&results, &servers);
    let mut text = head(&results)?;
    for (kind, heading, note) in TABLES {
        let cells: Vec<&Cell> = cells
            .iter()
            .copied()
            .filter(|cell| cell.kind == *kind)
            .collect();
        if !cells.is_empty() {
            write!(text, "\n## {heading}\n\n{note}\n\n")?;
            table(&mut text, &results, &servers, &cells)?;
        }
    }
    for (name, svg) in plot::all(&results, &servers, &cells) {
        let name = format!("{}-{name}.svg", results.topology);
        fs::write(file.with_file_name(&name), svg)?;
        write!(text, "\n![{name}]({name})\n")?;
    }
    write!(text, "\n## Targets\n\n")?;
    for line in &lines {
        writeln!(text, "- {line}")?;
        println!("{line}");
    }
    text.push_str(&notes(&results));
    fs::write(file.with_extension("md"), text)?;
    Ok(())
}

/// What other processes may use of a core before it is said.
const DISTURBED: f64 = 0.1;

const TABLES: &[(Kind, &str, &str)] = &[
    (
        Kind::Rate,
        "Highest rate with under 0.1 % loss",
        "Packets delivered a second, median (quartiles) / server's CPU µs per packet / the machine's without the load's own. `*`: the load was the limit.",
    ),
    (
        Kind::Cpu,
        "CPU at a fixed rate",
        "Server's CPU µs per packet, median (quartiles) / the machine's without the load's own. Growth cells have 100,000 packets/s in total, whatever the number of allocations.",
    ),
    (
        Kind::Latency,
        "One-way latency at a fixed rate",
        "p50 / p99 / p99.9 in µs, medians of the rounds.",
    ),
    (
        Kind::Control,
        "Control path",
        "A second, median (quartiles).",
    ),
    (
        Kind::Memory,
        "Memory",
        "Bytes resident per allocation, without the kernel's.",
    ),
];

fn has(results: &Results, cell: &Cell) -> bool {
    results.rounds.iter().any(|round| round.cell == cell.name)
}

/// Known servers in their order, then other builds by name.
fn rows(results: &Results) -> Vec<Server> {
    let mut rows = servers::all();
    rows.retain(|server| results.measured(&server.name));
    let mut at = usize::from(rows.first().is_some_and(|server| server.name == "taciturn"));
    for round in &results.rounds {
        if rows.iter().all(|server| server.name != round.server)
            && let Some(mut other) = servers::all().into_iter().next()
        {
            round.server.clone_into(&mut other.name);
            other.about = "another build of this project";
            rows.insert(at, other);
            at += 1;
        }
    }
    rows
}

fn head(results: &Results) -> Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "# TURN servers and floors on the same work, {}\n",
        results.topology
    )?;
    writeln!(
        text,
        "`{}`, {}, {}.",
        results.command, results.date, results.machine
    )?;
    writeln!(
        text,
        "Server on one core, load on the other; rounds in turns, each with a fresh server, warmed up."
    )?;
    writeln!(
        text,
        "Only ratios within this table mean anything elsewhere.\n"
    )?;
    for server in rows(results) {
        let version = results.versions.get(&server.name);
        let version = version.map_or_else(String::new, |version| format!(" ({version})"));
        writeln!(text, "- {}: {}{version}", server.name, server.about)?;
    }
    for (server, why) in &results.missing {
        writeln!(text, "- {server} is left out: {why}")?;
    }
    Ok(text)
}

fn table(text: &mut String, results: &Results, servers: &[Server], cells: &[&Cell]) -> Result<()> {
    let titles: Vec<&str> = cells.iter().map(|cell| cell.title).collect();
    writeln!(text, "| | {} |", titles.join(" | "))?;
    writeln!(text, "|---|{}", "--:|".repeat(cells.len()))?;
    for server in servers {
        let entries: Vec<String> = cells
            .iter()
            .map(|cell| entry(results, cell, &server.name))
            .collect();
        if entries.iter().any(|entry| !entry.is_empty()) {
            writeln!(text, "| {} | {} |", server.name, entries.join(" | "))?;
        }
    }
    Ok(())
}

fn entry(results: &Results, cell: &Cell, server: &str) -> String {
    let spread = match results.entry(cell.name, server, Figure::of(cell)) {
        Entry::Empty => return String::new(),
        Entry::Cannot(_) => return "cannot".to_owned(),
        Entry::Failed(_) => return "failed".to_owned(),
        Entry::Figure(spread) => spread,
    };
    let of = |figure| {
        results
            .spread(cell.name, server, figure)
            .map(|spread| spread.median)
    };
    let lost = of(Figure::Loss).filter(|loss| *loss > 0.01 && cell.kind != Kind::Rate);
    let lost = lost.map_or_else(String::new, |loss| format!(", loses {:.0} %", 100.0 * loss));
    match cell.kind {
        Kind::Rate => {
            let cpu = [Figure::ServerCpu, Figure::MachineCpu].map(|figure| match of(figure) {
                Some(cpu) => format!(" / {cpu:.2}"),
                None => String::new(),
            });
            let cpu = cpu.concat();
            let mark = if results.limited_by_load(cell.name, server) {
                "\\*"
            } else {
                ""
            };
            format!("{}{mark}{cpu}", thousands(spread))
        }
        Kind::Cpu => {
            let Spread { low, median, high } = spread;
            let machine = of(Figure::MachineCpu);
            let machine = machine.map_or_else(String::new, |cpu| format!(" / {cpu:.2}"));
            format!("{median:.2} ({low:.2}–{high:.2}){machine}{lost}")
        }
        Kind::Latency => {
            let all =
                [Figure::P50, Figure::P99, Figure::P999].map(|figure| of(figure).unwrap_or(0.0));
            format!("{:.0} / {:.0} / {:.0}{lost}", all[0], all[1], all[2])
        }
        Kind::Control => thousands(spread),
        Kind::Memory => format!("{:.0}", spread.median),
    }
}

fn thousands(spread: Spread) -> String {
    let Spread { low, median, high } = spread;
    let digits = if median < 20_000.0 { 1 } else { 0 };
    let [low, median, high] = [low, median, high].map(|figure| figure / 1000.0);
    format!("{median:.digits$}k ({low:.digits$}–{high:.digits$})")
}

/// What is not in the table, and why.
fn notes(results: &Results) -> String {
    let dropped = results
        .rounds
        .iter()
        .filter(|round| round.steal > STEAL_MAX)
        .count();
    let mut text = format!(
        "\n## Notes\n\n- {} rounds, {dropped} of them dropped because the hypervisor took more than {STEAL_MAX} % of the time.\n",
        results.rounds.len(),
    );
    let disturbed = results.rounds.iter().filter(|round| {
        let others = round.load["others_cpus"].as_f64();
        others.is_some_and(|cpus| cpus > DISTURBED)
    });
    let disturbed = disturbed.count();
    if disturbed > 0 {
        text += &format!(
            "- In {disturbed} rounds other processes used more than {DISTURBED} of a core.\n"
        );
    }
    let mut said: Vec<String> = Vec::new();
    for round in &results.rounds {
        let Some(why) = &round.failed else { continue };
        let line = format!("- {} in {}: {why}\n", round.server, round.cell);
        if !said.contains(&line) {
            text.push_str(&line);
            said.push(line);
        }
    }
    text
}

/// One round, for who is watching.
pub(crate) fn in_short(cell: &Cell, round: &Round) -> String {
    let one = Results {
        rounds: vec![round.clone()],
        ..Results::default()
    };
    entry(&one, cell, &round.server)
}
