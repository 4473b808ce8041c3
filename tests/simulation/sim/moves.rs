//! Clients that take their allocation to another 5-tuple (RFC 8016): they show their ticket there,
//! perhaps again, perhaps go on or back, and then use the way that they have.

use taciturn::proto::Method;
use taciturn::turn::FiveTuple;

use super::check::must;
use super::run::{Nonce, Outcome, Run};
use super::setting::{EPOCH, SECOND};
use super::speech::{Answer, Say, Signing, request};

impl Run {
    pub fn move_some(&mut self) -> Result<(), String> {
        // A new address has to ask for a nonce first, which may be too much.
        if self.setting.tight {
            return Ok(());
        }
        let (now, unix) = (self.now, self.unix());
        let mobile: Vec<usize> = (0..self.clients.len())
            .filter(|client| {
                let client = &self.clients[*client];
                let expired = unix >= client.identity.expires + 60;
                self.model.live_on(client.tuple, now).is_some_and(|a| {
                    a.ticket.is_some()
                        && a.username == client.identity.username
                        && a.relays.iter().all(|relay| now < relay.until)
                        && !(a.entitled.strict && expired)
                })
            })
            .collect();
        let Some(client) = self.dice.pick_any(&mobile) else {
            return Ok(());
        };
        let old = self.clients[client].tuple;
        for _ in 0..self.dice.within(1..=3) {
            let back = self.clients[client].tuple != old && self.dice.percent(25);
            let tuple = if back { old } else { self.new_datagram_tuple() };
            self.enter(client, tuple);
            let before = self.ticket(old)?;
            self.show(client, old, &before)?;
            if self.dice.percent(40) {
                let after = self.ticket(old)?;
                self.show(client, old, &before)?;
                must(self.ticket(old)? == after, || {
                    "a Refresh that was sent again got another ticket".to_owned()
                })?;
            }
        }
        let new = self.clients[client].tuple;
        if let Some(allocation) = self.model.on_mut(old) {
            allocation.tuple = new;
        }
        self.tally.moved += u64::from(new != old);
        let moved = self.moved;
        self.ask(client, Method::REFRESH, Vec::new())?;
        must(self.moved == moved + u64::from(new != old), || {
            "a move was not told, or one was that is none".to_owned()
        })
    }

    fn ticket(&self, tuple: FiveTuple) -> Result<Vec<u8>, String> {
        let allocation = self.model.on(tuple).ok_or("no allocation")?;
        allocation
            .ticket
            .clone()
            .ok_or_else(|| "no ticket".to_owned())
    }

    /// Shows `ticket`, of the allocation on `old`, where the client is now; it must succeed.
    fn show(&mut self, client: usize, old: FiveTuple, ticket: &[u8]) -> Result<(), String> {
        let tuple = self.clients[client].tuple;
        let id = self.id();
        let lifetime = self.setting.allocation_lifetime.min(600);
        // Once more for a nonce of another address.
        for _ in 0..2 {
            let envelope = self.envelope(client, Method::REFRESH, Signing::Right, id);
            let bytes = request(&envelope, &[Say::Ticket(ticket.to_vec())]);
            let worker = self.clients[client].home;
            self.resuming = self.model.on(old).map(|allocation| allocation.worker);
            let outcome = self.hand_client(worker, tuple, &bytes);
            self.resuming = None;
            let answer = match outcome? {
                Outcome::Answer(bytes) => {
                    self.check_hidden(&bytes, Some(tuple.client.expose()))?;
                    Answer::read(&bytes, &envelope.identity, envelope.dialect)?
                }
                other => return Err(format!("a ticket led to {other:?}")),
            };
            self.note(|_| format!("{:16}ticket: {:?}", "", answer.code));
            self.tally
                .answered("refresh", answer.code.unwrap_or_default());
            match answer.code {
                Some(438) => {
                    self.clients[client].nonce = answer.nonce.map(|text| Nonce {
                        text,
                        made: self.unix(),
                        ip: tuple.client.expose().ip(),
                    });
                }
                None => {
                    let now = self.now;
                    let allocation = self.model.on_mut(old).ok_or("no allocation")?;
                    let mut end = (now + lifetime * SECOND).min(allocation.session_end);
                    if allocation.entitled.strict {
                        let expires = envelope.identity.expires + 60;
                        let left = expires.saturating_sub(EPOCH + now / SECOND);
                        end = end.min(now + left * SECOND);
                    }
                    must(
                        answer.lifetime.map(u64::from) == Some((end - now) / SECOND),
                        || format!("a lifetime of {:?}", answer.lifetime),
                    )?;
                    allocation
                        .relays
                        .iter_mut()
                        .for_each(|relay| relay.until = end);
                    allocation.heard = now;
                    must(answer.ticket.is_some(), || "no other ticket".to_owned())?;
                    allocation.ticket = answer.ticket;
                    return Ok(());
                }
                Some(code) => return Err(format!("a good ticket got {code}")),
            }
        }
        Err("a fresh nonce was not taken".to_owned())
    }
}
