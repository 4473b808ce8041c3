//! `taciturn check`: what `serve` would do with this configuration on this machine, and what an
//! operator may regret later. It owns no rule of the configuration, which `config` has judged
//! before; it opens no listener and changes nothing. `facts` asks the machine, `summary`, `obstacles`
//! and `warnings` only think.

mod facts;
mod obstacles;
pub(crate) mod summary;
#[cfg(test)]
mod testing;
mod warnings;

use std::fmt::Write as _;
use std::io::IsTerminal;

use crate::config;
use crate::daemon::cli::Check;
use crate::daemon::print;
use crate::daemon::serve::default_relays;
use crate::dataplane::RelayAddress;

use facts::Facts;

/// Loads the configuration as `serve` would, and tells what it means here.
///
/// # Errors
/// When the configuration is bad, the machine does not say what it is, or `serve` could not start on it.
pub(crate) fn run(arguments: &Check) -> anyhow::Result<()> {
    let loaded = config::load(&arguments.serve.sources())?;
    let settings = loaded.settings;
    let facts = Facts::gather(&settings)?;
    let relays = settings.relays(&default_relays())?;
    let mut warnings = loaded.warnings;
    warnings.extend(warnings::of(&settings, &relays, &facts));
    let obstacles = obstacles::of(&settings, &facts);
    let lines = summary::of(&settings, &relays, &facts);
    let terminal = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = if terminal { Style::Bold } else { Style::Plain };
    print(&page(&lines, &obstacles, &warnings, style))?;
    if obstacles.is_empty() {
        Ok(())
    } else {
        anyhow::bail!("`serve` could not start here")
    }
}

/// What `serve` tells at its start: that this process may open too few files for the relay sockets
/// of this configuration.
pub(crate) fn few_descriptors(
    settings: &config::Settings,
    relays: &[RelayAddress],
) -> Option<String> {
    let facts = Facts::gather(settings).ok()?;
    warnings::few_descriptors(settings, relays, &facts)
}

/// Bytes that the kernel grants of `listen.receive_buffer` and of `relay.receive_buffer` here.
pub(crate) fn granted_buffers(settings: &config::Settings) -> [Option<usize>; 2] {
    [
        settings.listen.receive_buffer,
        settings.relay.receive_buffer,
    ]
    .map(facts::granted)
}

/// Whether output may carry escape sequences.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Bold,
    Plain,
}

impl Style {
    fn bold(self, text: &str) -> String {
        match self {
            Self::Bold => format!("\u{1b}[1m{text}\u{1b}[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

/// One line of the summary: what it is about, and what is so.
type Line = (&'static str, String);

fn page(lines: &[Line], obstacles: &[String], warnings: &[String], style: Style) -> String {
    let mut page = String::new();
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut last = "";
    for (name, text) in lines {
        let shown = if *name == last { "" } else { name };
        last = name;
        let shown = style.bold(&format!("{shown:width$}"));
        // Writing into a string cannot fail.
        _ = writeln!(page, "{shown}  {text}");
    }
    if !obstacles.is_empty() {
        page.push_str("\n`serve` could not start here:\n");
    }
    for obstacle in obstacles {
        _ = writeln!(page, "- {obstacle}");
    }
    match warnings.len() {
        0 if !obstacles.is_empty() => page.truncate(page.trim_end().len()),
        0 => page.push_str("\nNothing to warn of."),
        1 => page.push_str("\n1 warning:"),
        count => _ = write!(page, "\n{count} warnings:"),
    }
    for warning in warnings {
        _ = write!(page, "\n- {warning}");
    }
    page
}

/// Whether relayed addresses get sockets of their own, rather than the hairpin alone.
fn opens_relay_sockets(settings: &config::Settings) -> bool {
    settings.relay.bind == config::RelayBind::Always
        || matches!(
            settings.policy.ceiling,
            config::Peers::Any | config::Peers::Networks(_)
        )
        || (!settings.policy.fleet.is_empty() && settings.policy.ceiling == config::Peers::Relay)
}

/// How many relayed transport addresses there are.
fn relayed_addresses(settings: &config::Settings, relays: &[RelayAddress]) -> u64 {
    let ports = &settings.relay.ports;
    let each = u64::from(*ports.end()) + 1 - u64::from(*ports.start());
    each * relays.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_each_thing_once_and_counts_its_warnings() {
        let lines = [
            ("Listens", "here".to_owned()),
            ("Listens", "there".to_owned()),
        ];
        let text = page(&lines, &[], &["mind this".to_owned()], Style::Plain);
        assert_eq!(
            text,
            "Listens  here\n         there\n\n1 warning:\n- mind this"
        );
        assert!(page(&lines, &[], &[], Style::Plain).ends_with("Nothing to warn of."));
    }

    #[test]
    fn obstacles_stand_before_warnings() {
        let lines = [("Log", "text".to_owned())];
        let obstacles = ["no way".to_owned()];
        let said = page(&lines, &obstacles, &[], Style::Plain);
        assert!(
            said.ends_with("\n\n`serve` could not start here:\n- no way"),
            "{said}"
        );
        let said = page(&lines, &obstacles, &["mind this".to_owned()], Style::Plain);
        assert!(
            said.ends_with("- no way\n\n1 warning:\n- mind this"),
            "{said}"
        );
    }

    #[test]
    fn only_a_bold_page_has_escape_sequences() {
        let lines = [("Log", "text".to_owned())];
        assert!(page(&lines, &[], &[], Style::Bold).contains('\u{1b}'));
        assert!(!page(&lines, &[], &[], Style::Plain).contains('\u{1b}'));
    }
}
