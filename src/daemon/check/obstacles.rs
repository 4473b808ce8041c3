//! What keeps `serve` from starting on this machine, whoever runs it.

use std::net::SocketAddr;

use super::facts::Facts;
use super::warnings::{is_here, joined, listening_sockets};
use crate::config::Settings;

/// Every reason, each with its remedy.
pub(super) fn of(settings: &Settings, facts: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(absent_listeners(settings, facts));
    found.extend(no_directory(facts));
    found.extend(no_descriptors(settings, facts));
    found
}

fn absent_listeners(settings: &Settings, facts: &Facts) -> Option<String> {
    let clients = settings.listen.all().map(|(_, address)| address);
    let mut listeners: Vec<SocketAddr> = clients.chain(settings.admin.listen).collect();
    listeners.sort_unstable();
    listeners.dedup();
    let absent = listeners
        .iter()
        .filter(|listener| !listener.ip().is_unspecified())
        .filter(|listener| !is_here(listener.ip(), facts));
    let absent = joined(absent)?;
    Some(format!(
        "{absent} is to be listened on, which is no address of this machine. Give the address to \
         an interface, or listen on a wildcard such as 0.0.0.0:3478."
    ))
}

fn no_directory(facts: &Facts) -> Option<String> {
    let place = facts.state.as_ref().filter(|place| !place.is_directory)?;
    let shown: String = place.nearest.to_string_lossy().escape_debug().collect();
    Some(format!(
        "state.dir: {shown} is no directory. Name one, or a place where one can be made."
    ))
}

fn no_descriptors(settings: &Settings, facts: &Facts) -> Option<String> {
    let limit = facts.descriptors?;
    let listeners = listening_sockets(settings, facts);
    (limit <= listeners).then(|| {
        format!(
            "this process may open {limit} files, not more than the {listeners} listeners, each \
             worker's counted. LimitNOFILE= in the systemd unit, or `ulimit -Hn`, or fewer \
             workers.count."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::facts::Place;
    use super::super::testing::{facts, settings};
    use super::*;

    fn only(variables: &[(&str, &str)], facts: &Facts) -> String {
        let mut found = of(&settings(variables), facts);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn nothing_keeps_a_sound_server_from_starting() {
        assert_eq!(of(&settings(&[]), &facts()), Vec::<String>::new());
        let here = ("TACITURN_LISTEN__UDP", "127.0.0.9:3478,[::]:3478");
        assert_eq!(of(&settings(&[here]), &facts()), Vec::<String>::new());
    }

    #[test]
    fn a_listener_that_is_not_here_is_named_and_the_others_are_not() {
        let listen = ("TACITURN_LISTEN__UDP", "198.51.100.1:3478,0.0.0.0:3478");
        let said = only(&[listen], &facts());
        assert!(said.starts_with("198.51.100.1:3478 is to be"), "{said}");
        let admin = ("TACITURN_ADMIN__LISTEN", "198.51.100.1:9641");
        let said = only(&[admin], &facts());
        assert!(said.starts_with("198.51.100.1:9641 is to be"), "{said}");
    }

    #[test]
    fn a_file_is_no_state_directory() {
        let facts = Facts {
            state: Some(Place {
                nearest: "/file".into(),
                is_there: true,
                is_directory: false,
                is_writable: true,
                mode: 0o600,
            }),
            ..facts()
        };
        let said = only(&[], &facts);
        assert!(said.contains("/file is no directory"), "{said}");
    }

    #[test]
    fn listeners_need_their_descriptors() {
        let facts = Facts {
            descriptors: Some(16),
            ..facts()
        };
        let said = only(&[], &facts);
        assert!(said.contains("16 files, not more than the 16"), "{said}");
    }
}
