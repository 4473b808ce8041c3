//! Which listeners answer Binding requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use taciturn::proto::Method;
use taciturn::turn::stats::DropReason;
use taciturn::turn::{BindingRequests, BindingRules};

use crate::loopback::client::{Client, SUCCESS};
use crate::loopback::plane::{Setup, V4, V6, credential, unix};

/// The code of the answer to a bare Binding request, if one comes.
fn ask(server: SocketAddr) -> Option<u16> {
    let mut client = Client::new(server, credential("somebody", unix() + 600));
    let bytes = client.build(Method::BINDING, |request| request).bytes();
    client.send_raw(&bytes);
    let socket = &client.socket;
    let patience = Duration::from_millis(500);
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut buf = [0; 500];
    let (len, _) = socket.recv_from(&mut buf).ok()?;
    Some(crate::loopback::message::Answer(buf[..len].to_vec()).code())
}

#[test]
fn each_listener_answers_binding_requests_by_its_own_rule() {
    let plane = Setup::relay(1).start();
    let [v4, v6] = [V4, V6].map(|family| plane.listener(family));
    let any_v4 = SocketAddr::from(([0, 0, 0, 0], v4.port()));
    let mut setup = Setup::relay(1);
    for (default, listeners, expected) in [
        (
            BindingRequests::Open,
            vec![],
            [Some(SUCCESS), Some(SUCCESS)],
        ),
        (
            BindingRequests::Authenticated,
            vec![(v4, BindingRequests::Open)],
            [Some(SUCCESS), Some(401)],
        ),
        (
            BindingRequests::Open,
            vec![(any_v4, BindingRequests::Off)],
            [None, Some(SUCCESS)],
        ),
    ] {
        setup.binding = BindingRules {
            default,
            listeners: BTreeMap::from_iter(listeners),
            ..BindingRules::default()
        };
        plane.reconfigure(&setup);
        // The rules reach the workers by their mailboxes, in front of what comes after.
        assert_eq!([v4, v6].map(ask), expected);
    }
    assert_eq!(plane.drops(DropReason::BindingOff), 1);
}
