//! What a server shows of itself: certificates, their keys, and which versions and ciphers it
//! speaks. One context is shared by all workers; a new one takes its place when certificates
//! change, and sessions keep the one they began with.

use std::fmt;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    NameType, SniError, SslContext, SslContextBuilder, SslContextRef, SslMethod, SslMode,
    SslOptions, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;

use super::sys;

/// Ciphers with forward secrecy and authentication of their own; for RSA and for ECDSA.
const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";
/// A handshake message of a client without a certificate fits into one record.
const MESSAGE_MAX: u16 = 4_096;

/// A certificate with its chain, and the key to it, both in PEM.
#[derive(Clone, Copy)]
pub struct Identity<'p> {
    /// The certificate itself, then the intermediate ones.
    pub chain: &'p [u8],
    /// Its private key.
    pub key: &'p [u8],
}

impl fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(hidden)")
    }
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// No certificate was given, or a file has none.
    #[error("there is no certificate")]
    NoCertificate,
    /// A chain is not PEM.
    #[error("a certificate cannot be read")]
    Certificate(#[source] ErrorStack),
    /// A key is not PEM.
    #[error("a private key cannot be read")]
    Key(#[source] ErrorStack),
    /// The certificate is of another key.
    #[error("a private key does not fit its certificate")]
    Mismatch(#[source] ErrorStack),
    /// OpenSSL refuses something else.
    #[error("OpenSSL refuses")]
    OpenSsl(#[from] ErrorStack),
}

/// What sessions are begun with.
pub struct DtlsContext {
    first: SslContext,
}

impl fmt::Debug for DtlsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DtlsContext")
    }
}

/// An [`Identity`] as it was read.
struct Parsed {
    leaf: X509,
    chain: Vec<X509>,
    key: PKey<Private>,
    names: Vec<String>,
}

impl DtlsContext {
    /// Takes certificates. A client that names a server gets the first whose name that is, any
    /// other client the very first. Of those for the same names one may be RSA and one ECDSA.
    ///
    /// # Errors
    /// When one of them cannot be read or does not fit its key.
    pub fn new(identities: &[Identity<'_>]) -> Result<Self, ContextError> {
        let mut groups: Vec<Vec<Parsed>> = Vec::new();
        for identity in identities {
            let parsed = Parsed::new(identity)?;
            let place = groups.iter_mut().find(|group| {
                group
                    .iter()
                    .all(|other| other.names == parsed.names && other.key.id() != parsed.key.id())
            });
            match place {
                Some(group) => group.push(parsed),
                None => groups.push(vec![parsed]),
            }
        }
        let (first, others) = groups.split_first().ok_or(ContextError::NoCertificate)?;
        let others: Vec<(Vec<String>, SslContext)> = others
            .iter()
            .map(|group| Ok((names_of(group), builder(group)?.build())))
            .collect::<Result<_, ContextError>>()?;
        let own = names_of(first);
        let mut builder = builder(first)?;
        builder.set_servername_callback(move |ssl, _alert| {
            let other = ssl.servername(NameType::HOST_NAME).and_then(|asked| {
                let is_asked = |names: &[String]| names.iter().any(|name| covers(name, asked));
                let other = others.iter().find(|(names, _)| is_asked(names));
                other.filter(|_| !is_asked(&own))
            });
            other.map_or(Ok(()), |(_, context)| {
                ssl.set_ssl_context(context)
                    .map_err(|_| SniError::ALERT_FATAL)
            })
        });
        Ok(Self {
            first: builder.build(),
        })
    }

    /// The one a session begins with; a server's name may lead it to another.
    pub(super) fn ssl(&self) -> &SslContextRef {
        &self.first
    }
}

impl Parsed {
    fn new(identity: &Identity<'_>) -> Result<Self, ContextError> {
        let mut chain = X509::stack_from_pem(identity.chain).map_err(ContextError::Certificate)?;
        if chain.is_empty() {
            return Err(ContextError::NoCertificate);
        }
        let leaf = chain.remove(0);
        let key = PKey::private_key_from_pem(identity.key).map_err(ContextError::Key)?;
        let mut names: Vec<String> = leaf
            .subject_alt_names()
            .into_iter()
            .flatten()
            .filter_map(|name| name.dnsname().map(str::to_ascii_lowercase))
            .collect();
        names.sort_unstable();
        Ok(Self {
            leaf,
            chain,
            key,
            names,
        })
    }
}

fn names_of(group: &[Parsed]) -> Vec<String> {
    group.first().map(|it| it.names.clone()).unwrap_or_default()
}

/// RFC 6125 §6.4.3: a wildcard stands for one whole label, the first.
fn covers(name: &str, asked: &str) -> bool {
    let asked = asked.to_ascii_lowercase();
    name == asked
        || name.strip_prefix("*.").is_some_and(|parent| {
            asked
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
        })
}

fn builder(group: &[Parsed]) -> Result<SslContextBuilder, ContextError> {
    let mut builder = SslContextBuilder::new(SslMethod::dtls_server())?;
    builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    builder.set_max_proto_version(Some(SslVersion::DTLS1_2))?;
    builder.set_cipher_list(CIPHERS)?;
    builder.set_options(
        SslOptions::NO_QUERY_MTU
            | SslOptions::NO_TICKET
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_COMPRESSION
            | SslOptions::CIPHER_SERVER_PREFERENCE,
    );
    builder.set_mode(SslMode::NO_AUTO_CHAIN);
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_verify(SslVerifyMode::NONE);
    sys::cap_handshake_messages(&mut builder, MESSAGE_MAX);
    // A session is begun only with a cookie that was verified, so OpenSSL has nothing to add; a
    // hello in which it finds none is refused.
    builder.set_cookie_verify_cb(|_, _| true);
    builder.set_cookie_generate_cb(|_, _| Err(ErrorStack::get()));
    for identity in group {
        builder.set_certificate(&identity.leaf)?;
        for certificate in &identity.chain {
            if !sys::add_to_chain(&mut builder, certificate) {
                return Err(ContextError::OpenSsl(ErrorStack::get()));
            }
        }
        builder
            .set_private_key(&identity.key)
            .map_err(ContextError::Mismatch)?;
        builder
            .check_private_key()
            .map_err(ContextError::Mismatch)?;
    }
    Ok(builder)
}
