//! What of new settings can be taken up by a daemon that runs, and what waits for its next start:
//! listeners and threads are made once, and what every credential or key depends on stays.

use std::sync::Arc;

use super::Settings;
use super::check::under_relay_ports;

/// Makes a function that puts back, in new settings, what differs from those that hold under each of
/// these keys, and says which did.
macro_rules! restarts {
    ($($key:literal => $($field:ident).+,)+) => {
        /// The keys that wait for a restart. docs/revocation.md and config/taciturn.toml list them.
        #[cfg(test)]
        const RESTARTS: &[&str] = &[$($key),+];

        fn put_back(new: &mut Settings, running: &Settings) -> Vec<&'static str> {
            let mut kept = Vec::new();
            $(
                if new.$($field).+ != running.$($field).+ {
                    new.$($field).+.clone_from(&running.$($field).+);
                    kept.push($key);
                }
            )+
            kept
        }
    };
}

restarts! {
    "realm" => realm,
    "listen.udp" => listen.udp,
    "listen.tcp" => listen.tcp,
    "listen.tls" => listen.tls,
    "listen.dtls" => listen.dtls,
    "listen.receive_buffer" => listen.receive_buffer,
    "relay.addresses" => relay.addresses,
    "relay.external" => relay.external,
    "workers.count" => workers.count,
    "workers.streams" => workers.streams,
    "state.dir" => state.dir,
    "admin.listen" => admin.listen,
    "api.listen" => api.listen,
    "control.socket" => control.socket,
    "log.show_addresses" => log.show_addresses,
}

impl Settings {
    /// These settings as far as a daemon that was started with `running` can take them up, and the
    /// keys of what it cannot.
    #[must_use]
    pub fn taken_up_by(mut self, running: &Self) -> (Self, Vec<&'static str>) {
        let mut kept = put_back(&mut self, running);
        // They were checked against the listeners that are to come.
        if under_relay_ports(&self.listen, &self.relay)
            .next()
            .is_some()
        {
            self.relay.ports.clone_from(&running.relay.ports);
            kept.push("relay.ports");
        }
        // The API's door is opened at the start or never.
        if self.api.door().is_some()
            && running.api.door().is_none()
            && !kept.contains(&"api.listen")
        {
            kept.push("api.listen");
        }
        if self.tls.keys.is_some() != running.tls.keys.is_some() {
            // Without listeners for them there is nothing to serve.
            self.tls.keys = running.tls.keys.as_ref().map(Arc::clone);
        }
        (self, kept)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Flags, Sources, load};
    use super::*;

    fn settings(text: &str) -> Settings {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("taciturn.toml");
        let users = "[auth]\nusers = { alice = 'password' }\n";
        std::fs::write(&file, format!("{text}\n{users}")).unwrap();
        let sources = Sources {
            file: Some(file),
            environment: Vec::new(),
            flags: Flags::default(),
        };
        load(&sources).unwrap().settings
    }

    #[test]
    fn what_needs_a_restart_is_named_and_stays_and_the_rest_is_taken_up() {
        let running = settings("");
        let new = settings(
            "realm = 'other'\nrelay = { ports = '50000-50100', bind = 'always', dscp = 46 }\n\
             limits = { user_allocations = 3 }\nlog = { level = 'debug', format = 'json' }\n\
             workers = { count = 3 }",
        );
        let (taken, kept) = new.taken_up_by(&running);
        assert_eq!(kept, ["realm", "workers.count"]);
        assert_eq!(taken.realm, running.realm);
        assert_eq!(taken.relay.ports, 50_000..=50_100);
        assert_eq!(taken.relay.dscp, 46);
        assert_eq!(taken.limits.user_allocations, Some(3));
        assert_eq!(taken.log.level, tracing::Level::DEBUG);
        assert_eq!(taken.log.format, super::super::LogFormat::Json);
        assert_eq!(taken.relay.bind, super::super::RelayBind::Always);
        let (_, kept) = running.clone().taken_up_by(&running);
        assert!(kept.is_empty(), "{kept:?}");
    }

    #[test]
    fn relay_ports_that_cover_a_listener_that_stays_stay_too() {
        let running = settings("[listen]\nudp = ['127.0.0.1:40000']\n");
        let text = "relay.ports = '30000-45000'\n[listen]\nudp = ['127.0.0.1:3478']\n";
        let (taken, kept) = settings(text).taken_up_by(&running);
        assert_eq!(kept, ["listen.udp", "listen.tcp", "relay.ports"]);
        assert_eq!(taken.relay.ports, running.relay.ports);
    }

    #[test]
    fn an_api_that_was_not_opened_waits_for_a_restart() {
        let running = settings("");
        let key = "api.keys = [{ id = 'a', value = '0123456789abcdef0123', scopes = ['read'] }]";
        let (_, kept) = settings(key).taken_up_by(&running);
        assert_eq!(kept, ["api.listen"]);
    }

    /// The keys that `text` lists behind `before`, up to the end of that sentence.
    fn listed(text: &str, before: &str) -> Vec<String> {
        let (_, list) = text.split_once(before).unwrap();
        let list = list.replace("\n#", " ");
        let (list, _) = list.split_once(". ").unwrap_or((&list, ""));
        let words = list.split([' ', ',', '\n']);
        let keys = words.map(|word| word.trim_matches(['`', '.']));
        keys.filter(|word| !word.is_empty() && *word != "and")
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_documented_keys_that_need_a_restart_are_those() {
        let page = include_str!("../../docs/revocation.md");
        let file = include_str!("../../config/taciturn.toml");
        assert_eq!(listed(page, "These keys wait for a restart:"), RESTARTS);
        assert_eq!(listed(file, "what waits for a restart:"), RESTARTS);
        for key in RESTARTS {
            let mut value = &crate::config::defaults();
            for name in key.split('.') {
                value = value.get(name).unwrap();
            }
        }
    }
}
