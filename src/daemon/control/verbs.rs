//! What the command line asks of a daemon, and how its answers are printed.

use std::fmt::Write as _;

use clap::ValueEnum as _;
use serde_json::Value;

use super::options::{Allocations, Ban, Bans, Revoke, Unban};
use super::{Client, percent_encoded};

/// `taciturn allocations`: every page of them.
///
/// # Errors
/// When no daemon is there, or it refuses.
pub(crate) fn allocations(arguments: &Allocations) -> anyhow::Result<String> {
    let client = Client::new(&arguments.at.socket);
    let transport = arguments.transport.and_then(|transport| {
        let name = transport.to_possible_value()?;
        Some(name.get_name().to_owned())
    });
    let mut query = String::new();
    for (name, value) in [
        ("user", &arguments.user),
        ("call", &arguments.call),
        ("tenant", &arguments.tenant),
        ("transport", &transport),
    ] {
        if let Some(value) = value {
            write!(query, "&{name}={}", percent_encoded(value))?;
        }
    }
    let found = every_allocation(&client, &query)?;
    Ok(if arguments.json {
        lines(&found)
    } else {
        table(&found)
    })
}

/// Those that `query` names, page after page.
///
/// # Errors
/// When no daemon is there, or it refuses.
pub(crate) fn every_allocation(client: &Client, query: &str) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut page = client.get(&format!("/v1/allocations?limit=10000{query}{cursor}"))?;
        if let Some(list) = page["allocations"].as_array_mut() {
            found.append(list);
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

fn lines(found: &[Value]) -> String {
    let lines: Vec<String> = found.iter().map(Value::to_string).collect();
    lines.join("\n")
}

/// A value as a person reads it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn table(found: &[Value]) -> String {
    let mut out = format!(
        "{:16}  {:32}  {:9}  {:>10}  {:>10}  {:>7}  tenant",
        "allocation", "user", "transport", "received", "sent", "dropped"
    );
    for one in found {
        let packets = |way: &str| text(&one[way]["packets"]);
        let line = format!(
            "\n{:16}  {:32}  {:9}  {:>10}  {:>10}  {:>7}  {}",
            text(&one["id"]),
            text(&one["subject"]),
            text(&one["transport"]),
            packets("received"),
            packets("sent"),
            text(&one["dropped"]),
            text(&one["tenant"]),
        );
        out.push_str(&line);
    }
    out
}

/// `taciturn revoke`
///
/// # Errors
/// When no daemon is there, or it refuses.
pub(crate) fn revoke(arguments: &Revoke) -> anyhow::Result<String> {
    let client = Client::new(&arguments.at.socket);
    let Revoke {
        user,
        call,
        username,
        allocation,
        ..
    } = arguments;
    if let Some(id) = allocation {
        client.ask(
            "DELETE",
            &format!("/v1/allocations/{}", percent_encoded(id)),
            None,
        )?;
        return Ok("ended on this node".to_owned());
    }
    let (kind, id) = match (user, call, username) {
        (Some(user), ..) => ("users", user),
        (None, Some(call), _) => ("calls", call),
        (None, None, Some(username)) => ("credentials", username),
        (None, None, None) => anyhow::bail!("nothing is named"),
    };
    let done = client.ask(
        "DELETE",
        &format!("/v1/{kind}/{}", percent_encoded(id)),
        None,
    )?;
    Ok(format!("revoked on this node{}", until_the_end(&done)))
}

/// `taciturn ban`
///
/// # Errors
/// When no daemon is there, or it refuses.
pub(crate) fn ban(arguments: &Ban) -> anyhow::Result<String> {
    let mut wanted = serde_json::Map::new();
    for (name, value) in [
        ("user", &arguments.user),
        ("subject", &arguments.subject),
        ("network", &arguments.network),
        ("pseudonym", &arguments.pseudonym),
    ] {
        if let Some(value) = value {
            wanted.insert(name.to_owned(), value.as_str().into());
        }
    }
    if let Some(ttl) = arguments.ttl {
        wanted.insert("ttl".to_owned(), ttl.as_secs().into());
    }
    let client = Client::new(&arguments.at.socket);
    let done = client.ask("POST", "/v1/bans", Some(&wanted.into()))?;
    let bans = done["bans"].as_array().map_or(&[][..], Vec::as_slice);
    let ids: Vec<&str> = bans.iter().filter_map(|ban| ban["id"].as_str()).collect();
    Ok(format!(
        "banned on this node{}: {}",
        until_the_end(&done),
        ids.join(" ")
    ))
}

/// `taciturn unban`
///
/// # Errors
/// When no daemon is there, or it refuses.
pub(crate) fn unban(arguments: &Unban) -> anyhow::Result<String> {
    let client = Client::new(&arguments.at.socket);
    let path = format!("/v1/bans/{}", percent_encoded(&arguments.id));
    client.ask("DELETE", &path, None)?;
    Ok("lifted on this node".to_owned())
}

/// `taciturn bans`
///
/// # Errors
/// When no daemon is there, or it refuses.
pub(crate) fn bans(arguments: &Bans) -> anyhow::Result<String> {
    let found = Client::new(&arguments.at.socket).get("/v1/bans")?;
    let found = found["bans"].as_array().map_or(&[][..], Vec::as_slice);
    if arguments.json {
        return Ok(lines(found));
    }
    let mut out = format!(
        "{:16}  {:32}  {:>10}  {:>10}",
        "ban", "who", "since", "until"
    );
    for ban in found {
        let who = match ban["subject"].as_str() {
            Some(subject) => subject.to_owned(),
            None => format!("a network /{}", text(&ban["prefix"])),
        };
        let (id, since, until) = (text(&ban["id"]), text(&ban["since"]), text(&ban["until"]));
        write!(out, "\n{id:16}  {who:32}  {since:>10}  {until:>10}")?;
    }
    Ok(out)
}

/// What to know of a change that no state directory keeps.
fn until_the_end(done: &Value) -> &'static str {
    match done["durable"].as_bool() {
        Some(true) => "",
        Some(false) | None => ", until its daemon ends: it has no state.dir",
    }
}
