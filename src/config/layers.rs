//! From what the settings mean to what each layer is told: the only place that knows both.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use crate::admin;
use crate::config::{Channels, Error, Limits, Peers, RelayBind, Relaying, Settings};
use crate::dataplane;
use crate::proto::ChannelRange;
use crate::turn::ban::Bans;
use crate::turn::credential::{
    Credentials, SealingKeys, Secret, SecretsRing, StaticUserError, StaticUsers,
};
use crate::turn::policy::{Faces, FleetNode, PeerJudge, PeerPolicy, PeerRules, RelayRange};
use crate::turn::quota::Quotas;
use crate::turn::rates::{Flow, Pace, RateLimits};
use crate::turn::revocation::Revocations;
use crate::turn::unvalidated::Rate;
use crate::turn::{self, Alternate, Bind, NatDiscovery, NonceKey, ServerConfig, TicketKey};

/// What this server keeps apart from its configuration: keys, and whom it refuses.
#[derive(Debug, Clone)]
pub struct Keys {
    /// What nonces are made with.
    pub nonce: NonceKey,
    /// What subjects are made with.
    pub subject: Zeroizing<[u8; 32]>,
    /// What mobility tickets are sealed with.
    pub ticket: TicketKey,
    /// What usernames are sealed with, and call ids hashed. Nodes of one fleet share it.
    pub sealing: SealingKeys,
    /// What the platform has taken back so far.
    pub revocations: Revocations,
    /// Who is banned so far, with the key of that list.
    pub bans: Bans,
}

/// What was found out about this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// The addresses of its interfaces.
    pub addresses: Vec<IpAddr>,
    /// Where this server really listens, once it does; the admin listener included.
    pub listening: Vec<SocketAddr>,
    /// The UDP listeners among these, by their place.
    pub udp: Vec<SocketAddr>,
    /// What the relay ports were before, since it was started: allocations may live there still.
    pub former_ports: Vec<RangeInclusive<u16>>,
}

impl Relaying {
    fn flow(self) -> Flow {
        Flow {
            bits: self.bits.map(Pace::of_bits),
            packets: self.packets.map(|rate| Pace {
                per_second: rate.per_second.into(),
                burst: rate.burst.into(),
            }),
        }
    }
}

impl Limits {
    /// What every turn server is told of them.
    fn of_allocations(&self) -> turn::Limits {
        turn::Limits {
            quotas: Quotas {
                user: self.user_allocations,
                tenant: self.tenant_allocations,
                total: self.total_allocations,
            },
            permissions: self.permissions.into(),
            channels: self.channels.into(),
            rates: RateLimits {
                allocation: self.allocation.flow(),
                user: self.user.flow(),
                tenant: self.tenant.flow(),
            },
            prefix_allocates: self.prefix_allocates.map(told),
            prefix_failures: self.prefix_failures.map(told),
        }
    }
}

impl Settings {
    /// The secrets ring of the configuration.
    #[must_use]
    pub fn secrets(&self) -> SecretsRing {
        self.auth
            .secrets
            .iter()
            .map(|secret| Secret::new(secret.id.clone(), secret.value.expose_secret()))
            .collect()
    }

    /// What every turn server is told.
    ///
    /// # Errors
    /// When a static user is none.
    pub fn server(
        &self,
        keys: &Keys,
        ring: SecretsRing,
        relays: &[dataplane::RelayAddress],
        machine: &Machine,
    ) -> Result<Arc<ServerConfig>, StaticUserError> {
        let mut users = StaticUsers::default();
        for (name, password) in &self.auth.users {
            users.add(name, Zeroizing::new(password.expose_secret().to_owned()))?;
        }
        Ok(Arc::new(ServerConfig {
            realm: self.realm.clone(),
            channels: match self.compat.channels {
                Channels::Rfc8656 => ChannelRange::Rfc8656,
                Channels::Rfc5766 => ChannelRange::Rfc5766,
            },
            credentials: Credentials::new(ring, users, *keys.subject)
                .with_userhashes(&self.realm)
                .with_sealing(keys.sealing.clone(), &self.realm),
            nonce_key: keys.nonce.clone(),
            policy: PeerPolicy::from(&self.policy.peers),
            ceiling: PeerPolicy::from(&self.policy.ceiling),
            node: self.api.node.clone(),
            max_ttl: self.auth.max_ttl,
            judge: PeerJudge::new(self.rules(relays, machine))
                .with_former_ports(&machine.former_ports)
                .behind_nat(relays.iter().map(|relay| Faces {
                    inner: relay.local,
                    outer: relay.advertised,
                })),
            bind: match self.relay.bind {
                RelayBind::Auto => Bind::Auto,
                RelayBind::Always => Bind::Always,
            },
            allocation_lifetime: self.limits.allocation_lifetime,
            session_max: self.auth.session_max,
            strict: self.auth.strict,
            limits: self.limits.of_allocations(),
            binding: self.features.binding.clone(),
            alternate: Alternate {
                servers: self.alternate.servers.clone(),
                redirect: self.alternate.redirect,
            },
            draining: false,
            tickets: self.features.mobility.then(|| keys.ticket.clone()),
            nat_discovery: if self.features.nat_discovery {
                NatDiscovery::new(&self.listen.udp, &machine.udp)
            } else {
                NatDiscovery::default()
            },
            tcp_relay: self.features.tcp_relay,
            media_quality: self.metrics.quality,
            revocations: keys.revocations.clone(),
            bans: keys.bans.clone(),
        }))
    }

