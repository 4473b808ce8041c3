//! The command lines of those verbs that ask a daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

/// Where the daemon is.
#[derive(Debug, Args)]
pub struct Socket {
    /// The control socket of the daemon, control.socket in its configuration.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/taciturn/control.sock"
    )]
    pub socket: PathBuf,
}

/// `taciturn allocations`
#[derive(Debug, Args)]
#[command(after_help = "\
Users and calls are named as the platform names them; the answer has their subjects and hashes.

Examples:
  taciturn allocations
      Every allocation that is live on this machine's daemon.
  taciturn allocations --user alice --json
      Those of one user, for a script.")]
pub struct Allocations {
    /// Those of this user.
    #[arg(long)]
    pub user: Option<String>,
    /// Those of this call.
    #[arg(long)]
    pub call: Option<String>,
    /// Those on this tenant's account.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Those whose clients speak so.
    #[arg(long)]
    pub transport: Option<ClientTransport>,
    /// As JSON, one allocation a line.
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub at: Socket,
}

/// `taciturn status`
#[derive(Debug, Args)]
#[command(after_help = "\
A line for each thing, its name and its value; lines may be added, and none is renamed.
Exit code: 0 the daemon takes calls, 1 it does not, 69 it does not answer, 64 the command line is
bad.

Examples:
  taciturn status
      For a person, or for grep.
  taciturn status --json | jq .drops
      The whole of it; `taciturn openapi` describes it.
  taciturn status > /dev/null; [ $? -ne 69 ] || systemctl try-restart taciturn
      In a watchdog: it leaves alone what was stopped, and what only takes no new calls.")]
pub struct Status {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub at: Socket,
}

/// `taciturn top`
#[derive(Debug, Args)]
#[command(after_help = "\
Allocations, users and calls stand there by their pseudonyms. Keys: q quits, ? lists the others.

Examples:
  taciturn top
      What goes on, each second anew.
  taciturn top --interval 5s
      More quietly, over a slow line.")]
pub struct Top {
    /// How often the daemon is asked.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Where the daemon is.
    #[command(flatten)]
    pub at: Socket,
}

/// Neither so often that the asking is what goes on, nor so seldom that nothing does.
fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(pace) if (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&pace) => {
            Ok(pace)
        }
        Ok(_) => Err("from 100ms to 1min".to_owned()),
        Err(_) => Err("write a duration such as 2s".to_owned()),
    }
}

/// Between client and server.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ClientTransport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// A stream within TLS.
    Tls,
    /// Datagrams within DTLS.
    Dtls,
}

/// `taciturn revoke`
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").required(true)),
    after_help = "\
What was issued up to now is refused, and live allocations end within a second. What is minted
later is good. It is in force on this machine's daemon alone.

Examples:
  taciturn revoke --user alice
      Everything that one user has.
  taciturn revoke --call call-7
      A call, for both of its parties.
  taciturn revoke --allocation 0123456789abcdef
      One allocation, which its client may make anew."
)]
pub struct Revoke {
    /// A user, as the platform names them.
    #[arg(long, group = "what")]
    pub user: Option<String>,
    /// A call, as the platform names it.
    #[arg(long, group = "what")]
    pub call: Option<String>,
    /// One credential, by its username.
    #[arg(long, group = "what")]
    pub username: Option<String>,
    /// One allocation, by its id.
    #[arg(long, group = "what", value_name = "ID")]
    pub allocation: Option<String>,
    /// Where the daemon is.
    #[command(flatten)]
    pub at: Socket,
}

/// `taciturn ban`
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("who").required(true)),
    after_help = "\
Who is banned allocates nothing, and their allocations end within a second. It is in force on this
machine's daemon alone. Addresses are kept as keyed hashes.

Examples:
  taciturn ban --user alice --ttl 24h
      A user, for a day.
  taciturn ban --network 192.0.2.0/24
      Whoever comes from a network, until it is lifted.
  taciturn ban --pseudonym 0123456789abcdef
      Whoever the log names so, while they have an allocation."
)]
pub struct Ban {
    /// A user, as the platform names them.
    #[arg(long, group = "who")]
    pub user: Option<String>,
    /// A user, as the log and events name them.
    #[arg(long, group = "who")]
    pub subject: Option<String>,
    /// An address or a network.
    #[arg(long, group = "who")]
    pub network: Option<String>,
    /// An address, as the log names it.
    #[arg(long, group = "who")]
    pub pseudonym: Option<String>,
    /// How long; without it, until it is lifted.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
    /// Where the daemon is.
    #[command(flatten)]
    pub at: Socket,
}

/// `taciturn unban`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taciturn unban 0123456789abcdef
      By the id that `taciturn bans` lists.")]
pub struct Unban {
    /// The ban's id.
    #[arg(value_name = "ID")]
    pub id: String,
    /// Where the daemon is.
    #[command(flatten)]
    pub at: Socket,
}

/// `taciturn bans`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taciturn bans
      Those in force on this machine's daemon.")]
pub struct Bans {
    /// As JSON, one ban a line.
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub at: Socket,
}

/// `taciturn openapi`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taciturn openapi > taciturn.json
      For a generator of clients; no daemon is needed.")]
pub struct Openapi {}
