//! The command line. No flag takes a secret: arguments are seen by every user of the machine.
//!
//! What a flag sets in the configuration is checked there, so that an error names the flag and
//! reads the same as for a file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{Flags, Sources};
pub use crate::daemon::control::options::{
    Allocations, Ban, Bans, ClientTransport, Openapi, Revoke, Socket, Status, Top, Unban,
};
pub use crate::daemon::demo::options::Demo;
pub use crate::daemon::load::options::{
    ClientNetwork, Load, Measure, Mode, Payload, Switch, Transport,
};
use crate::turn::Pseudonym;

/// A TURN/STUN relay that shows neither party of a call, nor any log or metric, an endpoint's
/// address.
#[derive(Debug, Parser)]
#[command(
    name = "taciturn",
    version,
    arg_required_else_help = true,
    after_help = "\
Every setting comes from the configuration file, the environment (TACITURN_SECTION__KEY) or a
flag; a later one of these wins. Secrets never come by a flag.

Exit code: 0 done, 1 failed, 64 the command line or the configuration is bad."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a call between two browser windows through a relay on this machine.
    Demo(Demo),
    /// Relay until SIGTERM.
    Serve(Serve),
    /// Tell what `serve` would do with a configuration, and what to mind.
    Check(Check),
    /// Print a credential for one user as JSON, with the URLs to use it with.
    Mint(Mint),
    /// Tell whether a pseudonym of the log stands for an address.
    Whois(Whois),
    #[cfg_attr(
        feature = "probe",
        doc = "Allocate twice on a server and send packets between: does it relay?"
    )]
    #[cfg_attr(
        not(feature = "probe"),
        doc = "Not in this build: it was made without the cargo feature `probe`."
    )]
    Probe(Probe),
    /// Load a TURN server with calls, and measure what it carries and what that costs.
    Load(Box<Load>),
    /// Write another server's configuration anew as ours.
    Import(Import),
    /// Tell how the daemon of this machine fares, for scripts.
    Status(Status),
    #[cfg_attr(
        feature = "top",
        doc = "Watch in a terminal what goes on, and end what should not."
    )]
    #[cfg_attr(
        not(feature = "top"),
        doc = "Not in this build: it was made without the cargo feature `top`."
    )]
    Top(Top),
    /// Make a bundle for a bug report, without secrets and addresses.
    Diagnose(Diagnose),
    /// List what is live on the daemon of this machine.
    Allocations(Allocations),
    /// Take back what was issued to a user, for a call, or one credential; or end an allocation.
    Revoke(Revoke),
    /// Let somebody allocate nothing.
    Ban(Ban),
    /// Lift a ban.
    Unban(Unban),
    /// List the bans in force.
    Bans(Bans),
    /// Print the description of the HTTP API, an OpenAPI document.
    Openapi(Openapi),
    /// Print a script that completes commands and flags in a shell.
    Completions(Completions),
    /// Print the manual page, in roff.
    Man(Man),
}

/// `taciturn serve`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taciturn serve
      Without a configuration: port 3478 of every local address, a secret for this run, and a
      ready RTCConfiguration on standard output.
  taciturn serve --config /etc/taciturn/taciturn.toml
      As a service; SIGTERM ends it.
  TACITURN_AUTH__SECRETS__FILE=/run/secrets/turn taciturn serve --listen-udp 203.0.113.7:3478
      Without a file, from the environment and flags.
  taciturn serve --listen-tls 0.0.0.0:443 --tls-cert fullchain.pem --tls-key privkey.pem
      Clients behind a strict firewall reach it too; SIGHUP reads a renewed certificate at once.")]
pub struct Serve {
    /// Configuration file; without one, defaults and the environment apply.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Least level of the log: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Address to listen on; may be given several times.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_udp: Vec<String>,
    /// The same for TCP; without it, TCP is where UDP is.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_tcp: Vec<String>,
    /// The same for TLS, which takes a certificate.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_tls: Vec<String>,
    /// The same for DTLS, which takes a certificate too.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_dtls: Vec<String>,
    /// PEM file with the certificate of TLS and DTLS and those above it; may be given several
    /// times.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Vec<String>,
    /// PEM file with the certificate's key; once for each --tls-cert.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Vec<String>,
}

