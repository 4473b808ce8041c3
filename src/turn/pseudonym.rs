//! What stands for a client's address where a person or a log reads it, and the one order that
//! shows it. Nothing else turns a [`ClientAddr`] into text.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::address::ClientAddr;

/// Makes pseudonyms with a key that is thrown away after some days, so that what was logged
/// becomes unreadable even to its owner.
///
/// While the key lives, whoever holds it can try every IPv4 address until one fits. A pseudonym
/// hides an address from those who read the log, not from those who hold the key.
#[derive(Clone)]
pub struct Pseudonymizer(Zeroizing<[u8; 32]>);

/// Stands for a client's IP address, on any port, for as long as its key is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pseudonym([u8; 8]);

impl Pseudonym {
    /// A pseudonym as it is printed, 16 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        number.map(|number| Self(number.to_be_bytes()))
    }
}

impl Pseudonymizer {
    /// Takes 32 random bytes.
    #[must_use]
    pub const fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    /// The pseudonym of a client's IP address.
    #[must_use]
    pub fn of(&self, client: ClientAddr) -> Pseudonym {
        let mut pseudonym = [0; 8];
        // HMAC takes a key of any length, so this never fails.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_ref()) {
            match client.expose().ip() {
                IpAddr::V4(ip) => mac.update(&ip.octets()),
                IpAddr::V6(ip) => mac.update(&ip.octets()),
            }
            pseudonym.copy_from_slice(&mac.finalize().into_bytes()[..8]);
        }
        Pseudonym(pseudonym)
    }
}

impl fmt::Debug for Pseudonymizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonymizer(hidden)")
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no pseudonym.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pseudonym has 16 hexadecimal digits, as the log writes it")]
pub struct NoPseudonym;

impl FromStr for Pseudonym {
    type Err = NoPseudonym;

    fn from_str(text: &str) -> Result<Self, NoPseudonym> {
        // The parser of numbers would take a sign.
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        number
            .map(|number| Self(number.to_be_bytes()))
            .ok_or(NoPseudonym)
    }
}

/// The operator's order to show clients' addresses in the log, beside their pseudonyms. Whoever
/// holds it broke the glass in the configuration; there is no other way to a client's address as
/// text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakGlass(());

impl BreakGlass {
    /// The order, where it was given.
    #[must_use]
    pub const fn ordered(show_addresses: bool) -> Option<Self> {
        if show_addresses { Some(Self(())) } else { None }
    }

    /// The client's transport address, for a line of the log.
    #[must_use]
    pub const fn tell(self, client: ClientAddr) -> SocketAddr {
        client.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn client(ip: [u8; 4], port: u16) -> ClientAddr {
        ClientAddr::new(SocketAddr::from((ip, port)))
    }

    #[test]
    fn a_pseudonym_is_of_an_address_and_a_key() {
        let monday = Pseudonymizer::new(Zeroizing::new([1; 32]));
        let tuesday = Pseudonymizer::new(Zeroizing::new([2; 32]));
        let alice = client([192, 0, 2, 1], 1_000);
        assert_eq!(monday.of(alice), monday.of(client([192, 0, 2, 1], 2_000)));
        assert_ne!(monday.of(alice), monday.of(client([192, 0, 2, 2], 1_000)));
        assert_ne!(monday.of(alice), tuesday.of(alice));
    }

    #[test]
    fn a_pseudonym_is_read_as_it_is_written() {
        let key = Pseudonymizer::new(Zeroizing::new([1; 32]));
        let alice = key.of(client([192, 0, 2, 1], 1_000));
        let text = alice.to_string();
        assert_eq!(text.parse(), Ok(alice));
        assert_eq!(text.to_uppercase().parse(), Ok(alice));
        for bad in [
            "",
            &text[1..],
            &format!("+{}", &text[1..]),
            &format!("{text}0"),
        ] {
            assert_eq!(bad.parse::<Pseudonym>(), Err(NoPseudonym), "{bad}");
        }
    }

    #[test]
    fn an_address_is_told_by_order_alone() {
        assert_eq!(BreakGlass::ordered(false), None);
        let order = BreakGlass::ordered(true).unwrap();
        let told = order.tell(client([192, 0, 2, 1], 1_000));
        assert_eq!(told.to_string(), "192.0.2.1:1000");
    }

    #[test]
    fn a_pseudonym_shows_no_address() {
        let key = Pseudonymizer::new(Zeroizing::new([1; 32]));
        let shown = format!("{} {key:?}", key.of(client([192, 0, 2, 1], 1_000)));
        assert!(
            !shown.contains("192") && !shown.contains("c0000201"),
            "{shown}"
        );
    }
}
