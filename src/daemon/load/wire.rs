//! The two ends of every path to the server, and the requests that make allocations on it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};

use super::crowd::{Crowd, Side};
use super::desk::{Answer, Client, Desk, Failure, Request, Way};
use super::progress::Progress;
use super::streams::Streams;
use crate::dataplane::sys;

/// How long the server may take to answer at all, and to forget us at the end.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Clients and peers.
pub(super) struct Wire {
    pub(super) clients: Crowd,
    /// Clients that are called, where they have a transport or a server address of their own.
    pub(super) callees: Option<Crowd>,
    pub(super) peers: Option<Crowd>,
    pub(super) desk: Desk,
    pub(super) server: SocketAddr,
    /// Where callees reach it.
    pub(super) callee_server: SocketAddr,
    /// Requests outstanding at a time.
    pub(super) window: usize,
}

impl Wire {
    /// One more client.
    pub(super) fn client(&mut self) -> anyhow::Result<usize> {
        self.client_of(Side::Client)
    }

    /// One more client of one side.
    pub(super) fn client_of(&mut self, side: Side) -> anyhow::Result<usize> {
        let (crowd, server) = match (side, &mut self.callees) {
            (Side::Callee, Some(callees)) => (callees, self.callee_server),
            _ => (&mut self.clients, self.server),
        };
        let seated = crowd.seat(server);
        let way = match crowd.connections() {
            Some(_) => Way::Stream,
            None => Way::Datagrams,
        };
        let (seat, to) = seated.with_context(|| match way {
            Way::Datagrams => {
                "cannot open a socket for one more client: raise the limit of open files, or give \
                 --sources, which needs one socket for all"
                    .to_owned()
            }
            Way::Stream => format!(
                "{server} did not take one more connection. Does the server speak this transport \
                 on this port, and may it and this process have so many files open?"
            ),
        })?;
        Ok(self.desk.add(side, seat, to, way))
    }

    /// Forgets a client.
    pub(super) fn leave(&mut self, client: usize) {
        if let Some(Client { side, seat, .. }) = self.desk.remove(client) {
            match (side, &mut self.callees) {
                (Side::Callee, Some(callees)) => callees.leave(seat),
                _ => self.clients.leave(seat),
            }
        }
    }

    /// Sends requests, `window` at a time, until all have an answer. What `done` returns is asked
    /// next for the same client.
    pub(super) fn drive(
        &mut self,
        work: impl IntoIterator<Item = (usize, Request)>,
        patience: Option<Duration>,
        progress: &Progress,
        mut done: impl FnMut(&Desk, &Answer) -> anyhow::Result<Option<Request>>,
    ) -> anyhow::Result<()> {
        let began = sys::monotonic_nanos();
        let mut work = work.into_iter().fuse();
        let mut answers = Vec::new();
        let mut finished = 0;
        loop {
            let now = sys::monotonic_nanos();
            while self.desk.outstanding() < self.window
                && let Some((client, request)) = work.next()
            {
                self.desk.ask(client, request, now);
            }
            self.transmit();
            if self.desk.outstanding() == 0 {
                return Ok(());
            }
            let heard = self.hear(now, &mut answers)?;
            for answer in answers.drain(..) {
                if let Some(request) = done(&self.desk, &answer)? {
                    self.desk.ask(answer.client, request, now);
                } else {
                    finished += 1;
                    progress.at(finished);
                }
            }
            let waited = Duration::from_nanos(now - began);
            if patience.is_some_and(|patience| waited > patience) {
                self.desk.give_up();
                let port = match self.clients.connections() {
                    None => "UDP port",
                    Some(_) => "port",
                };
                bail!(
                    "{} did not answer within {PATIENCE:?}. Is the server running, is this its \
                     {port}, and does every firewall between let it through?",
                    self.server
                );
            }
            if progress.stopped() && patience.is_none() {
                self.desk.give_up();
                bail!("interrupted");
            }
            if heard == 0 {
                if let Some((ended, reason)) = self.ended() {
                    let text = format!("the server ended {ended} connections: {reason}");
                    self.desk.give_up();
                    bail!(text);
                }
                std::thread::yield_now();
            }
        }
    }

