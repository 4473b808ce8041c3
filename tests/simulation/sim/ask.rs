//! Requests: said by a client, judged by the model, and what success changes in it.

use taciturn::proto::{Class, Integrity, Method, TransactionId};

use super::check::must;
use super::judge::{Ask, Kernel, Verdict};
use super::run::{Nonce, Outcome, Run};
use super::speech::{Answer, Envelope, Say, Signing, request};

impl Run {
    /// A client's request, rightly signed.
    pub fn ask(&mut self, client: usize, method: Method, says: Vec<Say>) -> Result<(), String> {
        let id = self.id();
        self.ask_as(client, method, says, Signing::Right, id)
    }

    pub fn ask_as(
        &mut self,
        client: usize,
        method: Method,
        says: Vec<Say>,
        signing: Signing,
        id: TransactionId,
    ) -> Result<(), String> {
        self.catch_up(self.clients[client].tuple)?;
        let envelope = self.envelope(client, method, signing, id);
        let tuple = self.clients[client].tuple;
        let ask = Ask {
            tuple,
            method,
            says,
            id,
            user: envelope.identity.user,
            username: envelope.identity.username.clone(),
            expires: envelope.identity.expires,
            issued: envelope.identity.issued,
            entitled: self.setting.entitled(envelope.identity.claimed),
            signing,
            nonce_is_fresh: self.nonce_is_fresh(client),
            now: self.now,
            unix: self.unix(),
        };
        let kernel = self.kernel();
        let verdict = self.model.judge(&ask, &kernel);
        let victims: Vec<_> = self.model.victims(&ask).iter().map(|a| a.id).collect();
        let is_full = self.model.is_full(&ask);
        self.note(|_| {
            format!(
                "{:16}client {client} {method:?} {:?} {signing:?}",
                "", ask.says
            )
        });
        self.note(|_| format!("{:16}expected: {verdict:?}", ""));

        let worker = self.worker_for(client);
        let condemned = self.house.borrow().condemned.len();
        let bytes = request(&envelope, &ask.says);
        let outcome = self.hand_client(worker, tuple, &bytes)?;
        let answer = match outcome {
            Outcome::Answer(bytes) => {
                self.check_hidden(&bytes, Some(tuple.client.expose()))?;
                Answer::read(&bytes, &envelope.identity, envelope.dialect)?
            }
            Outcome::Dropped if verdict.may_drop => return Ok(()),
            other => return Err(format!("a request led to {other:?}")),
        };
        self.note(|_| format!("{:16}{:?} {:?}", "", answer.class, answer.code));
        self.condemn(condemned, is_full, &victims)?;
        self.heard(&ask);
        self.judge_answer(client, &ask, &verdict, &answer)?;
        match answer.code {
            // As clients do: once more, with the nonce that came.
            Some(438) if self.dice.percent(75) => {
                self.ask_as(client, method, ask.says, Signing::Right, id)
            }
            Some(code) => {
                self.refused(&ask, code);
                Ok(())
            }
            None => self.granted(&ask, &answer, &kernel),
        }
    }

    pub fn envelope(
        &self,
        client: usize,
        method: Method,
        signing: Signing,
        id: TransactionId,
    ) -> Envelope {
        let client = &self.clients[client];
        Envelope {
            method,
            id,
            identity: std::rc::Rc::clone(&client.identity),
            dialect: client.dialect,
            nonce: client
                .nonce
                .as_ref()
                .map_or_else(|| "none yet".to_owned(), |nonce| nonce.text.clone()),
            signing,
            fingerprint: id.as_bytes()[0].is_multiple_of(2),
        }
    }

    /// design.md section 5: bound to the IP, or its /64, and good for an hour.
    fn nonce_is_fresh(&self, client: usize) -> bool {
        let client = &self.clients[client];
        let ip = client.tuple.client.expose().ip();
        client.nonce.as_ref().is_some_and(|nonce| {
            let same = match (nonce.ip, ip) {
                (std::net::IpAddr::V6(one), std::net::IpAddr::V6(other)) => {
                    one.octets()[..8] == other.octets()[..8]
                }
                (one, other) => one == other,
            };
            same && self.unix() - nonce.made < 3_600
        })
    }

    pub fn kernel(&self) -> Kernel {
        let house = self.house.borrow();
        Kernel {
            exhausted: house.exhausted,
            taken: house.taken.clone(),
        }
    }

    /// RFC 8656 §5: what a response must be, before what it says.
    fn judge_answer(
        &mut self,
        client: usize,
        ask: &Ask,
        verdict: &Verdict,
        answer: &Answer,
    ) -> Result<(), String> {
        self.tally
            .answered(ask.method.name(), answer.code.unwrap_or_default());
        must((answer.id, answer.method) == (ask.id, ask.method), || {
            "a response to another request".to_owned()
        })?;
        let is_success = answer.class == Class::Success;
        must(is_success == answer.code.is_none(), || {
            format!(
                "a response of class {:?} with code {:?}",
                answer.class, answer.code
            )
        })?;
        let fits = match answer.code {
            None => verdict.must.is_empty(),
            Some(code) => verdict.must.contains(&code) || verdict.may.contains(&code),
        };
        must(fits, || format!("{:?} instead of {verdict:?}", answer.code))?;
        if let Some(text) = answer.nonce.clone() {
            self.clients[client].nonce = Some(Nonce {
                text,
                made: ask.unix,
                ip: ask.tuple.client.expose().ip(),
            });
        }
        // RFC 8489 §9.2.4: whoever authenticated gets a response that proves who it is from.
        let is_signed = !matches!(answer.code, Some(401 | 438))
            && ask.signing == Signing::Right
            && ask.nonce_is_fresh;
        let integrity = if is_signed {
            Integrity::Valid
        } else {
            Integrity::Absent
        };
        must(answer.integrity == integrity, || {
            format!("integrity is {:?}", answer.integrity)
        })
    }

    /// A rightly signed request of its owner is a sign of life.
    fn heard(&mut self, ask: &Ask) {
        let is_signed = ask.signing == Signing::Right && ask.nonce_is_fresh;
        if let Some(allocation) = self.model.on_mut(ask.tuple)
            && is_signed
            && allocation.username == ask.username
        {
            allocation.heard = ask.now;
        }
    }

    /// A user's silent allocation made way: the right one, and only when there was need.
    fn condemn(
        &mut self,
        before: usize,
        is_full: bool,
        victims: &[taciturn::turn::AllocationId],
    ) -> Result<(), String> {
        let condemned = self.house.borrow().condemned[before..].to_vec();
        for (worker, id) in condemned {
            must(is_full && victims.contains(&id), || {
                "an allocation made way that need not".to_owned()
            })?;
            self.tally.replaced += 1;
            let victim = self.model.allocations.iter_mut().find(|a| a.id == id);
            let victim = victim.ok_or("an unknown allocation made way")?;
            must(victim.worker == usize::from(worker.0), || {
                "the wrong worker was told".to_owned()
            })?;
            victim.replaced = true;
            victim.relays.iter_mut().for_each(|relay| relay.until = 0);
        }
        Ok(())
    }
}
