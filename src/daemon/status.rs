//! `taciturn status`: how the daemon of this machine fares, for scripts. Lines of a name and a value,
//! or the API's JSON as it is, and an exit code.

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::Value;

use crate::daemon::cli::Status;
use crate::daemon::control::Client;
use crate::daemon::print;
use crate::dataplane::sys;

/// sysexits.h, EX_UNAVAILABLE: nobody answers.
pub(crate) const NO_ANSWER: u8 = 69;

/// The daemon answers and takes no calls, which was said on standard output.
#[derive(Debug, thiserror::Error)]
#[error("not ready")]
pub(crate) struct NotReady;

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
#[error("status cannot be told")]
pub(crate) struct NoAnswer;

/// Prints how the daemon fares.
///
/// # Errors
/// [`NotReady`] when it takes no calls, [`NoAnswer`] when it does not say.
pub(crate) fn run(arguments: &Status) -> anyhow::Result<()> {
    let answer = Client::new(&arguments.at.socket).get("/v1/status");
    let status = answer.context(NoAnswer)?;
    print(&if arguments.json {
        status.to_string()
    } else {
        lines(&status, sys::unix_seconds())
    })?;
    match status["ready"].as_bool() {
        Some(true) => Ok(()),
        Some(false) | None => Err(NotReady.into()),
    }
}

/// The status in lines of a name and a value at `now`, in seconds of the Unix epoch.
fn lines(status: &Value, now: u64) -> String {
    let mut out = Lines(String::new());
    for name in [
        "ready",
        "version",
        "features",
        "uptime",
        "allocations",
        "allocations_total",
    ] {
        out.line(name, &status[name]);
    }
    for way in ["received", "sent"] {
        for what in ["packets", "bytes"] {
            out.line(&format!("{way}_{what}"), &status[way][what]);
        }
    }
    for what in ["free", "held", "resting", "reserved"] {
        out.line(&format!("ports_{what}"), &status["ports"][what]);
    }
    out.line("imbalance", &status["imbalance"]);
    for (index, worker) in (0..).zip(status["workers"].as_array().into_iter().flatten()) {
        let index: u32 = index;
        for what in [
            "of",
            "allocations",
            "packets",
            "datagrams",
            "queue_drops",
            "busy",
        ] {
            out.line(&format!("worker_{index}_{what}"), &worker[what]);
        }
    }
    for (list, prefix) in [
        ("drops", "drop"),
        ("limited", "limited"),
        ("auth_failures", "auth_failure"),
    ] {
        for (name, count) in status[list].as_object().into_iter().flatten() {
            out.line(&format!("{prefix}_{name}"), count);
        }
    }
    for what in ["applied", "refused", "last", "outcome"] {
        out.line(&format!("reload_{what}"), &status["reloads"][what]);
    }
    for (index, one) in (0..).zip(status["certificates"].as_array().into_iter().flatten()) {
        let index: u32 = index;
        let until = one["until"].as_u64().unwrap_or(0);
        // Negative once it has expired.
        let days = i128::from(until) - i128::from(now);
        let days = i64::try_from(days.div_euclid(86_400)).unwrap_or(i64::MAX);
        out.line(&format!("certificate_{index}_by"), &one["by"]);
        out.line(&format!("certificate_{index}_days"), &days.into());
    }
    for (index, one) in (0..).zip(status["buffers"].as_array().into_iter().flatten()) {
        let index: u32 = index;
        for what in ["transport", "receive", "send"] {
            out.line(&format!("buffer_{index}_{what}"), &one[what]);
        }
    }
    for what in ["open", "limit"] {
        out.line(&format!("descriptors_{what}"), &status["descriptors"][what]);
    }
    for name in ["revocations", "bans"] {
        out.line(name, &status[name]);
    }
    out.0.truncate(out.0.trim_end().len());
    out.0
}

struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, value: &Value) {
        let value = match value {
            Value::String(text) => text.clone(),
            // Nothing has no value, and a script finds the line all the same.
            Value::Null => "-".to_owned(),
            Value::Array(list) => {
                let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                words.join(",")
            }
            Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
        };
        // Writing into a string cannot fail.
        _ = writeln!(self.0, "{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_line_is_a_name_and_a_value() {
        let status = json!({
            "ready": true, "features": ["dtls", "top"], "uptime": 7,
            "received": { "packets": 3 }, "drops": { "malformed": 2 },
            "workers": [{ "of": "udp", "busy": 0.5 }],
            "certificates": [{ "by": "listen", "until": 1_000 + 3 * 86_400 }],
        });
        let text = lines(&status, 1_000);
        for line in [
            "ready true",
            "features dtls,top",
            "uptime 7",
            "received_packets 3",
            "drop_malformed 2",
            "worker_0_of udp",
            "worker_0_busy 0.5",
            "certificate_0_days 3",
            "reload_last -",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in {text}");
        }
        for line in text.lines() {
            assert_eq!(line.split(' ').count(), 2, "{line}");
        }
    }
}