    /// Sends the requests that wait.
    pub(super) fn transmit(&mut self) {
        let (clients, callees) = (&mut self.clients, &mut self.callees);
        self.desk.transmit(|client, bytes| {
            let crowd = match (client.side, &mut *callees) {
                (Side::Callee, Some(callees)) => callees,
                _ => &mut *clients,
            };
            crowd.post(client.seat, client.to, None, |room| {
                let length = bytes.len().min(room.len());
                room[..length].copy_from_slice(&bytes[..length]);
                length
            });
        });
        clients.flush();
        if let Some(callees) = callees {
            callees.flush();
        }
    }

    /// How many connections ended by themselves, and why the first did.
    pub(super) fn ended(&self) -> Option<(u64, &str)> {
        let clients = self.clients.connections().and_then(Streams::ended);
        let callees = self.callees.as_ref().and_then(Crowd::connections);
        match (clients, callees.and_then(Streams::ended)) {
            (Some((some, reason)), Some((more, _))) => Some((some + more, reason)),
            (some, more) => some.or(more),
        }
    }

    fn hear(&mut self, now: u64, answers: &mut Vec<Answer>) -> anyhow::Result<usize> {
        let desk = &mut self.desk;
        let mut heard = self
            .clients
            .receive(|datagram| answers.extend(desk.handle(datagram, now)))?;
        if let Some(callees) = &mut self.callees {
            heard += callees.receive(|datagram| answers.extend(desk.handle(datagram, now)))?;
        }
        answers.extend(desk.sweep(now));
        Ok(heard)
    }

    /// Makes sure that there is a TURN server that wants credentials, and learns its realm.
    pub(super) fn greet(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let client = self.client()?;
        self.drive(
            [(client, Request::Allocate)],
            Some(PATIENCE),
            progress,
            |_, answer| settled(answer).map(|()| None),
        )?;
        self.release(&[client], progress);
        Ok(())
    }

    /// Allocates for each of these clients.
    pub(super) fn allocate(
        &mut self,
        clients: &[usize],
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let work = clients.iter().map(|&client| (client, Request::Allocate));
        let (mut granted, mut refused) = (0, None);
        // All are waited for, so that the count is true in whichever order they are answered.
        self.drive(work, None, progress, |_, answer| {
            match settled(answer) {
                Ok(_) => granted += 1,
                Err(error) => refused = refused.take().or(Some(error)),
            }
            Ok(None)
        })?;
        refused.map_or(Ok(()), |error| {
            Err(error.context(format!(
                "the server granted {granted} of {} allocations",
                clients.len()
            )))
        })
    }

    /// Deletes the allocations of these clients and forgets them; what the server says to it
    /// changes nothing.
    pub(super) fn release(&mut self, clients: &[usize], progress: &Progress) {
        let held: Vec<(usize, Request)> = clients
            .iter()
            .filter(|&&client| {
                let client = self.desk.client(client);
                client.is_some_and(|client| client.relayed.is_some())
            })
            .map(|&client| (client, Request::Release))
            .collect();
        // It lives no longer than its lifetime if the server is gone.
        self.drive(held, Some(PATIENCE), progress, |_, _| Ok(None))
            .ok();
        for &client in clients {
            self.leave(client);
        }
    }
}

/// An error unless the server granted it, with what to do about it.
pub(super) fn settled(answer: &Answer) -> anyhow::Result<()> {
    let request = answer.request;
    let (code, reason) = match &answer.outcome {
        Ok(()) => return Ok(()),
        Err(Failure::Silence) => {
            bail!(
                "the server did not answer {request} however often it was sent. It may limit \
                 what it answers to one address: see --sources, or limits.unvalidated of taciturn"
            )
        }
        Err(Failure::Nonsense(what)) => bail!("the server answered {request} with {what}"),
        Err(Failure::Refused { code, reason }) => (*code, reason),
    };
    let hint = match code {
        401 => "; is the credential the server's, and is its clock right?",
        403 => "; does its policy allow these peers? For mode peer, see policy.peers of taciturn",
        437 => "; an earlier run may have left allocations on these addresses",
        486 => "; its quota for one user or for all is too small: raise it, or give fewer pairs",
        508 => "; it has too few relay ports, or they rest: widen its range, or give fewer pairs",
        _ => "",
    };
    bail!("the server refused {request} with {code} {reason:?}{hint}")
}
