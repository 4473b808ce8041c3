//! As whom the allocations are made.

use secrecy::{ExposeSecret, SecretString};

use crate::proto::LongTermKey;
use crate::turn::credential::{self, Secret};

/// How long minted credentials let their holders allocate: a search takes minutes.
const TTL: u64 = 86_400;

/// Where credentials come from.
#[derive(Debug)]
pub(super) enum Credentials {
    /// Minted, one for each of so many users, or for each allocation.
    Minted { secret: Secret, users: Option<u32> },
    /// One for all.
    Fixed {
        username: String,
        password: SecretString,
    },
}

/// One user.
pub(super) struct Login {
    pub(super) username: String,
    password: SecretString,
    /// Made when the realm is known.
    pub(super) key: Option<LongTermKey>,
}

impl Login {
    pub(super) fn learn(&mut self, realm: &str) {
        let password = self.password.expose_secret();
        self.key = Some(LongTermKey::md5(&self.username, realm, password));
    }
}

impl Credentials {
    /// Users for so many allocations.
    ///
    /// # Errors
    /// When the secret mints nothing.
    pub(super) fn logins(&self, allocations: usize, now: u64) -> anyhow::Result<Vec<Login>> {
        match self {
            Self::Fixed { username, password } => Ok(vec![Login {
                username: username.clone(),
                password: password.clone(),
                key: None,
            }]),
            Self::Minted { secret, users } => {
                let shared = users.and_then(|users| usize::try_from(users).ok());
                let expires = now.saturating_add(TTL);
                (0..shared.unwrap_or(allocations).min(allocations))
                    .map(|number| {
                        let minted = credential::mint(secret, &format!("load{number}"), expires)?;
                        Ok(Login {
                            username: minted.username,
                            password: SecretString::from(minted.password.as_str()),
                            key: None,
                        })
                    })
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_allocation_has_a_user_unless_they_share() {
        let logins = |users| {
            let secret = Secret::new("s", "hunter2");
            let logins = Credentials::Minted { secret, users }
                .logins(5, 100)
                .unwrap();
            logins
                .into_iter()
                .map(|login| login.username)
                .collect::<Vec<_>>()
        };
        assert_eq!(logins(None).len(), 5);
        assert_eq!(logins(None)[4], "86500:load4");
        assert_eq!(logins(Some(2)), ["86500:load0", "86500:load1"]);
        assert_eq!(logins(Some(9)).len(), 5);
    }
}
