//! What the platform takes back: the order, what must come of it at once, and which requests it
//! refuses from then on.

use std::time::Duration;

use taciturn::turn::revocation::{Reach, Revoked, UsernameDigest};

use super::check::must;
use super::judge::Ask;
use super::model::{Allocation, Model};
use super::plant::Plant;
use super::run::Run;
use super::setting::{CALLS, MAX_TTL, call_id, credentials};
use super::speech::user_id;

/// What is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    Credential(String),
    User(usize),
    Call(usize),
}

impl Model {
    /// Whether an allocation's credential is among what was taken back.
    pub fn took(&self, allocation: &Allocation) -> bool {
        self.taken.iter().any(|(taken, _)| match taken {
            Taken::Credential(username) => *username == allocation.username,
            Taken::User(user) => *user == allocation.user,
            Taken::Call(call) => allocation.entitled.call == Some(*call),
        })
    }

    /// design.md section 5: what was issued up to then is refused; a REST name counts as issued as
    /// early as its life allows.
    pub fn refuses_taken(&self, ask: &Ask) -> bool {
        let is_sealed = ask.username.contains(":~");
        let issued = ask.issued.unwrap_or(ask.expires - MAX_TTL);
        self.taken.iter().any(|(taken, at)| match taken {
            Taken::Credential(username) => *username == ask.username,
            Taken::User(user) => *user == ask.user && issued <= *at,
            Taken::Call(call) => is_sealed && ask.entitled.call == Some(*call) && issued <= *at,
        })
    }
}

impl Run {
    pub fn revoke(&mut self) -> Result<(), String> {
        let client = self.holder();
        let identity = &self.clients[client].identity;
        // Users and calls seldom, since they do not come back in one run.
        let taken = match self.dice.below(20) {
            0 => Taken::User(identity.user),
            1 | 2 => Taken::Call(self.dice.below(CALLS)),
            _ => Taken::Credential(identity.username.clone()),
        };
        self.note(|_| format!("{:16}{taken:?}", ""));
        let credentials = credentials();
        let revoked: Vec<Revoked> = match &taken {
            Taken::Credential(name) => vec![Revoked::Credential(UsernameDigest::of(name))],
            Taken::User(user) => vec![Revoked::User(credentials.subject(&user_id(*user)))],
            Taken::Call(call) => {
                let id = call_id(*call);
                credentials.calls(&id).map(Revoked::Call).collect()
            }
        };
        let (unix, tick) = (self.unix(), self.tick());
        self.model.taken.push((taken, unix));
        for revoked in &revoked {
            if self.plant != Plant::RevocationUnknown {
                let reach = Reach::new(unix, Duration::from_secs(MAX_TTL));
                self.revocations.add(*revoked, reach);
            }
        }
        for server in &mut self.servers {
            if self.plant != Plant::RevocationUntold {
                server.revoke(&revoked, tick);
            }
        }
        self.drain_events()?;
        let left = self
            .model
            .allocations
            .iter()
            .find(|allocation| self.model.took(allocation) && allocation.is_live(self.now));
        must(left.is_none(), || {
            "an allocation lives whose credential was taken back".to_owned()
        })
    }
}
