//! ChannelBind (RFC 8656 §12.2). A binding names exactly one transport address, so the whole of it
//! is judged; it also installs or refreshes the permission for the peer's IP.

use crate::proto::{AddressFamily, ChannelNumber, ChannelNumberAttribute, XorPeerAddress};
use crate::turn::Server;
use crate::turn::address::PeerAddr;
use crate::turn::allocation::BindRefused;
use crate::turn::create_permission::kind_of;
use crate::turn::environment::Environment;
use crate::turn::request::{Reject, Request};
use crate::turn::server_config::Limits;
use crate::turn::stats::Limit;

impl<E: Environment> Server<E> {
    pub(crate) fn channel_bind(&mut self, request: &Request<'_>) -> Result<(), Reject> {
        let now = request.clock.now;
        let (Some(Ok(ChannelNumberAttribute(number))), Some(Ok(XorPeerAddress(peer)))) = (
            request.message.find::<ChannelNumberAttribute>(),
            request.message.find::<XorPeerAddress>(),
        ) else {
            return Err(Reject::BAD_REQUEST);
        };
        let number = ChannelNumber::new(number, self.config.channels).ok_or(Reject::BAD_REQUEST)?;
        let Some(allocation) = self.table.by_tuple_mut(&request.tuple) else {
            return Err(Reject::ALLOCATION_MISMATCH);
        };
        // RFC 6062 §3: a control connection carries no application data.
        if allocation.is_tcp() {
            return Err(Reject::FORBIDDEN);
        }

        if allocation
            .relay(AddressFamily::of(peer.ip()), now)
            .is_none()
        {
            return Err(Reject::PEER_FAMILY);
        }
        let kind = kind_of(self.config.judge.peer(&allocation.policy, peer))?;
        let bound = PeerAddr::new(peer);
        let Limits {
            permissions,
            channels,
            ..
        } = self.config.limits;
        let has_room = allocation.has_room_for(&[peer.ip()], permissions, now);
        match allocation.check_bind(number, bound, channels, now) {
            Ok(()) if has_room => {}
            Ok(()) => return Err(self.limited(Limit::Permissions)),
            Err(BindRefused::Conflict) => return Err(Reject::BAD_REQUEST),
            Err(BindRefused::Full) => return Err(self.limited(Limit::Channels)),
        }
        self.open_sockets(request, &[(peer, kind)])?;
        self.succeed(request, |_| Ok(()))?;
        let name = self.name(peer, kind, now);
        if let Some(allocation) = self.table.by_tuple_mut(&request.tuple) {
            allocation.permit(peer.ip(), kind, name, now);
            // It was checked above, and nothing came between.
            let bound = allocation.bind(number, bound, kind, channels, now);
            debug_assert!(bound.is_ok(), "a checked binding was refused");
        }
        self.publish(&request.tuple, now);
        Ok(())
    }
}
