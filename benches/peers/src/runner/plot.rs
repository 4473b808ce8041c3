//! Plots, drawn by hand as SVG: small, and legible in a diff.

use std::fmt::Write as _;

use super::cells::{Cell, Kind};
use super::results::{Figure, Results, Spread};
use super::servers::{Program, Server};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 170.0;
const ROW: f64 = 16.0;
const RIGHT: f64 = 90.0;
const MIDDLE: &str = "text-anchor=\"middle\"";
const END: &str = "text-anchor=\"end\"";
const COLOURS: [&str; 9] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f",
    "#bcbd22",
];

/// The plots there is something for, by name.
pub(crate) fn all(
    results: &Results,
    servers: &[Server],
    cells: &[&Cell],
) -> Vec<(&'static str, String)> {
    let of = |kind| cells.iter().copied().filter(move |cell| cell.kind == kind);
    let rates: Vec<Panel> = of(Kind::Rate)
        .map(|cell| bars(results, servers, cell, Figure::Rate, ""))
        .collect();
    let latency: Vec<Panel> = of(Kind::Latency)
        .flat_map(|cell| {
            [
                (Figure::P50, ", p50 µs"),
                (Figure::P99, ", p99 µs"),
                (Figure::P999, ", p99.9 µs"),
            ]
            .map(|(figure, what)| bars(results, servers, cell, figure, what))
        })
        .collect();
    let growth: Vec<&Cell> = cells
        .iter()
        .copied()
        .filter(|cell| cell.growth().is_some())
        .collect();
    let mut plots = Vec::new();
    if !rates.is_empty() {
        plots.push((
            "rates",
            panels("Packets delivered a second, under 0.1 % loss", &rates),
        ));
    }
    if growth.len() > 1 {
        plots.push(("growth", curve(results, servers, &growth)));
    }
    if !latency.is_empty() {
        plots.push(("latency", panels("One-way latency", &latency)));
    }
    plots
}

struct Panel {
    title: String,
    bars: Vec<(String, &'static str, Spread)>,
}

fn bars(results: &Results, servers: &[Server], cell: &Cell, figure: Figure, what: &str) -> Panel {
    let bars = servers.iter().filter_map(|server| {
        let spread = results.spread(cell.name, &server.name, figure)?;
        Some((server.name.clone(), colour(server), spread))
    });
    Panel {
        title: format!("{}{what}", cell.title),
        bars: bars.collect(),
    }
}

fn colour(server: &Server) -> &'static str {
    match server.program {
        Program::Taciturn => "#0072b2",
        Program::Floor(_) => "#b0b0b0",
        _ => "#e69f00",
    }
}

fn panels(title: &str, panels: &[Panel]) -> String {
    let mut body = String::new();
    let mut y = 44.0;
    for panel in panels {
        text(&mut body, 8.0, y, "font-weight=\"bold\"", &panel.title);
        y += 8.0;
        let most = panel
            .bars
            .iter()
            .map(|(.., spread)| spread.high)
            .fold(f64::MIN_POSITIVE, f64::max);
        let x = |figure: f64| LEFT + figure / most * (WIDTH - LEFT - RIGHT);
        for (name, colour, spread) in &panel.bars {
            let (from, to) = (x(spread.low), x(spread.high));
            let middle = y + ROW / 2.0;
            text(&mut body, LEFT - 6.0, middle + 4.0, END, name);
            let width = x(spread.median) - LEFT;
            let height = ROW - 4.0;
            body += &format!(
                "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>\n",
                y + 2.0
            );
            body += &format!(
                "<path d=\"M{from:.1} {middle:.1}H{to:.1}\" stroke=\"black\" stroke-width=\"2\"/>\n"
            );
            text(&mut body, to + 5.0, middle + 4.0, "", &short(spread.median));
            y += ROW;
        }
        y += 24.0;
    }
    svg(title, y, &body)
}

/// CPU per packet of one server over the number of allocations, where it loses nothing.
fn points(results: &Results, server: &Server, cells: &[&Cell]) -> Vec<(f64, f64)> {
    let median = |cell: &Cell, figure| {
        let spread = results.spread(cell.name, &server.name, figure)?;
        Some(spread.median)
    };
    let kept = cells
        .iter()
        .filter(|cell| median(cell, Figure::Loss).is_none_or(|loss| loss < 0.01));
    kept.filter_map(|cell| Some((f64::from(cell.growth()?), median(cell, Figure::ServerCpu)?)))
        .collect()
}

/// The cost of growth, over the logarithm of the number of allocations.
fn curve(results: &Results, servers: &[Server], cells: &[&Cell]) -> String {
    let lines: Vec<(&Server, Vec<(f64, f64)>)> = servers
        .iter()
        .map(|server| (server, points(results, server, cells)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = lines.iter().flat_map(|(_, points)| points);
    let most = all.map(|point| point.1).fold(1.0, f64::max);
    let (height, top) = (380.0, 60.0);
    let x = |allocations: f64| 60.0 + allocations.log10() / 4.0 * (WIDTH - 60.0 - 150.0);
    let y = |cpu: f64| height - cpu / most * (height - top);
    let end = x(10_000.0);
    let mut body =
        format!("<path d=\"M60 {top}V{height}H{end:.0}\" stroke=\"black\" fill=\"none\"/>\n");
    for at in cells.iter().filter_map(|cell| cell.growth()) {
        let at = f64::from(at);
        text(&mut body, x(at), height + 16.0, MIDDLE, &at.to_string());
    }
    for step in 0..=4 {
        let cpu = most * f64::from(step) / 4.0;
        text(&mut body, 54.0, y(cpu) + 4.0, END, &format!("{cpu:.1}"));
    }
    text(&mut body, x(100.0), height + 34.0, MIDDLE, "allocations");
    let mut labels: Vec<f64> = Vec::new();
    for ((server, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> = points
            .iter()
            .map(|&(at, cpu)| format!("{:.1} {:.1}", x(at), y(cpu)))
            .collect();
        let path = path.join("L");
        let dashes = if server.is_floor() { "5 3" } else { "none" };
        body += &format!(
            "<path d=\"M{path}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\" stroke-dasharray=\"{dashes}\"/>\n"
        );
        let Some(&(at, cpu)) = points.last() else {
            continue;
        };
        let mut label = y(cpu) + 4.0;
        while labels.iter().any(|other| (other - label).abs() < 11.0) {
            label -= 3.0;
        }
        labels.push(label);
        text(
            &mut body,
            x(at) + 8.0,
            label,
            &format!("fill=\"{colour}\""),
            &server.name,
        );
    }
    let title = "Server's CPU µs per packet at 100,000 packets/s, call 172 B";
    svg(title, height + 44.0, &body)
}

fn text(body: &mut String, x: f64, y: f64, attributes: &str, said: &str) {
    let said = said.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{said}</text>"
    )
    .ok();
}

fn svg(title: &str, height: f64, body: &str) -> String {
    let mut heading = String::new();
    text(&mut heading, 8.0, 20.0, "font-size=\"15\"", title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{heading}{body}</svg>\n"
    )
}

fn short(figure: f64) -> String {
    if figure >= 10_000.0 {
        format!("{:.0}k", figure / 1000.0)
    } else {
        format!("{figure:.0}")
    }
}