    fn rules(&self, relays: &[dataplane::RelayAddress], machine: &Machine) -> PeerRules {
        let fleet = self.policy.fleet.iter().map(|node| FleetNode {
            addr: node.addr,
            seen_as: Some(node.seen_as),
            ports: node.ports.clone(),
        });
        let clients = self.listen.all().map(|(_, address)| address);
        let configured = clients.chain(self.admin.listen).chain(self.api.door());
        PeerRules {
            relay: RelayRange {
                addresses: relays.iter().map(|relay| relay.advertised).collect(),
                ports: self.relay.ports.clone(),
            },
            own_sockets: configured
                .chain(machine.listening.iter().copied())
                .collect(),
            own_senders: [&self.listen.udp, &self.listen.dtls, &machine.udp]
                .into_iter()
                .flatten()
                .copied()
                .collect(),
            own_addresses: machine.addresses.clone(),
            fleet: fleet.collect(),
            allow: self.policy.allow.clone(),
            deny: self.policy.deny.clone(),
        }
    }

    /// The relay addresses; `found` are those of the default route, for when none are configured.
    ///
    /// # Errors
    /// When `external` does not fit them.
    pub fn relays(&self, found: &[IpAddr]) -> Result<Vec<dataplane::RelayAddress>, Error> {
        let relays = self.relay.resolve(found)?.into_iter();
        let face = |relay: super::RelayAddress| dataplane::RelayAddress {
            local: relay.address,
            advertised: relay.external,
        };
        Ok(relays.map(face).collect())
    }

    /// What the data plane is told.
    #[must_use]
    pub fn dataplane(&self, relays: Vec<dataplane::RelayAddress>) -> dataplane::Config {
        dataplane::Config {
            listen: self.listen.udp.clone(),
            listen_tcp: self.listen.tcp.clone(),
            listen_tls: self.listen.tls.clone(),
            listen_dtls: self.listen.dtls.clone(),
            listen_buffer: self.listen.receive_buffer,
            relays,
            ports: self.relay.ports.clone(),
            port_rest: self.relay.port_rest,
            relay_buffer: self.relay.receive_buffer,
            dscp: self.relay.dscp,
            workers: self.workers.count.map_or(0, usize::from),
            stream_workers: self.workers.streams.map_or(0, usize::from),
            proxy_trusted: self.proxy_protocol.trusted.clone(),
            tls: self.tls.keys.clone(),
            unvalidated: told(self.limits.unvalidated),
        }
    }

    /// What the admin listener is told, if there is one.
    #[must_use]
    pub fn admin(&self) -> Option<admin::Config> {
        self.admin.listen.map(|listen| admin::Config {
            listen,
            addresses_shown: self.log.show_addresses,
        })
    }

    /// What metrics tell.
    #[must_use]
    pub fn shown(&self) -> admin::Shown {
        admin::Shown {
            realm: self.realm.clone(),
            allocations: usize::try_from(self.metrics.allocations).unwrap_or(usize::MAX),
            coturn_names: self.metrics.coturn_names,
            certificates: self.certificates(),
        }
    }

    /// The certificates that are served, by kind of listener.
    fn certificates(&self) -> Vec<admin::Served> {
        let clients = |listeners: &[SocketAddr]| {
            let keys = self.tls.keys.as_ref();
            keys.filter(|_| !listeners.is_empty()).map(Arc::clone)
        };
        let api = self.api.tls.as_ref().filter(|_| self.api.door().is_some());
        let all = [
            ("tls", clients(&self.listen.tls)),
            ("dtls", clients(&self.listen.dtls)),
            ("api", api.map(|tls| Arc::clone(&tls.keys))),
        ];
        let all = all.into_iter();
        all.filter_map(|(listener, keys)| {
            Some(admin::Served {
                listener,
                keys: keys?,
            })
        })
        .collect()
    }
}

impl From<&Peers> for PeerPolicy {
    fn from(peers: &Peers) -> Self {
        match peers {
            Peers::Call => Self::Call,
            Peers::Relay => Self::Relay,
            Peers::Any => Self::Any,
            Peers::Networks(networks) => Self::Networks(networks.clone()),
        }
    }
}

const fn told(rate: super::Rate) -> Rate {
    Rate {
        per_second: rate.per_second,
        burst: rate.burst,
    }
}