impl Serve {
    /// The sources of this run's settings.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let flags = Flags {
            log_level: self.log_level.clone(),
            listen_udp: self.listen_udp.clone(),
            listen_tcp: self.listen_tcp.clone(),
            listen_tls: self.listen_tls.clone(),
            listen_dtls: self.listen_dtls.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
        };
        Sources::of_process(self.config.clone(), flags)
    }
}

/// `taciturn check`
#[derive(Debug, Args)]
#[command(after_help = "\
It takes what `serve` takes, binds no port and changes nothing. 
Exit code: 0 when `serve` would start, with or without warnings; 1 when it could not start on this
machine; 64 when the configuration is refused.

Examples:
  taciturn check --config /etc/taciturn/taciturn.toml
      Before a restart, or as ExecStartPre= of a systemd unit.
  TACITURN_RELAY__PORTS=50000-59999 taciturn check
      What the environment alone would do.")]
pub struct Check {
    /// What `serve` would be given.
    #[command(flatten)]
    pub serve: Serve,
}

/// `taciturn import`
#[derive(Debug, Args)]
#[command(after_help = "\
Our configuration goes to standard output, and to standard error what has no counterpart, each
option by its name with the reason.

Examples:
  taciturn import coturn /etc/turnserver.conf --output taciturn.toml
      The new file is its owner's alone, since secrets are in it.
  taciturn check --config taciturn.toml
      What it would do, before it replaces coturn.")]
pub struct Import {
    /// Whose configuration it is.
    #[command(subcommand)]
    pub from: ImportFrom,
}

/// The servers whose configuration can be read.
#[derive(Debug, Subcommand)]
pub enum ImportFrom {
    /// coturn's turnserver.conf.
    Coturn {
        /// Its file, /etc/turnserver.conf in Debian.
        file: PathBuf,
        /// Write to this file, which must not be there yet, and not to standard output.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// `taciturn mint`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taciturn mint --user alice --ttl 12h --config /etc/taciturn/taciturn.toml
      An RTCConfiguration for alice, good for twelve hours.
  taciturn mint --user probe --config taciturn.toml | taciturn probe --ice -
      Does the server relay for such a credential?")]
pub struct Mint {
    /// Whom the credential is for, as the platform calls them.
    #[arg(long)]
    pub user: String,
    /// How long it lets its holder allocate.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = ttl)]
    pub ttl: Duration,
    /// Configuration file; without one, defaults and the environment apply.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Mint {
    /// The sources of this run's settings.
    #[must_use]
    pub fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), Flags::default())
    }
}

/// `taciturn whois`
#[derive(Debug, Args)]
#[command(after_help = "\
The log names clients by pseudonyms of their addresses, made with a key of the day, and no address
is stored. This confirms or refutes a suspicion as long as the key of that day is kept: it reads
those in state.dir, or without one asks the running daemon by its control.socket for the key of
today, and so takes the user that the server runs as, or root.
Exit code: 0 yes, 1 no, 2 it cannot be told, since no key is left or readable, 64 the command line
or the configuration is bad.

Examples:
  taciturn whois 5f0c2a9be1d34477 198.51.100.20 --config /etc/taciturn/taciturn.toml
      Was it that address, and on which day?
  taciturn whois 5f0c2a9be1d34477 - --config /etc/taciturn/taciturn.toml < suspect
      The same, without the address in the list of processes.")]
pub struct Whois {
    /// The pseudonym, 16 hexadecimal digits as in the log.
    #[arg(value_name = "PSEUDONYM")]
    pub pseudonym: Pseudonym,
    /// The IP address that it may stand for; "-" reads it from standard input.
    #[arg(value_name = "ADDRESS")]
    pub address: String,
    /// Configuration file, which names the state directory or the control socket.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Whois {
    /// The sources of this run's settings.
    #[must_use]
    pub fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), Flags::default())
    }
}

