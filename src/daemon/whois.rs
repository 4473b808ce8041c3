//! `taciturn whois`: whether a pseudonym of the log stands for an address that its operator already
//! suspects. No address is stored anywhere: the pseudonym is made again with the key of each day
//! that is still kept, and compared. Nothing is written, and no key is made. Where there is no state
//! directory the keys are the running daemon's alone, and it is asked.

use std::borrow::Cow;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use crate::config;
use crate::daemon::cli::Whois;
use crate::daemon::control::Client;
use crate::daemon::pseudonyms::{self, DAY};
use crate::daemon::{Usage, print};
use crate::turn::{ClientAddr, Pseudonym};

/// The exit code of a question that has no answer.
pub(crate) const CANNOT_TELL: u8 = 2;

/// The answer is no, and was printed.
#[derive(Debug, thiserror::Error)]
#[error("no")]
pub(crate) struct No;

/// There is no answer.
#[derive(Debug, thiserror::Error)]
#[error("whois cannot tell")]
pub(crate) struct CannotTell;

/// Prints whether the pseudonym stands for the address.
///
/// # Errors
/// [`No`] when it does not; [`CannotTell`] when no key is left, or none can be read.
pub(crate) fn run(arguments: &Whois) -> anyhow::Result<()> {
    let address = address(&arguments.address)?;
    let settings = config::load(&arguments.sources())?.settings;
    let days = match &settings.state.dir {
        Some(directory) => days(directory, arguments.pseudonym, address),
        None => days_of_daemon(&settings.control, arguments.pseudonym, address),
    };
    let days = days.context(CannotTell)?;
    let [first, .., last] = [days.first(), days.last()];
    let (Some(first), Some(last)) = (first, last) else {
        let place = settings.state.dir.as_deref();
        let place = place.map_or(Cow::Borrowed("the daemon"), Path::to_string_lossy);
        return Err(anyhow!(
            "{place} holds no key of a pseudonym: none was made there yet, or their \
             log.pseudonym_days are over, and what was logged under them is nobody's any more"
        )
        .context(CannotTell));
    };
    let (first, last) = (date(first.day), date(last.day));
    if let Some(found) = days.iter().find(|day| day.fits) {
        let day = date(found.day);
        return print(&format!(
            "yes: on {day} (UTC) {} stood for that address",
            arguments.pseudonym
        ));
    }
    print(&format!(
        "no: on none of the days whose key is kept, {first} to {last} (UTC), did {} stand for that \
         address",
        arguments.pseudonym
    ))?;
    Err(No.into())
}

/// A day whose key is kept, and whether the pseudonym fits on it.
struct Day {
    day: u64,
    fits: bool,
}

fn days(directory: &Path, pseudonym: Pseudonym, address: IpAddr) -> anyhow::Result<Vec<Day>> {
    let client = ClientAddr::new(SocketAddr::new(address, 0));
    let kept = pseudonyms::kept(directory)?.into_iter();
    Ok(kept
        .map(|(day, key)| Day {
            day,
            fits: key.of(client) == pseudonym,
        })
        .collect())
}

/// The same by the keys that live in the daemon, which is asked by its control socket.
fn days_of_daemon(
    control: &config::Control,
    pseudonym: Pseudonym,
    address: IpAddr,
) -> anyhow::Result<Vec<Day>> {
    let ask = || {
        let socket = control.socket.as_deref();
        let socket = socket.context("control.socket is off, so that it cannot be asked")?;
        let question = json!({
            "pseudonym": pseudonym.to_string(),
            "address": address.to_string(),
        });
        Client::new(socket).ask("POST", "/v1/whois", Some(&question))
    };
    let answer = ask().context(
        "without state.dir the key of a day is the running daemon's alone, and goes with it; name a \
         directory there, and what is logged from then on can be asked about without it",
    )?;
    let days = answer["days"].as_array().map_or(&[][..], Vec::as_slice);
    let day = |day: &Value| {
        Some(Day {
            day: day["day"].as_u64()?,
            fits: day["fits"].as_bool()?,
        })
    };
    let days: Option<Vec<Day>> = days.iter().map(day).collect();
    days.context("the daemon's answer is not understood; is it of this version?")
}

/// The address, from standard input for "-": arguments are seen by every user of the machine.
fn address(text: &str) -> anyhow::Result<IpAddr> {
    let mut typed = String::new();
    let text = if text == "-" {
        // An address is short.
        io::stdin().take(100).read_to_string(&mut typed)?;
        typed.trim()
    } else {
        text
    };
    let address: IpAddr = text.parse().map_err(|_| {
        Usage(
            "whois: that is no address; write one such as 198.51.100.20, without a port".to_owned(),
        )
    })?;
    Ok(address.to_canonical())
}

/// A day counted from 1970 as people write it.
fn date(day: u64) -> String {
    let midnight = UNIX_EPOCH + Duration::from_secs(day * DAY);
    let whole = humantime::format_rfc3339_seconds(midnight).to_string();
    whole.split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_as_people_write_it() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(20_780), "2026-11-23");
    }

    #[test]
    fn an_address_is_an_address_however_it_is_mapped() {
        let mapped = address("::ffff:192.0.2.1").unwrap();
        assert_eq!(mapped, IpAddr::from([192, 0, 2, 1]));
        for bad in ["", "192.0.2.1:3478", "alice", "192.0.2"] {
            assert!(address(bad).unwrap_err().is::<Usage>(), "{bad}");
        }
    }
}
