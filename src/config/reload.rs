//! What of new settings can be taken up by a daemon that runs, and what waits for its next start:
//! sockets, ports and threads are made once, and what every credential or key depends on stays.

use std::sync::Arc;

use super::Settings;

/// Puts back, in `$new`, what differs from `$old` under each of these keys, and notes them.
macro_rules! keep {
    ($new:ident, $old:ident, $kept:ident: $($key:literal => $($field:ident).+,)+) => {
        $(
            if $new.$($field).+ != $old.$($field).+ {
                $new.$($field).+.clone_from(&$old.$($field).+);
                $kept.push($key);
            }
        )+
    };
}

impl Settings {
    /// These settings as far as a daemon that was started with `running` can take them up, and the
    /// keys of what it cannot.
    #[must_use]
    pub fn taken_up_by(mut self, running: &Self) -> (Self, Vec<&'static str>) {
        let mut kept = Vec::new();
        let new = &mut self;
        keep!(new, running, kept:
            "realm" => realm,
            "listen.udp" => listen.udp,
            "listen.tcp" => listen.tcp,
            "listen.tls" => listen.tls,
            "listen.dtls" => listen.dtls,
            "listen.receive_buffer" => listen.receive_buffer,
            "proxy_protocol.trusted" => proxy_protocol.trusted,
            "relay.addresses" => relay.addresses,
            "relay.external" => relay.external,
            "relay.ports" => relay.ports,
            "relay.port_rest" => relay.port_rest,
            "relay.receive_buffer" => relay.receive_buffer,
            "relay.dscp" => relay.dscp,
            "limits.unvalidated" => limits.unvalidated,
            "workers.count" => workers.count,
            "workers.streams" => workers.streams,
            "state.dir" => state.dir,
            "admin.listen" => admin.listen,
            "api.listen" => api.listen,
            "api.failures" => api.failures,
            "control.socket" => control.socket,
            "events.file" => events.file,
            "events.webhooks" => events.webhooks,
            "events.queue" => events.queue,
            "events.interval" => events.interval,
            "log.format" => log.format,
            "log.pseudonym_days" => log.pseudonym_days,
            "log.show_addresses" => log.show_addresses,
        );
        new.keep_doors(running, &mut kept);
        if self.tls.keys.is_some() != running.tls.keys.is_some() {
            // Without listeners for them there is nothing to serve.
            self.tls.keys = running.tls.keys.as_ref().map(Arc::clone);
        }
        (self, kept)
    }

    /// The API's door is opened at the start or never, with or without TLS.
    fn keep_doors(&mut self, running: &Self, kept: &mut Vec<&'static str>) {
        let files = |settings: &Self| settings.api.tls.as_ref().map(|tls| tls.keys.files());
        let asks = |settings: &Self| {
            let tls = settings.api.tls.as_ref();
            tls.is_some_and(|tls| tls.clients.is_some())
        };
        if files(self) != files(running) || asks(self) != asks(running) {
            kept.push("api.tls");
        }
        self.api.tls.clone_from(&running.api.tls);
        if self.api.door().is_some() && running.api.door().is_none() {
            kept.push("api.keys");
        }
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
            "realm = 'other'\nrelay = { ports = '50000-50100', bind = 'always' }\n\
             limits = { user_allocations = 3 }\nlog = { level = 'debug', format = 'json' }",
        );
        let (taken, kept) = new.taken_up_by(&running);
        assert_eq!(kept, ["realm", "relay.ports", "log.format"]);
        assert_eq!(taken.realm, running.realm);
        assert_eq!(taken.relay.ports, running.relay.ports);
        assert_eq!(taken.limits.user_allocations, Some(3));
        assert_eq!(taken.log.level, tracing::Level::DEBUG);
        assert_eq!(taken.relay.bind, super::super::RelayBind::Always);
        let (_, kept) = running.clone().taken_up_by(&running);
        assert!(kept.is_empty(), "{kept:?}");
    }
}
