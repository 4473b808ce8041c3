//! Ends that come by themselves, with real clocks.

use taciturn::dataplane::Record;
use taciturn::turn::EndReason;
use taciturn::turn::credential::EXPIRY_LEEWAY;
use taciturn::turn::stats::{Direction, DropReason};

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::eventually;
use crate::loopback::kernel::is_bound;
use crate::loopback::message::Received;
use crate::loopback::plane::{Setup, V4, credential, unix};

#[test]
fn a_strict_allocation_ends_with_its_credential_and_takes_no_more_data() {
    for workers in [1, 4] {
        let mut setup = Setup::any(workers);
        setup.strict = true;
        let mut plane = setup.start();
        let (mut lasting, at_lasting) = plane.party(V4);
        // It is past its expiry, and within the leeway for some seconds more.
        let soon = credential("brief", unix() + 4 - EXPIRY_LEEWAY);
        let mut brief = Client::new(plane.listener(V4), soon);
        let answer = brief.try_allocate(V4);
        assert_eq!(answer.code(), SUCCESS);
        assert!(answer.lifetime().unwrap() <= 4);
        let at_brief = answer.relayed()[0];
        assert_eq!(
            (brief.permit(at_lasting), lasting.permit(at_brief)),
            (SUCCESS, SUCCESS)
        );
        brief.send_to(at_lasting, b"in time");
        assert_eq!(
            lasting.receive(),
            Received::Data(at_brief, b"in time".to_vec())
        );
        // A refresh gives no more than the credential has.
        assert!(brief.refresh(600).lifetime().unwrap() <= 4);

        eventually("the end of the credential", || {
            plane.allocations().iter().sum::<u64>() == 1
        });
        plane.drops_by(DropReason::NoAllocation, 1, || {
            brief.send_to(at_lasting, b"late")
        });
        plane.drops_by(DropReason::NoLanding, 1, || {
            lasting.send_to(at_brief, b"late")
        });
        assert!(!is_bound(at_brief) && is_bound(at_lasting));
        assert_eq!(brief.try_allocate(V4).code(), 401);
        assert_eq!(lasting.refresh(600).code(), SUCCESS);

        let mut closed = Vec::new();
        while closed.is_empty() {
            if let Record::Closed { reason, totals, .. } = plane.record() {
                closed.push((reason, totals.packets(Direction::In)));
            }
        }
        assert_eq!(closed, [(EndReason::Expired, 1)]);
    }
}

/// The default: a call in progress outlives the credential that began it.
#[test]
fn an_allocation_outlives_its_credential_unless_strict() {
    let mut plane = Setup::relay(1).start();
    let soon = credential("brief", unix() + 2 - EXPIRY_LEEWAY);
    let mut client = Client::new(plane.listener(V4), soon);
    client.allocate(V4);
    let mut other = Client::new(plane.listener(V4), client.credential.clone());
    eventually("the end of the credential", || {
        other.try_allocate(V4).code() == 401
    });
    assert_eq!(client.refresh(600).lifetime(), Some(600));
    assert_eq!(plane.party(V4).0.refresh(600).code(), SUCCESS);
}
