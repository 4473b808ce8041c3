//! What is made from the definition of the command line: shell completions and manual pages.

use std::io::Write;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::daemon::cli::{self, Cli};
use crate::daemon::{Usage, print};

/// `taciturn completions`
///
/// # Errors
/// When standard output is closed.
pub(crate) fn completions(arguments: &cli::Completions) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(arguments.shell, &mut command, "taciturn", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(())
}

/// `taciturn man`
///
/// # Errors
/// When there is no such command, or standard output is closed.
pub(crate) fn page(arguments: &cli::Man) -> anyhow::Result<()> {
    print(render(arguments.about.as_deref())?.trim_end())
}

/// What the paragraph of a help text with its examples begins with.
const EXAMPLES: &str = "Examples:\n";

fn render(about: Option<&str>) -> anyhow::Result<String> {
    let mut command = Cli::command();
    command.build();
    let (page, after) = match about {
        None => {
            let after = after_help(&command);
            (Man::new(command.after_help(None)), after)
        }
        Some(name) => {
            let found = command.find_subcommand(name).ok_or_else(|| {
                let names: Vec<&str> = command
                    .get_subcommands()
                    .map(clap::Command::get_name)
                    .collect();
                Usage(format!(
                    "there is no command {name:?}; write one of {}",
                    names.join(", ")
                ))
            })?;
            let title = format!("taciturn-{name}");
            let source = concat!("taciturn ", env!("CARGO_PKG_VERSION"));
            let after = after_help(found);
            let found = found.clone().after_help(None);
            (Man::new(found).title(title).source(source), after)
        }
    };
    let mut roff = Vec::new();
    page.render(&mut roff)?;
    Ok(String::from_utf8(roff)? + &sections(&after))
}

fn after_help(command: &clap::Command) -> String {
    command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// The text below a command's flags as sections of its page. Its lines stay as they are: what
/// they show is typed as it stands.
fn sections(text: &str) -> String {
    let (notes, examples) = text.split_once(EXAMPLES).unwrap_or((text, ""));
    let mut page = String::new();
    for (title, lines) in [("NOTES", notes), ("EXAMPLES", examples)] {
        if !lines.trim().is_empty() {
            page.push_str(&format!(".SH {title}\n.nf\n"));
            for line in lines.trim_end().lines() {
                page.push_str(&verbatim(line));
                page.push('\n');
            }
            page.push_str(".fi\n");
        }
    }
    page
}

/// A line in which roff sees nothing of its own.
fn verbatim(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) {
        format!("\\&{line}")
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_flags() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let page = render(Some(name)).unwrap();
            let title = format!(
                ".TH taciturn-{name} 1  \"taciturn {}",
                env!("CARGO_PKG_VERSION")
            );
            assert!(page.contains(&title), "{page}");
            for argument in command.get_arguments() {
                let flag = argument.get_long().unwrap_or_default().replace('-', "\\-");
                assert!(page.contains(&flag), "{name} --{flag}");
            }
        }
    }

    #[test]
    fn examples_stand_line_by_line_in_a_section_of_their_own() {
        let page = render(Some("check")).unwrap();
        let (before, examples) = page.split_once(".SH EXAMPLES\n.nf\n").unwrap();
        let first =
            "  taciturn check \\-\\-config /etc/taciturn/taciturn.toml\n      Before a restart,";
        assert!(examples.starts_with(first), "{examples}");
        assert!(examples.ends_with(".fi\n"), "{examples}");
        assert!(before.contains(".SH NOTES\n.nf\nIt takes what"), "{before}");
        assert!(!page.contains("Examples:"), "{page}");
        assert_eq!(verbatim(".a\\b"), "\\&.a\\eb");
    }

    #[test]
    fn a_page_about_nothing_is_refused_with_the_names_there_are() {
        let error = render(Some("fly")).unwrap_err();
        assert!(error.is::<Usage>());
        assert!(error.to_string().contains("serve"), "{error}");
    }
}
