//! Other servers to which clients are sent.

use std::net::SocketAddr;

use super::Checker;
use crate::config::Alternate;
use crate::config::file;
use crate::config::key::Key;
use crate::config::parse::{self, Fault};
use crate::turn::Redirect;

impl Checker<'_> {
    /// `listeners` are the configured addresses of all transports.
    pub(super) fn alternate(
        &mut self,
        typed: &file::Alternate,
        listeners: &[SocketAddr],
    ) -> Alternate {
        let key = |name| Key::new("alternate", name);
        let choices = [
            ("draining", Redirect::Draining),
            ("always", Redirect::Always),
        ];
        let other = |text: &str| server(text, listeners);
        let servers = self.list(&key("servers"), &typed.servers, other);
        let redirect = self.choice(
            &key("redirect"),
            &typed.redirect,
            &choices,
            Redirect::Draining,
        );
        if redirect == Redirect::Always && typed.servers.is_empty() {
            let fault = Fault::new(
                "there is no server to send clients to",
                "name servers under [alternate], or write \"draining\"",
            );
            self.refuse(&key("redirect"), fault);
        }
        Alternate { servers, redirect }
    }
}

fn server(text: &str, listeners: &[SocketAddr]) -> Result<SocketAddr, Fault> {
    let remedy = "write the address and port of another server, such as \"203.0.113.8:3478\"";
    let address: SocketAddr = text
        .parse()
        .map_err(|_| Fault::new("not an address with a port", remedy))?;
    parse::host_address(&address.ip().to_string())
        .map_err(|fault| Fault::new(fault.reason, remedy))?;
    if address.port() == 0 {
        Err(Fault::new("nobody listens on port 0", remedy))
    } else if listeners.contains(&address) {
        Err(Fault::new("this is where this server listens", remedy))
    } else {
        Ok(address)
    }
}
