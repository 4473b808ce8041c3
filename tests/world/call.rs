//! Two parties of a call, each with an allocation.

use std::net::SocketAddr;

use taciturn::proto::{AddressFamily, MobilityTicket, RequestedAddressFamily};
use taciturn::turn::{ListenerId, Transport};

use super::client::{Client, SUCCESS};
use super::message::Received;
use super::servers::{Outcome, Setup, World};

pub const ALICE: &str = "198.51.100.1:1000";
pub const BOB: &str = "198.51.100.2:2000";
pub const CAROL: &str = "198.51.100.3:3000";
/// Where Alice goes when she moves, and where from there.
pub const ELSEWHERE: &str = "192.0.2.77:7000";
pub const FURTHER: &str = "192.0.2.88:8000";

/// Asks for a ticket.
pub const ASK: MobilityTicket<'static> = MobilityTicket(b"");

/// What reaches Alice of [`Call::bob_talks`].
pub fn to_alice() -> Received {
    Received::Channel(0x4000, b"to alice".to_vec())
}

/// How a client sends and wants to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Channel(u16),
    Indication,
}

impl Framing {
    /// Admits `peer` in this framing.
    #[track_caller]
    pub fn admit(self, client: &mut Client, world: &mut World, peer: SocketAddr) {
        let code = match self {
            Self::Channel(number) => client.bind(world, number, peer),
            Self::Indication => client.permit(world, &[peer]),
        };
        assert_eq!(code, SUCCESS);
    }

    pub fn send(
        self,
        client: &mut Client,
        world: &mut World,
        peer: SocketAddr,
        data: &[u8],
    ) -> Outcome {
        match self {
            Self::Channel(number) => client.channel_data(world, number, data),
            Self::Indication => client.send_to(world, peer, data),
        }
    }
}

/// Alice and Bob with their relayed addresses `a` and `b`.
#[derive(Debug)]
pub struct Call {
    pub world: World,
    pub alice: Client,
    pub bob: Client,
    pub a: SocketAddr,
    pub b: SocketAddr,
}

impl Call {
    /// Allocated, nothing permitted.
    pub fn new(setup: Setup) -> Self {
        Self::of_family(setup, AddressFamily::V4)
    }

    pub fn of_family(setup: Setup, family: AddressFamily) -> Self {
        let mut world = setup.world();
        let mut alice = world.client("alice", ALICE);
        let mut bob = world.client("bob", BOB);
        let [a, b] = [&mut alice, &mut bob].map(|client| {
            let answer = client.allocate_with(&mut world, |request| {
                request.with(&RequestedAddressFamily(family))
            });
            assert_eq!(answer.code(), SUCCESS);
            answer.relayed()[0]
        });
        Self {
            world,
            alice,
            bob,
            a,
            b,
        }
    }

    /// Alice is on this transport and has a ticket; both have a channel to the other.
    #[track_caller]
    pub fn mobile(setup: Setup, transport: Transport) -> (Self, Vec<u8>) {
        let mut world = setup.world();
        let mut alice = world.client("alice", ALICE);
        alice.tuple.listener = ListenerId::new(transport, 0);
        let mut bob = world.client("bob", BOB);
        let (a, ticket) = alice.allocate_mobile(&mut world);
        let b = bob.allocate(&mut world);
        let mut call = Self {
            world,
            alice,
            bob,
            a,
            b,
        };
        call.admit(Framing::Channel(0x4000), Framing::Channel(0x4001));
        (call, ticket)
    }

    /// Alice sends on her channel from where this client is.
    pub fn alice_at(&mut self, alice: &Client) -> Outcome {
        alice.channel_data(&mut self.world, 0x4000, b"to bob")
    }

    /// Bob sends on his channel, which reaches Alice as [`to_alice`].
    pub fn bob_talks(&mut self) -> Outcome {
        self.bob.channel_data(&mut self.world, 0x4001, b"to alice")
    }

    /// Each permits the other.
    pub fn permitted(setup: Setup) -> Self {
        let mut call = Self::new(setup);
        call.admit(Framing::Indication, Framing::Indication);
        call
    }

    #[track_caller]
    pub fn admit(&mut self, of_alice: Framing, of_bob: Framing) {
        of_alice.admit(&mut self.alice, &mut self.world, self.b);
        of_bob.admit(&mut self.bob, &mut self.world, self.a);
    }

    pub fn alice_says(&mut self, data: &[u8]) -> Outcome {
        self.alice.send_to(&mut self.world, self.b, data)
    }

    pub fn bob_says(&mut self, data: &[u8]) -> Outcome {
        self.bob.send_to(&mut self.world, self.a, data)
    }
}
