//! How `taciturn top` looks: the model drawn on a screen of any size. What finds no room is left out,
//! the table last.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row as Cells, Sparkline, Table};

use super::model::{Mode, Model, Row, Sort};

/// A column, and from which share of a lost packet on it warns.
struct Column {
    title: &'static str,
    width: u16,
    /// What finds room first is least.
    rank: u8,
    sort: Option<Sort>,
    text: fn(&Row) -> String,
}

const COLUMNS: &[Column] = &[
    Column {
        title: "allocation",
        width: 16,
        rank: 0,
        sort: None,
        text: |row| row.allocation.id.clone(),
    },
    Column {
        title: "user",
        width: 12,
        rank: 8,
        sort: None,
        text: |row| shortened(Some(&row.allocation.subject)),
    },
    Column {
        title: "call",
        width: 12,
        rank: 9,
        sort: None,
        text: |row| shortened(row.allocation.call.as_deref()),
    },
    Column {
        title: "tenant",
        width: 10,
        rank: 10,
        sort: None,
        text: |row| row.allocation.tenant.clone().unwrap_or_else(none),
    },
    Column {
        title: "via",
        width: 4,
        rank: 6,
        sort: None,
        text: |row| row.allocation.transport.clone(),
    },
    Column {
        title: "path",
        width: 10,
        rank: 4,
        sort: Some(Sort::Path),
        text: |row| row.allocation.path.clone().unwrap_or_else(none),
    },
    Column {
        title: "worker",
        width: 6,
        rank: 5,
        sort: Some(Sort::Worker),
        text: |row| format!("{:>6}", row.allocation.worker),
    },
    Column {
        title: "   age",
        width: 6,
        rank: 3,
        sort: Some(Sort::Age),
        text: |row| format!("{:>6}", age(row.age)),
    },
    Column {
        title: "   pps",
        width: 6,
        rank: 2,
        sort: None,
        text: |row| format!("{:>6}", short(row.traffic.map(|rate| rate.packets))),
    },
    Column {
        title: " bit/s",
        width: 6,
        rank: 1,
        sort: Some(Sort::Traffic),
        text: |row| format!("{:>6}", short(row.traffic.map(|rate| rate.bits))),
    },
    Column {
        title: "  loss",
        width: 6,
        rank: 3,
        sort: Some(Sort::Loss),
        text: |row| {
            let loss = row.loss.map(|loss| format!("{:.1}%", loss * 100.0));
            format!("{:>6}", loss.unwrap_or_else(none))
        },
    },
    Column {
        title: "drop/s",
        width: 6,
        rank: 7,
        sort: None,
        text: |row| format!("{:>6}", short(row.drops)),
    },
];

/// From these shares of lost packets on, people see, and talk about it.
const SEEN: f64 = 0.02;
const BAD: f64 = 0.05;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    let head = if area.height >= 8 { 2 } else { 0 };
    let charts = if area.height >= 16 { 6 } else { 0 };
    let foot = u16::from(area.height >= 3);
    let [top, middle, table, bottom] = Layout::vertical([
        Constraint::Length(head),
        Constraint::Length(charts),
        Constraint::Min(0),
        Constraint::Length(foot),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(heading(model)), top);
    draw_charts(frame, model, middle);
    draw_table(frame, model, table);
    frame.render_widget(Paragraph::new(footing(model)), bottom);
    if model.mode == Mode::Help {
        draw_help(frame, area);
    }
}

fn heading(model: &Model) -> Vec<Line<'static>> {
    let status = model.status();
    let ready = if model.lost.is_some() {
        "lost".red().bold()
    } else if status.ready {
        "ready".green()
    } else {
        "not ready".red().bold()
    };
    let first = Line::from(vec![
        format!("taciturn {}  ", status.version).bold(),
        ready,
        Span::raw(format!(
            "  up {}  {} allocations  {} drops/s  imbalance {:.1}",
            age(status.uptime),
            model.all(),
            short(Some(model.drops)),
            status.imbalance,
        )),
    ]);
    let mut second = vec![Span::raw("workers ")];
    for (index, share) in model.busy.iter().enumerate() {
        let text = format!(" {index}:{:>3.0}%", share * 100.0);
        second.push(if *share >= 0.8 {
            text.red()
        } else {
            Span::raw(text)
        });
    }
    vec![first, Line::from(second)]
}

fn draw_charts(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    if area.height == 0 {
        return;
    }
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]);
    let [left, right] = halves.areas(area);
    let packets: Vec<u64> = model.history.iter().map(|(packets, _)| *packets).collect();
    let bits: Vec<u64> = model.history.iter().map(|(_, bits)| *bits).collect();
    draw_chart(frame, "packets/s", packets, Color::Cyan, left);
    draw_chart(frame, "bit/s", bits, Color::Magenta, right);
}

