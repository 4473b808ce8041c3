use super::*;
use crate::turn::credential::EXPIRY_LEEWAY;
use std::fs;

const NOW: u64 = 1_800_000_000;
const MAX_TTL: Duration = Duration::from_secs(48 * 3_600);

fn each(byte: u8) -> [Revoked; 3] {
    [
        Revoked::Credential(UsernameDigest::from_bytes([byte; 16])),
        Revoked::User(Subject::from_bytes([byte; 16])),
        Revoked::Call(CallId::from_bytes([byte; 16])),
    ]
}

fn subject(byte: u8) -> Banned {
    Banned::Subject(Subject::from_bytes([byte; 16]))
}

#[test]
fn what_was_taken_back_is_still_after_a_restart_and_forgotten_when_it_cannot_matter() {
    let directory = tempfile::tempdir().unwrap();
    let open = |now| RevocationBook::open(Some(directory.path()), MAX_TTL, now).unwrap();
    let mut book = open(NOW);
    assert!(book.is_durable() && book.revocations.is_empty());
    let reach = |at| Reach::new(at, MAX_TTL);
    book.write(&each(1), reach(NOW)).unwrap();
    book.write(&each(2), reach(NOW + 100)).unwrap();
    book.write(&each(1), reach(NOW + 50)).unwrap();

    let later = open(NOW + 200).revocations.all();
    assert_eq!(later.len(), 6);
    let found = |revoked: &Revoked| later.iter().find(|(other, _)| other == revoked);
    let at = |revoked: &Revoked| found(revoked).unwrap().1.at();
    assert_eq!(each(1).map(|revoked| at(&revoked)), [NOW + 50; 3]);

    // The longest credential issued by then is over at NOW + 50 + 48 h and the leeway.
    let over = NOW + 50 + MAX_TTL.as_secs() + EXPIRY_LEEWAY;
    assert_eq!(open(over).revocations.len(), 6);
    assert_eq!(open(over + EXPIRY_LEEWAY + 1).revocations.len(), 3);
    let text = fs::read_to_string(directory.path().join("revocations")).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
}

/// T25: a restart under another `max_ttl` reads how far each reached, and forgets none too early.
#[test]
fn how_long_a_credential_might_last_outlives_a_restart_under_another_limit() {
    let directory = tempfile::tempdir().unwrap();
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let open = |ttl, now| RevocationBook::open(Some(directory.path()), hours(ttl), now).unwrap();
    let mut book = open(48, NOW);
    for (byte, ttl) in [(1, 48), (2, 1), (3, 100)] {
        book.write(&each(byte), Reach::new(NOW, hours(ttl)))
            .unwrap();
    }
    let kept = |ttl, now| {
        let all = open(ttl, now).revocations.all().into_iter();
        let lasted = all.map(|(_, reach)| reach.max_ttl().as_secs() / 3_600);
        let mut lasted: Vec<u64> = lasted.collect();
        lasted.sort_unstable();
        lasted.dedup();
        lasted
    };
    assert_eq!(kept(1, NOW + 47 * 3_600), [1, 48, 100]);
    assert_eq!(kept(1, NOW + 49 * 3_600), [100]);
    assert_eq!(kept(1, NOW + 99 * 3_600), [100]);
    assert!(kept(1, NOW + 101 * 3_600).is_empty());
}

/// T25
#[test]
fn a_line_that_does_not_say_how_long_credentials_lasted_means_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let id = "01".repeat(16);
    let line = format!("{{\"at\":{NOW},\"revoked\":\"user\",\"id\":\"{id}\"}}\n");
    fs::write(directory.path().join("revocations"), line).unwrap();
    let book = RevocationBook::open(Some(directory.path()), Duration::from_secs(60), NOW);
    let expected = (each(1)[1], Reach::new(NOW, DEFAULT_MAX_TTL));
    assert_eq!(book.unwrap().revocations.all(), [expected]);
}

#[test]
fn a_running_daemon_forgets_too() {
    let mut book = RevocationBook::open(None, MAX_TTL, NOW).unwrap();
    book.revocations.add(each(1)[0], Reach::new(NOW, MAX_TTL));
    book.tidy(MAX_TTL, NOW + TIDY).unwrap();
    assert_eq!(book.revocations.len(), 1);
    book.tidy(MAX_TTL, NOW + MAX_TTL.as_secs() + 1_000).unwrap();
    assert!(book.revocations.is_empty() && !book.is_durable());
}

#[test]
fn bans_and_their_ends_outlive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let open = |now| BanBook::open(Some(directory.path()), &[7; 32], now).unwrap();
    let mut book = open(NOW);
    let network = Banned::Network(book.bans.network("192.0.2.0/24".parse().unwrap()));
    let bans = [
        Ban::new(subject(1), NOW, None),
        Ban::new(network, NOW, None),
        Ban::new(subject(2), NOW, Some(NOW + 60)),
    ];
    book.add(&bans);
    book.write(&bans).unwrap();
    assert!(book.lift(bans[0].id, NOW + 1).unwrap());
    assert!(!book.lift(bans[0].id, NOW + 1).unwrap());

    let anybody = Subject::from_bytes([9; 16]);
    let book = open(NOW + 2);
    let mut left = book.list(NOW + 2);
    left.sort_by_key(|ban| ban.until);
    assert_eq!(left, bans[1..]);
    let ip = "192.0.2.77".parse().unwrap();
    assert!(book.bans.cover(anybody, ip, NOW + 2));
    let text = fs::read_to_string(directory.path().join("bans")).unwrap();
    assert!(!text.contains("192.0") && !text.contains("c000"), "{text}");
    assert_eq!(open(NOW + 60).list(NOW + 60), bans[1..2]);
}

#[test]
fn a_network_that_cannot_be_is_named_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let id = "00".repeat(16);
    for network in ["[4,33]", "[5,1]", "[6,129]", "[4]", "4"] {
        let line = format!("{{\"at\":1,\"change\":\"ban\",\"network\":{network},\"id\":\"{id}\"}}");
        fs::write(directory.path().join("bans"), format!("{line}\n")).unwrap();
        let error = BanBook::open(Some(directory.path()), &[7; 32], NOW).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("bans, line 1"), "{said}");
    }
}

#[test]
fn a_ban_is_named_alike_each_time_and_no_two_the_same() {
    let names = [1, 2].map(|byte| BanId::of(&subject(byte)));
    assert_ne!(names[0], names[1]);
    assert_eq!(names[0], BanId::of(&subject(1)));
    assert_eq!(BanId::parse(&names[0].to_string()), Some(names[0]));
    for bad in ["", "+123456789abcdef", "0123", "0123456789abcdefg"] {
        assert_eq!(BanId::parse(bad), None, "{bad}");
    }
}
