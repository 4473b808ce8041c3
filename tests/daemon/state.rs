//! What outlives a restart, and what does not.

use rustix::process::Signal;
use taciturn::proto::{Method, RequestedTransport};

use crate::house::House;
use crate::loopback::client::SUCCESS;
use crate::loopback::plane::V4;

/// The code of an Allocate after a restart, with the nonce from before.
fn allocate_after_a_restart(house: &House) -> u16 {
    let mut daemon = house.serve();
    let mut client = house.client(&daemon, "alice");
    client.allocate(V4);
    assert_eq!(daemon.stop(Signal::TERM).code(), Some(0));
    let daemon = house.serve();
    client.server = daemon.listener(V4);
    let answer = client.request_once(Method::ALLOCATE, |r| r.with(&RequestedTransport::UDP));
    answer.code()
}

/// T15
#[test]
fn a_nonce_outlives_a_restart_with_a_state_directory() {
    let house = House::new("state = { dir = \"state\" }");
    assert_eq!(allocate_after_a_restart(&house), SUCCESS);
}

#[test]
fn a_nonce_is_stale_after_a_restart_without_one() {
    assert_eq!(allocate_after_a_restart(&House::new("")), 438);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let house = House::new("state = { dir = \"taciturn.toml/state\" }");
    let output = house.run(&["serve", "--config", "taciturn.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("taciturn.toml/state"), "{said}");
}
