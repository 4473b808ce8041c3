//! What a username says on the wire.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use taciturn::turn::credential::{
    Claims, Credentials, SealingKeys, Secret, SecretsRing, StaticUsers,
};
use zeroize::Zeroizing;

use crate::lab::relay::SECRET;
use crate::loopback::client::{Credential, SUCCESS};
use crate::loopback::plane::{V4, V6, unix};
use crate::report::Report;
use crate::stage::{Daemon, Party, Stage};

const REALM: &str = "calls.test";
const USER: &str = "alice@example.org";
const CALL: &str = "call-of-monday-0800";

/// What the daemon's backend mints with.
pub(super) struct Mint(Credentials);

impl Mint {
    /// With the keys of a daemon that runs.
    pub(super) fn of(daemon: &Daemon<'_>) -> Self {
        let key = |name: &str| -> [u8; 32] {
            let path = daemon.directory.join("state").join(name);
            fs::read(path).unwrap().try_into().unwrap()
        };
        let ring = SecretsRing::new(vec![Secret::new("stage", SECRET)]);
        let sealing = SealingKeys::new(&[Zeroizing::new(key("sealing.key"))]);
        let credentials = Credentials::new(ring, StaticUsers::default(), key("subject.key"));
        Self(credentials.with_sealing(sealing, REALM))
    }

    /// A sealed credential of `user`, whose claims `say` completes.
    pub(super) fn sealed(
        &self,
        user: &str,
        say: impl FnOnce(&Credentials, &mut Claims),
    ) -> Credential {
        let mut claims = Claims::new(self.0.subject(user), unix());
        say(&self.0, &mut claims);
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).unwrap();
        let minted = self.0.mint_sealed(&claims, unix() + 600, nonce).unwrap();
        Credential {
            username: minted.username,
            password: minted.password.as_str().to_owned(),
        }
    }
}

/// L10: T70
pub(super) fn sealed(stage: &Stage) -> Report {
    let mut report = Report::default();
    let daemon = stage.serve(&[]);
    let mint = Mint::of(&daemon);
    let call = mint.0.call(CALL).unwrap();
    let [first, second] = [(); 2].map(|()| mint.sealed(USER, |_, claims| claims.call = Some(call)));
    let of = |credential: &Credential| credential.username.split_once(":~1.").unwrap().1.to_owned();
    let (one, other) = (of(&first), of(&second));
    let same = one
        .bytes()
        .zip(other.bytes())
        .skip(6)
        .filter(|(a, b)| a == b);
    // Equal letters of two random texts: one in 64.
    let same = same.count();
    report.holds(
        same * 8 < one.len(),
        format!("{same} equal letters in two mintings"),
    );
    let capture = stage.capture(Party::Alice);
    for (family, credential) in [(V4, first), (V6, second)] {
        let at = Party::Alice.at(family);
        let mut client = stage.client_at(Party::Alice, at, credential);
        let relayed = client.allocate(family);
        assert_eq!(client.permit(relayed), SUCCESS);
        client.refresh(0);
    }
    let packets = capture.finish();
    let wire: Vec<u8> = packets
        .iter()
        .flat_map(|packet| packet.body.clone())
        .collect();
    assert!(
        wire.windows(one.len()).any(|w| w == one.as_bytes()),
        "the names are not captured"
    );
    let subject = mint.0.subject(USER);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut needles = vec![subject.to_bytes().to_vec(), call.to_bytes().to_vec()];
    for text in [USER, "alice", CALL] {
        needles.extend([
            text.as_bytes().to_vec(),
            hex(text.as_bytes()).into_bytes(),
            STANDARD_NO_PAD.encode(text).into_bytes(),
        ]);
    }
    for bytes in [subject.to_bytes(), call.to_bytes()] {
        needles.extend([
            hex(&bytes).into_bytes(),
            STANDARD_NO_PAD.encode(bytes).into_bytes(),
            URL_SAFE_NO_PAD.encode(bytes).into_bytes(),
        ]);
    }
    for needle in &needles {
        let is_there = wire.windows(needle.len()).any(|w| w == needle.as_slice());
        let told = String::from_utf8_lossy(needle).escape_debug().to_string();
        report.holds(!is_there, format!("{told} is on the wire"));
    }
    report.looked(format!(
        "{} packets, {} forms",
        packets.len(),
        needles.len()
    ));
    report
}
