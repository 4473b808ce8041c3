//! `taciturn demo`: a relay on this machine as `serve` runs it, and a page on which two call
//! windows talk through it and show what each browser learns of the other's address.
//!
//! The relay is `serve`'s own, under settings of `options`. `page` serves the files below `page/`,
//! `credentials` mints for them, and `signals` carries what two tabs tell each other; one page with both
//! windows needs none. What is shown, the page's script finds out in the browser.

mod credentials;
pub(crate) mod options;
mod page;
mod signals;

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::daemon::serve;
use crate::turn::Transport;

use options::Demo;

pub(crate) use page::Page;

/// Runs it until SIGTERM or Ctrl-C.
///
/// # Errors
/// When it cannot start.
pub(crate) fn run(arguments: &Demo) -> anyhow::Result<()> {
    serve::start(arguments.sources(), Some(arguments.page))
}

/// What whoever started it is told.
fn text(page: SocketAddr, listening: &[(Transport, SocketAddr)]) -> String {
    let mut text = format!(
        "taciturn demo: open this page\n\n    \
         http://{page}/\n\n\
         Two call windows on it talk through a relay on this machine, and show what each browser\n\
         learns of the other's address: through the relay, and directly. For two tabs, open it\n\
         once with ?party=a and once with ?party=b. Firefox takes no relay on loopback: give it\n\
         an address of this machine with --listen. The relay listens on\n\n"
    );
    for (transport, address) in listening {
        // Writing to a string cannot fail.
        _ = writeln!(text, "    {} {address}", transport.label());
    }
    text.push_str("\nwith a secret of its own for this run. Ctrl-C stops it.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_the_page_and_the_listeners() {
        let page = SocketAddr::from(([127, 0, 0, 1], 8081));
        let at = SocketAddr::from(([127, 0, 34, 78], 3478));
        let text = text(page, &[(Transport::Udp, at), (Transport::Tcp, at)]);
        for part in [
            "    http://127.0.0.1:8081/\n",
            "    udp 127.0.34.78:3478\n    tcp 127.0.34.78:3478\n",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
