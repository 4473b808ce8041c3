//! Rates on real sockets: what a flood costs others, what gets through, and connections that wait
//! instead of losing anything.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use taciturn::turn::Limits;
use taciturn::turn::rates::{Flow, Pace, RateLimits};
use taciturn::turn::stats::{Direction, DropReason, Limit, Path};

use crate::loopback::client::SUCCESS;
use crate::loopback::message::Received;
use crate::loopback::plane::{Setup, V4};
use crate::tcp_relay;

fn of_allocation(allocation: Flow) -> Limits {
    Limits {
        rates: RateLimits {
            allocation,
            ..RateLimits::default()
        },
        ..Limits::default()
    }
}

/// Sets it when it goes.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// T43: a flood at its limit loses what is more, and a call beside it loses nothing.
#[test]
fn a_flooding_allocation_gets_its_rate_and_starves_nobody() {
    const PER_SECOND: u64 = 500;
    const BURST: u64 = 1_000;
    let pace = Pace {
        per_second: PER_SECOND,
        burst: BURST,
    };
    for workers in [1, 4] {
        let mut plane = Setup {
            limits: of_allocation(Flow {
                bits: None,
                packets: Some(pace),
            }),
            ..Setup::relay(workers)
        }
        .start();
        let [(mut flooding, at_flooding), (mut flooded, at_flooded)] =
            [(); 2].map(|()| plane.party(V4));
        let [(mut a, at_a), (mut b, at_b)] = [(); 2].map(|()| plane.party(V4));
        assert_eq!(flooding.bind(0x4000, at_flooded), SUCCESS);
        assert_eq!(flooded.permit(at_flooding), SUCCESS);
        assert_eq!((a.bind(0x4000, at_b), b.permit(at_a)), (SUCCESS, SUCCESS));
        let (began, ends) = (Instant::now(), AtomicBool::new(false));
        thread::scope(|scope| {
            // Also when something below fails: the scope waits for that thread.
            let _ends = AtEnd(&ends);
            // Twenty times its rate, and no more than a listener's buffer takes while others run.
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    for _ in 0..10 {
                        flooding.send_channel(0x4000, &[9; 100]);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
            while plane.drops(DropReason::OverRate) < 1_000 {
                thread::yield_now();
            }
            for n in 0..200_u8 {
                a.send_channel(0x4000, &[n; 160]);
                assert_eq!(b.receive(), Received::Data(at_a, vec![n; 160]));
            }
        });
        assert!(plane.sum(|worker| worker.limits_reached(Limit::AllocationPackets)) > 0);
        let went = plane.packets(Path::Hairpin, Direction::In) - 200;
        let most = BURST + PER_SECOND * (began.elapsed().as_secs() + 1);
        assert!((BURST..=most).contains(&went), "{went} of {most}");
    }
}

/// A connection (RFC 6062) that is too fast is not read for a while: all arrives, at its rate.
#[test]
fn a_data_connection_waits_for_its_rate_and_loses_nothing() {
    const BITS: u64 = 4_000_000;
    let bytes: Vec<u8> = (0_u8..251).cycle().take(400_000).collect();
    let mut plane = Setup {
        limits: of_allocation(Flow {
            bits: Some(Pace::of_bits(BITS)),
            packets: None,
        }),
        ..tcp_relay::any(1)
    }
    .start();
    let transport = taciturn::turn::Transport::Tcp;
    let (mut client, relayed) = tcp_relay::party(&mut plane, transport);
    let (mut data, mut peer) = tcp_relay::spliced(&plane, &mut client, relayed, transport);
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| peer.write_all(&bytes).unwrap());
        assert!(data.read_raw(bytes.len()) == bytes, "other bytes came");
    });
    // A quarter of a second's worth at once, and one read that is paid for afterwards.
    let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap();
    let most = BITS / 8 / 4 + BITS / 8 * nanos / 1_000_000_000 + 64 * 1_024;
    assert!(most >= 400_000, "400,000 bytes where {most} may have gone");
    assert_eq!(plane.drops(DropReason::OverRate), 0);
}

fn of_bits(bits: u64) -> Limits {
    of_allocation(Flow {
        bits: Some(Pace::of_bits(bits)),
        packets: None,
    })
}

/// A connection that is spliced already goes by the rates there are now, in both directions of change:
/// one that was lifted ends its pause, which at the former rate would outlast this test.
#[test]
fn a_data_connection_takes_up_another_rate_while_it_flows() {
    const BITS: u64 = 4_000_000;
    let bytes: Vec<u8> = (0_u8..251).cycle().take(400_000).collect();
    let slow = Setup {
        limits: of_bits(1_000),
        ..tcp_relay::any(1)
    };
    let mut plane = slow.start();
    let transport = taciturn::turn::Transport::Tcp;
    let (mut client, relayed) = tcp_relay::party(&mut plane, transport);
    let (mut data, mut peer) = tcp_relay::spliced(&plane, &mut client, relayed, transport);
    peer.write_all(&bytes).unwrap();
    // More than the bucket holds, so that it pauses.
    assert!(data.read_raw(8_000) == bytes[..8_000], "other bytes came");
    plane.reconfigure(&tcp_relay::any(1));
    assert!(data.read_raw(392_000) == bytes[8_000..], "other bytes came");

    plane.reconfigure(&Setup {
        limits: of_bits(BITS),
        ..tcp_relay::any(1)
    });
    // Its worker has read of that when it answers.
    assert_eq!(client.refresh(600).code(), SUCCESS);
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| peer.write_all(&bytes).unwrap());
        assert!(data.read_raw(bytes.len()) == bytes, "other bytes came");
    });
    let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap();
    let most = BITS / 8 / 4 + BITS / 8 * nanos / 1_000_000_000 + 64 * 1_024;
    assert!(most >= 400_000, "400,000 bytes where {most} may have gone");
}