/// `taciturn probe`
#[derive(Debug, Args)]
#[command(after_help = "\
It allocates twice on each server, permits each relayed address to the other, and sends packets
from one that the other returns, so each round trip passes the relay twice. The client is not
taciturn's own code. What is behind a name is probed over IPv4 and IPv6 if it has both addresses.

  turn:HOST[:PORT]?transport=udp     UDP; port 3478 unless one is given
  turn:HOST[:PORT]?transport=tcp     TCP
  turns:HOST[:PORT]?transport=tcp    TLS; port 5349 unless one is given
  turns:HOST[:PORT]?transport=udp    DTLS, in a build with the cargo feature `dtls`

Certificates are held against the authorities that this system trusts, and must name the host. The
days that one is good for are told; fewer than 14 are marked (!).

Credentials never come by a flag. They are minted from the secret of --config or of the
environment, or read from --ice; without either, those of a `serve` without configuration on this
machine are used. Without URLs, those that come with the credentials are probed.

Exit code: 0 when every packet arrived on every URL over every address family, 1 when not, 64 when
the command line or the configuration is bad.

Examples:
  taciturn probe
      The server on this machine.
  taciturn probe --config /etc/taciturn/taciturn.toml
      The server of this configuration, as its clients reach it.
  taciturn probe --ice ice.json turn:a.example.org:3478 turns:a.example.org:443?transport=tcp
      One server over UDP and TLS, with a credential from elsewhere.
  taciturn probe --ca ca.pem turns:localhost:5349
      A server whose certificate an authority of one's own issued.")]
pub struct Probe {
    /// Servers, such as turn:turn.example.org:3478?transport=udp.
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
    /// Configuration file that has the secret to mint from.
    #[arg(long, value_name = "FILE", conflicts_with = "ice")]
    pub config: Option<PathBuf>,
    /// File with an RTCConfiguration, as `mint` prints; "-" is standard input.
    #[arg(long, value_name = "FILE")]
    pub ice: Option<PathBuf>,
    /// File of certificates (PEM) of authorities to trust besides the system's.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Go on with a certificate that does not hold; it is told as not verified.
    #[arg(long)]
    pub insecure: bool,
    /// Over IPv4 only.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Over IPv6 only.
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// Packets to send each way.
    #[arg(long, value_name = "NUMBER", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub packets: u32,
    /// Time from one packet to the next.
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = interval)]
    pub interval: Duration,
}

/// `taciturn diagnose`
#[derive(Debug, Args)]
#[command(after_help = "\
The bundle is JSON: this build, this machine's kernel, limits and buffers, the configuration, and
how the running daemon fares. Secrets, names, addresses, paths and URLs are taken out of it, and it
is told what could not be found out. Read it before you send it all the same.

Examples:
  taciturn diagnose --config /etc/taciturn/taciturn.toml --output bundle.json
      For a bug report; the file is new, and its owner's alone.
  taciturn diagnose | jq .machine
      What this machine is, without a configuration.")]
pub struct Diagnose {
    /// Configuration file; without one, defaults and the environment apply.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write to this file, which must not be there yet, and not to standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The control socket of the daemon; without it, what the configuration says.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

impl Diagnose {
    /// The sources of the configuration that is told.
    #[must_use]
    pub fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), Flags::default())
    }
}

/// `taciturn completions`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taciturn completions bash > /etc/bash_completion.d/taciturn
  taciturn completions zsh > /usr/local/share/zsh/site-functions/_taciturn
  taciturn completions fish > ~/.config/fish/completions/taciturn.fish")]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `taciturn man`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taciturn man > /usr/local/share/man/man1/taciturn.1
  taciturn man serve > /usr/local/share/man/man1/taciturn-serve.1
  taciturn man probe | man -l -")]
