//! What a server's certificate says of itself (RFC 5280 §4.1): whom it names, who issued it and
//! how long it is good.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// With fewer days left than these somebody should look why it was not renewed.
const SOON: i64 = 14;
const DAY: i64 = 86_400;
/// As much of a name as is shown.
const NAME_MAX: usize = 100;

/// The certificate of a server itself, without the chain behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Certificate {
    names: Vec<String>,
    issuer: String,
    begins: i64,
    ends: i64,
    /// Why it must not be believed, if so.
    pub(in super::super) doubt: Option<String>,
}

/// Where a moment lies in a certificate's time.
enum Validity {
    NotYet,
    /// Whole days left, few of them.
    Soon(i64),
    /// Whole days left.
    Long(i64),
    Expired,
}

impl Certificate {
    /// Reads a certificate as it came in a handshake. It may hold anything.
    pub(super) fn decode(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            names: names(&certificate),
            issuer: shown(&certificate.issuer().to_string()),
            begins: validity.not_before.timestamp(),
            ends: validity.not_after.timestamp(),
            doubt: None,
        })
    }

    fn validity(&self, now: i64) -> Validity {
        let days = self.ends.saturating_sub(now).div_euclid(DAY);
        if now < self.begins {
            Validity::NotYet
        } else if days < 0 {
            Validity::Expired
        } else if days < SOON {
            Validity::Soon(days)
        } else {
            Validity::Long(days)
        }
    }

    /// In few words, for a table.
    pub(in super::super) fn cell(&self, now: i64) -> String {
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
    pub(in super::super) fn line(&self, now: i64) -> String {
        let names = match self.names.as_slice() {
            [] => "nobody".to_owned(),
            names => names.join(", "),
        };
        let validity = match self.validity(now) {
            Validity::NotYet => "not yet valid: do both clocks agree?".to_owned(),
            Validity::Expired => "expired".to_owned(),
            Validity::Soon(days) => format!("{days} days left (!): renew it before calls fail"),
            Validity::Long(days) => format!("{days} days left"),
        };
        format!("for {names}, issued by {}, {validity}", self.issuer)
    }

    /// How it is called, for whoever called it by another name.
    pub(super) fn named(&self) -> String {
        self.names.join(", ")
    }
}

/// RFC 9525 §6.1: what stands in the common name names no server.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    const MOST: usize = 8;
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = alternatives.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(shown(name)),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(|ip| std::net::IpAddr::from(ip));
                let v6 = <[u8; 16]>::try_from(*bytes).map(|ip| std::net::IpAddr::from(ip));
                Some(v4.or(v6).ok()?.to_string())
            }
            _ => None,
        })
        .take(MOST)
        .collect()
}

fn shown(text: &str) -> String {
    text.escape_debug().take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(days: i64) -> Certificate {
        Certificate {
            names: vec!["turn.example.org".to_owned()],
            issuer: "CN=R3".to_owned(),
            begins: 0,
            ends: days * DAY + 5,
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
        let first = certificate.begins;
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
