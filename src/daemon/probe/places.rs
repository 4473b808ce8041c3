//! The addresses behind a host, one list for each family: a server is only well when both work.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

/// Addresses that are tried of each family.
const MOST: usize = 4;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// As people call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The addresses of `host`, each family for itself; of `only` one family if so.
///
/// # Errors
/// When there are none.
pub(super) async fn of(
    host: &str,
    port: u16,
    only: Option<Family>,
    patience: Duration,
) -> Result<Vec<Vec<SocketAddr>>, String> {
    let found = timeout(patience, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(format!("the name {host} is not found: {error}")),
        Err(_) => return Err(format!("the name {host} is not found within {patience:?}")),
    };
    let wanted: Vec<Vec<SocketAddr>> = [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| only.is_none_or(|only| only == *family))
        .map(|family| of_family(&addresses, family))
        .filter(|addresses| !addresses.is_empty())
        .collect();
    match (wanted.is_empty(), only) {
        (false, _) => Ok(wanted),
        (true, Some(family)) => Err(format!("{host} has no {} address", family.name())),
        (true, None) => Err(format!("the name {host} has no address")),
    }
}

fn of_family(addresses: &[SocketAddr], family: Family) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for &address in addresses {
        if Family::of(address) == family && !found.contains(&address) && found.len() < MOST {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn an_address_is_its_own_place() {
        for (host, text) in [
            ("192.0.2.1", "192.0.2.1:7"),
            ("2001:db8::1", "[2001:db8::1]:7"),
        ] {
            let places = of(host, 7, None, PATIENCE).await.unwrap();
            assert_eq!(places, [[text.parse().unwrap()]]);
        }
    }

    #[tokio::test]
    async fn a_family_that_is_missing_is_told() {
        let failure = of("192.0.2.1", 7, Some(Family::V6), PATIENCE).await;
        assert_eq!(failure.unwrap_err(), "192.0.2.1 has no IPv6 address");
    }

    #[test]
    fn each_family_has_its_own_list_of_few() {
        let all: Vec<SocketAddr> = (0..20_u8)
            .flat_map(|n| {
                let (v4, v6) = (
                    [192, 0, 2, n / 2],
                    [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)],
                );
                [SocketAddr::from((v4, 1)), SocketAddr::from((v6, 1))]
            })
            .collect();
        for family in [Family::V4, Family::V6] {
            let found = of_family(&all, family);
            assert_eq!(found.len(), MOST);
            assert!(found.iter().all(|&address| Family::of(address) == family));
        }
        assert_eq!(of_family(&all, Family::V4)[1].to_string(), "192.0.2.1:1");
    }
}
