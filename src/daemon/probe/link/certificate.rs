//! What a server's certificate says of itself (RFC 5280 §4.1): whom it names, who issued it and
//! how long it is good.

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::dataplane::tls;

/// With fewer days left than these somebody should look why it was not renewed.
const SOON: u64 = 14;
/// As much of a name as is shown.
const NAME_MAX: usize = 100;

/// The certificate of a server itself, without the chain behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Certificate {
    says: tls::Certificate,
    issuer: String,
    /// Why it must not be believed, if so.
    pub(in super::super) doubt: Option<String>,
}

/// Where a moment lies in a certificate's time.
enum Validity {
    NotYet,
    /// Whole days left, few of them.
    Soon(u64),
    /// Whole days left.
    Long(u64),
    Expired,
}

impl Certificate {
    /// Reads a certificate as it came in a handshake. It may hold anything.
    pub(super) fn decode(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self {
            says: tls::Certificate::parse(der)?,
            issuer: shown(&certificate.issuer().to_string()),
            doubt: None,
        })
    }

    fn validity(&self, now: u64) -> Validity {
        match self.says.days_left(now) {
            _ if now < self.says.not_before => Validity::NotYet,
            None => Validity::Expired,
            Some(days) if days < SOON => Validity::Soon(days),
            Some(days) => Validity::Long(days),
        }
    }

    /// In few words, for a table.
    pub(in super::super) fn cell(&self, now: u64) -> String {
        let text = match self.validity(now) {
            Validity::NotYet => "not yet valid".to_owned(),
            Validity::Expired => "expired".to_owned(),
            Validity::Soon(days) => format!("{days} d (!)"),
            Validity::Long(days) => format!("{days} d"),
        };
        match self.doubt {
            Some(_) => format!("{text}, NOT VERIFIED"),
            None => text,
        }
    }

    /// In a line.
    pub(in super::super) fn line(&self, now: u64) -> String {
        let validity = match self.validity(now) {
            Validity::NotYet => "not yet valid: do both clocks agree?".to_owned(),
            Validity::Expired => "expired".to_owned(),
            Validity::Soon(days) => format!("{days} days left (!): renew it before calls fail"),
            Validity::Long(days) => format!("{days} days left"),
        };
        format!(
            "for {}, issued by {}, {validity}",
            self.named(),
            self.issuer
        )
    }

    /// How it is called. RFC 9525 §6.1: what stands in its common name names no server.
    pub(super) fn named(&self) -> String {
        const MOST: usize = 8;
        let names = self.says.names.iter().take(MOST);
        let names: Vec<String> = names.map(|name| shown(name)).collect();
        match names.as_slice() {
            [] => "nobody".to_owned(),
            names => names.join(", "),
        }
    }
}

fn shown(text: &str) -> String {
    text.escape_debug().take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn until(days: u64) -> Certificate {
        Certificate {
            says: tls::Certificate {
                names: vec!["turn.example.org".to_owned()],
                not_before: 0,
                not_after: days * DAY + 5,
            },
            issuer: "CN=R3".to_owned(),
            doubt: None,
        }
    }

    #[test]
    fn names_and_days_are_read_from_a_certificate() {
        let names = ["turn.example.org".to_owned(), "192.0.2.7".to_owned()];
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 1, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        let der = parameters.self_signed(&key).unwrap();
        let certificate = Certificate::decode(der.der()).unwrap();
        assert_eq!(certificate.named(), "turn.example.org, 192.0.2.7");
        let first = certificate.says.not_before;
        assert_eq!(certificate.cell(first), "30 d");
        assert_eq!(certificate.cell(first - 1), "not yet valid");
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        assert_eq!(Certificate::decode(b""), None);
        assert_eq!(Certificate::decode(&[0x30; 100]), None);
    }

    #[test]
    fn one_that_ends_within_two_weeks_is_marked() {
        for (days, cell) in [(14, "14 d"), (13, "13 d (!)"), (0, "0 d (!)")] {
            assert_eq!(until(days).cell(0), cell);
        }
        assert_eq!(until(0).cell(6), "expired");
        assert!(until(3).line(0).contains("3 days left (!)"));
        assert!(until(1).line(3 * DAY).ends_with("expired"));
    }

    #[test]
    fn one_that_is_not_verified_says_so_loudly() {
        let mut certificate = until(50);
        certificate.doubt = Some("unknown issuer".to_owned());
        assert_eq!(certificate.cell(0), "50 d, NOT VERIFIED");
    }

    #[test]
    fn a_name_cannot_steer_a_terminal() {
        assert!(!shown("\u{1b}[2J").contains('\u{1b}'));
        assert_eq!(shown(&"x".repeat(1000)).len(), NAME_MAX);
    }
}