/// The latest stands at the right, where eyes look for it.
fn draw_chart(frame: &mut Frame<'_>, what: &str, mut rates: Vec<u64>, color: Color, area: Rect) {
    rates.truncate(area.width.saturating_sub(2).into());
    let now = rates.first().copied();
    let most = rates.iter().max().copied();
    let shown = |rate: Option<u64>| short(rate.map(number));
    let title = format!(" {what} {}, at most {} ", shown(now), shown(most));
    let block = Block::default().borders(Borders::ALL).title(title);
    let chart = Sparkline::default()
        .block(block)
        .style(Style::default().fg(color))
        .direction(ratatui::widgets::RenderDirection::RightToLeft)
        .data(rates);
    frame.render_widget(chart, area);
}

fn draw_table(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let columns = columns(area.width);
    let rows = model.visible();
    // One line is the header's.
    let room = usize::from(area.height.saturating_sub(1));
    let place = model.place();
    let begin = (place + 1).saturating_sub(room);
    let header = columns.iter().map(|column| {
        let is_sorted = column.sort == Some(model.sort);
        let style = Style::default().add_modifier(if is_sorted {
            Modifier::BOLD | Modifier::UNDERLINED
        } else {
            Modifier::BOLD
        });
        Cell::new(column.title).style(style)
    });
    let lines = rows.iter().enumerate().skip(begin).take(room);
    let lines = lines.map(|(index, row)| {
        let cells = columns.iter().map(|column| Cell::new((column.text)(row)));
        let mut style = Style::default();
        match row.loss {
            Some(loss) if loss >= BAD => style = style.fg(Color::Red),
            Some(loss) if loss >= SEEN => style = style.fg(Color::Yellow),
            Some(_) | None => {}
        }
        if index == place {
            style = style.add_modifier(Modifier::REVERSED);
        }
        Cells::new(cells).style(style)
    });
    let widths = columns.iter().map(|column| column.width);
    let table = Table::new(lines, widths).header(Cells::new(header));
    frame.render_widget(table, area);
}

/// The columns that find room, in their order.
fn columns(width: u16) -> Vec<&'static Column> {
    let mut ranked: Vec<usize> = (0..COLUMNS.len()).collect();
    ranked.sort_by_key(|index| COLUMNS[*index].rank);
    let mut used = 0;
    ranked.retain(|index| {
        let wanted = COLUMNS[*index].width + u16::from(used > 0);
        let fits = used == 0 || used + wanted <= width;
        if fits {
            used += wanted;
        }
        fits
    });
    ranked.sort_unstable();
    ranked.into_iter().map(|index| &COLUMNS[index]).collect()
}

fn footing(model: &Model) -> Line<'static> {
    match &model.mode {
        Mode::Filter => Line::from(vec![
            "filter: ".bold(),
            Span::raw(model.filter.clone()),
            "_".slow_blink(),
        ]),
        Mode::Ask(id) => Line::from(format!("end allocation {id}? y/n").red().bold()),
        Mode::Browse | Mode::Help => {
            let said = model.lost.as_ref().or(model.notice.as_ref());
            let mut text = said.cloned().unwrap_or_else(|| {
                "q quit  ? help  t l a p w sort  r reverse  / filter  x end one".to_owned()
            });
            if !model.filter.is_empty() {
                text = format!("filter: {}  {text}", model.filter);
            }
            if model.is_paused() {
                text = format!("paused  {text}");
            }
            Line::from(text)
        }
    }
}

const HELP: &str = "\
t traffic  l loss  a age  p path  w worker
           sort by it; r the other way round
up down    choose an allocation; j and k too
x          end it, after a y
/          filter by id, user, call, tenant,
           transport, path, or w0 for worker 0
Esc        no filter
space      hold everything as it is
q Ctrl-C   quit

Users and calls are pseudonyms; pps and bit/s
are from the client and to it together; loss
is of its RTP in the last ten looks.";

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let width = area.width.min(50);
    let height = area.height.min(15);
    let window = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, window);
    let block = Block::default().borders(Borders::ALL).title(" keys ");
    frame.render_widget(Paragraph::new(HELP).block(block), window);
}

fn none() -> String {
    "-".to_owned()
}

/// As much of a long pseudonym as tells it from others.
fn shortened(text: Option<&str>) -> String {
    text.map_or_else(none, |text| text.chars().take(12).collect())
}

/// A number in at most five letters.
fn short(number: Option<f64>) -> String {
    let Some(mut number) = number else {
        return none();
    };
    for unit in ["", "k", "M", "G"] {
        if number < 9.95 && !unit.is_empty() {
            return format!("{number:.1}{unit}");
        }
        if number < 999.5 {
            return format!("{number:.0}{unit}");
        }
        number /= 1_000.0;
    }
    format!("{number:.0}T")
}

/// Seconds in at most six letters.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!(
            "{}d{:02}h",
            (seconds / 86_400).min(999),
            seconds / 3_600 % 24
        ),
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is shown in three digits")]
const fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
