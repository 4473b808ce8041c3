//! The command line of `taciturn demo`.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};

use clap::Args;

use crate::config::{Flags, Sources};

/// The ports to relay from: above those that Linux gives out by itself, of which the listeners get
/// theirs.
const RELAY_PORTS: &str = "61000-65535";
const FIRST_RELAY_PORT: u16 = 61_000;

/// `taciturn demo`
#[derive(Debug, Args)]
#[command(after_help = "\
The relay is what `serve` runs, closed as usual, with a secret for this run; no configuration file
and no variable of the environment is read. Whoever opens the page gets credentials that are good
for ten minutes, so it is for browsers of this machine alone.

Examples:
  taciturn demo
      Then open http://127.0.0.1:8081/ and switch between direct and relayed.
  taciturn demo --page 127.0.0.1:9000 --log-level info
      On another port, and with the relay's log, which names nobody's address either.
  taciturn demo --listen 192.0.2.7
      At this machine's address in the network, for Firefox, which takes no relay on loopback;
      and for two machines. On the other one, `ssh -L 8081:127.0.0.1:8081 192.0.2.7` brings the
      page. One opens it with ?party=a, the other with ?party=b.")]
pub struct Demo {
    /// Where the page is, on a loopback address.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8081", value_parser = page)]
    pub page: SocketAddr,
    /// The address to relay at, one of this machine's; the port is a free one unless it is given.
    /// All of 127.0.0.0/8 is this machine, and an address of its own tells the relay from the
    /// browsers.
    #[arg(long, value_name = "ADDRESS[:PORT]", default_value = "127.0.34.78", value_parser = listen)]
    pub listen: SocketAddr,
    /// Least level of the log: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub log_level: String,
}

impl Demo {
    /// The sources of this run's settings: defaults, and what makes the demo one.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let address = self.listen.ip().to_string();
        let fixed = [
            ("TACITURN_RELAY__ADDRESSES", address.as_str()),
            ("TACITURN_RELAY__PORTS", RELAY_PORTS),
            // A daemon of this machine may have these.
            ("TACITURN_ADMIN__LISTEN", "off"),
            ("TACITURN_CONTROL__SOCKET", "off"),
        ];
        Sources {
            file: None,
            environment: fixed
                .map(|(name, value)| (OsString::from(name), OsString::from(value)))
                .into(),
            flags: Flags {
                log_level: Some(self.log_level.clone()),
                listen_udp: vec![self.listen.to_string()],
                ..Flags::default()
            },
        }
    }
}

/// Credentials are handed to whoever comes there.
fn page(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err(
            "whoever opens the page gets credentials, so it is on loopback alone, such as \
             127.0.0.1:8081; from another machine, ssh -L reaches it"
                .to_owned(),
        ),
        Err(_) => Err("write an address and a port, such as 127.0.0.1:8081".to_owned()),
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, 0)),
        Err(_) => text.parse::<SocketAddr>(),
    };
    match address {
        Ok(address) if address.ip().is_unspecified() || address.ip().is_multicast() => Err(
            "that is no single address; write one of this machine, such as 192.0.2.7".to_owned(),
        ),
        Ok(address) if address.port() >= FIRST_RELAY_PORT => Err(format!(
            "ports from {FIRST_RELAY_PORT} on are for relayed addresses; write a lower one"
        )),
        Ok(address) => Ok(address),
        Err(_) => {
            Err("write an address of this machine, such as 192.0.2.7 or 192.0.2.7:3478".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Peers};
    use crate::daemon::cli::{Cli, Command};
    use clap::Parser;

    fn demo(arguments: &str) -> Result<Demo, clap::Error> {
        let line = format!("taciturn demo {arguments}");
        let command = Cli::try_parse_from(line.split_whitespace())?.command;
        let Command::Demo(demo) = command else {
            panic!("not demo")
        };
        Ok(demo)
    }

    #[test]
    fn it_is_closed_on_loopback_and_in_nobodys_way_unless_told_otherwise() {
        let demo = demo("").unwrap();
        assert!(demo.page.ip().is_loopback());
        let settings = config::load(&demo.sources()).unwrap().settings;
        assert!(
            settings
                .listen
                .udp
                .iter()
                .all(|at| at.ip().is_loopback() && at.port() == 0)
        );
        assert_eq!(settings.listen.tcp, settings.listen.udp);
        assert_eq!(settings.policy.peers, Peers::Relay);
        assert_eq!(settings.policy.ceiling, Peers::Relay);
        assert!(settings.auth.is_empty(), "it makes a secret for this run");
        assert!(settings.admin.listen.is_none() && settings.api.door().is_none());
        assert!(settings.control.socket.is_none() && settings.state.dir.is_none());
        assert!(!settings.log.show_addresses);
    }

    #[test]
    fn the_relay_may_be_at_an_address_of_the_network() {
        let demo = demo("--listen 192.0.2.7:3478").unwrap();
        let settings = config::load(&demo.sources()).unwrap().settings;
        assert_eq!(settings.listen.udp, ["192.0.2.7:3478".parse().unwrap()]);
        assert_eq!(
            settings.relay.addresses,
            ["192.0.2.7".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(settings.policy.peers, Peers::Relay);
    }

    #[test]
    fn a_page_for_other_machines_and_a_relay_without_one_address_are_refused() {
        for fine in [
            "--page [::1]:0",
            "--page 127.0.0.2:80",
            "--listen ::1",
            "--listen [::1]:5",
        ] {
            assert!(demo(fine).is_ok(), "{fine}");
        }
        for bad in [
            "--page 0.0.0.0:8081",
            "--page 192.0.2.7:8081",
            "--page 8081",
            "--listen 0.0.0.0",
            "--listen [::]:3478",
            "--listen 224.0.0.1",
            "--listen 192.0.2.7:61000",
            "--listen relay.example.org",
        ] {
            assert!(demo(bad).is_err(), "{bad}");
        }
    }
}