pub struct Man {
    /// The command that the page is about; without one, all of them in short.
    #[arg(value_name = "COMMAND")]
    pub about: Option<String>,
}

/// Whole seconds, since a credential's expiry has no finer grain.
fn ttl(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(31_557_600);
    match humantime::parse_duration(text) {
        Ok(ttl) if (Duration::from_secs(1)..=LONGEST).contains(&ttl) => {
            Ok(Duration::from_secs(ttl.as_secs()))
        }
        Ok(_) => Err("from 1s to 1year".to_owned()),
        Err(_) => Err("write a duration such as 90s, 30m or 12h".to_owned()),
    }
}

/// A pace that floods nobody and takes no day.
fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(pace) if (Duration::from_millis(1)..=Duration::from_secs(1)).contains(&pace) => Ok(pace),
        Ok(_) => Err("from 1ms to 1s".to_owned()),
        Err(_) => Err("write a duration such as 10ms".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_needs_no_flag() {
        let cli = Cli::try_parse_from(["taciturn", "serve"]).unwrap();
        let Command::Serve(serve) = cli.command else {
            panic!("not serve")
        };
        assert!(serve.config.is_none() && serve.log_level.is_none() && serve.listen_udp.is_empty());
    }

    #[test]
    fn flags_of_serve_reach_the_sources() {
        let arguments = "taciturn serve --config a.toml --log-level debug \
                         --listen-udp 127.0.0.1:1 --listen-udp 127.0.0.1:2";
        let cli = Cli::try_parse_from(arguments.split_whitespace()).unwrap();
        let Command::Serve(serve) = cli.command else {
            panic!("not serve")
        };
        let sources = serve.sources();
        assert_eq!(sources.file, Some(PathBuf::from("a.toml")));
        assert_eq!(sources.flags.log_level.as_deref(), Some("debug"));
        assert_eq!(sources.flags.listen_udp, ["127.0.0.1:1", "127.0.0.1:2"]);
    }

    #[test]
    fn mint_lives_an_hour_unless_told() {
        let ttl = |arguments: &str| {
            let cli = Cli::try_parse_from(arguments.split_whitespace())?;
            let Command::Mint(mint) = cli.command else {
                panic!("not mint")
            };
            Ok::<_, clap::Error>(mint.ttl.as_secs())
        };
        assert_eq!(ttl("taciturn mint --user alice").unwrap(), 3600);
        assert_eq!(ttl("taciturn mint --user alice --ttl 1500ms").unwrap(), 1);
        for bad in ["0s", "soon", "-1h", "99999999999y", "2years"] {
            assert!(
                ttl(&format!("taciturn mint --user alice --ttl={bad}")).is_err(),
                "{bad}"
            );
        }
        assert!(ttl("taciturn mint").is_err(), "mint needs a user");
    }

    #[test]
    fn every_command_has_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.clone().render_help().to_string();
            assert!(help.contains("Examples:\n  "), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{}", argument.get_id());
            }
        }
    }

    #[test]
    fn a_probe_keeps_a_sane_pace() {
        let probe = |arguments: &str| {
            Cli::try_parse_from(format!("taciturn probe {arguments}").split_whitespace())
        };
        for fine in [
            "",
            "turn:a",
            "--packets 1 --interval 1ms",
            "--ice - turn:a turn:b",
        ] {
            assert!(probe(fine).is_ok(), "{fine}");
        }
        for bad in [
            "--packets 0",
            "--interval 0s",
            "--interval 2s",
            "--ice a --config b",
        ] {
            assert!(probe(bad).is_err(), "{bad}");
        }
    }

    /// T26
    #[test]
    fn no_flag_takes_a_secret() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                for word in ["secret", "password", "key", "token"] {
                    // Names of files, not what they hold.
                    if name.ends_with("_file") || name == "tls_key" {
                        continue;
                    }
                    assert!(!name.contains(word), "{} --{name}", command.get_name());
                }
            }
        }
    }
}
