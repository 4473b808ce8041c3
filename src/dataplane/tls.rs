//! Certificates and keys of TLS and DTLS listeners, and what rustls is told of them.
//!
//! [`TlsKeys`] reads PEM files, chooses by server name (RFC 6066 §3), and reads the files again
//! when asked: new handshakes get the new certificates, connections that stand keep theirs. It
//! opens no socket and makes no connection: streams drive rustls with
//! [`TlsKeys::server_config`], and DTLS takes the PEM texts of [`TlsKeys::current`] and takes them
//! again when their generation is another. No output shows a key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

#[cfg(test)]
mod tests;

/// RFC 7443 §4: what a client may call the protocol within TLS.
pub const ALPN: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];

/// The longest chain that is read.
const MAX_CHAIN: usize = 1 << 20;
/// The longest file of a key that is read.
const MAX_KEY: usize = 64 << 10;

/// Where one certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// The certificate and those above it, the server's own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// One half of [`KeyFiles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`KeyFiles::cert`]
    Certificate,
    /// [`KeyFiles::key`]
    Key,
}

/// What is wrong with certificates or keys. It quotes nothing that a file holds.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One file.
    #[error("{}: {reason}; {remedy}", escaped(.path))]
    File {
        /// Which pair, in the order given.
        pair: usize,
        /// Which half of it.
        part: Part,
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What would be right.
        remedy: &'static str,
    },
    /// There is no pair at all.
    #[error("no certificate is named")]
    Nothing,
    /// The library refused.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its names and addresses, in lower case; a first label `*` stands for any one.
    pub names: Vec<String>,
    /// Since when it is valid, in seconds of the Unix epoch.
    pub not_before: u64,
    /// Until when, in seconds of the Unix epoch.
    pub not_after: u64,
}

impl Certificate {
    /// Whether it is this host's, a name or an address.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        self.fits(&host.to_ascii_lowercase()).is_some()
    }

    /// Whole days until it expires; `None` when it has.
    #[must_use]
    pub const fn days_left(&self, now: u64) -> Option<u64> {
        match self.not_after.checked_sub(now) {
            Some(left) => Some(left / 86_400),
            None => None,
        }
    }

    fn fits(&self, host: &str) -> Option<Fit> {
        if self.names.iter().any(|name| name == host) {
            return Some(Fit::Exact);
        }
        // RFC 6125 §6.4.3: the wildcard is a whole label, the leftmost, and stands for one.
        let (_, above) = host.split_once('.')?;
        let wild = |name: &String| name.strip_prefix("*.") == Some(above);
        self.names.iter().any(wild).then_some(Fit::Wildcard)
    }

    /// Reads a certificate, which may come from anybody.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut names = Vec::new();
        if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
            for name in &alternative.value.general_names {
                if let GeneralName::DNSName(name) = name {
                    names.push(name.to_ascii_lowercase());
                } else if let GeneralName::IPAddress(bytes) = name {
                    names.extend(address(bytes));
                }
            }
        }
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        let validity = certificate.validity();
        Some(Self {
            names,
            not_before: seconds(validity.not_before.timestamp()),
            not_after: seconds(validity.not_after.timestamp()),
        })
    }
}

/// How well a certificate fits a server name; the better one is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Exact,
    Wildcard,
}

fn address(bytes: &[u8]) -> Option<String> {
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(ip.to_string())
}

/// One certificate with its key, good to serve.
#[derive(Clone)]
pub struct Pair {
    chain_pem: Vec<u8>,
    key_pem: Zeroizing<Vec<u8>>,
    certified: Arc<CertifiedKey>,
    certificate: Certificate,
}

impl Pair {
    /// The certificate and those above it, as the file has them.
    #[must_use]
    pub fn chain_pem(&self) -> &[u8] {
        &self.chain_pem
    }

    /// The private key, as the file has it.
    #[must_use]
    pub fn key_pem(&self) -> &[u8] {
        &self.key_pem
    }

    /// What the certificate says of itself.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// The pairs that are served at a time, at least one.
#[derive(Debug)]
pub struct Pairs {
    generation: u64,
    first: Pair,
    others: Vec<Pair>,
}

impl Pairs {
    /// Another number for each time the files were taken anew.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The pair of clients that name no server, or none that is known.
    #[must_use]
    pub const fn first(&self) -> &Pair {
        &self.first
    }

    /// All of them, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &Pair> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The pair for a client that asks for `name`: the best that fits and that is `usable`.
    pub fn choose(&self, name: Option<&str>, usable: impl Fn(&Pair) -> bool) -> &Pair {
        let name = name.map(str::to_ascii_lowercase);
        let rank = |pair: &&Pair| {
            let fit = name.as_deref().and_then(|name| pair.certificate.fits(name));
            let unfit = fit.is_none();
            // Sorted so that a name counts more than the order of files.
            (!usable(pair), unfit, fit)
        };
        // The first of those that are equally good.
        self.iter().min_by_key(rank).unwrap_or(&self.first)
    }
}

/// What rustls asks for a certificate.
#[derive(Debug)]
struct Served(ArcSwap<Pairs>);

impl ResolvesServerCert for Served {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pairs = self.0.load();
        let schemes = hello.signature_schemes();
        let pair = pairs.choose(hello.server_name(), |pair| {
            pair.certified.key.choose_scheme(schemes).is_some()
        });
        Some(Arc::clone(&pair.certified))
    }
}

/// The certificates and keys of this server.
pub struct TlsKeys {
    /// Held while files are read.
    files: Mutex<Vec<KeyFiles>>,
    served: Arc<Served>,
    config: Arc<ServerConfig>,
}

impl fmt::Debug for TlsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsKeys")
            .field("files", &self.files())
            .finish_non_exhaustive()
    }
}

impl TlsKeys {
    /// Reads these files.
    ///
    /// # Errors
    /// With everything that is wrong with them.
    pub fn load(files: Vec<KeyFiles>) -> Result<Self, Vec<TlsError>> {
        let mut errors = Vec::new();
        let mut pairs = Vec::new();
        for (index, files) in files.iter().enumerate() {
            match Texts::read(index, files).and_then(|texts| texts.pair(index, files)) {
                Ok(pair) => pairs.push(pair),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let pairs = collected(pairs, 0).map_err(|error| vec![error])?;
        let served = Arc::new(Served(ArcSwap::from_pointee(pairs)));
        let config = server_config(Arc::clone(&served)).map_err(|error| vec![error.into()])?;
        Ok(Self {
            files: Mutex::new(files),
            served,
            config: Arc::new(config),
        })
    }

    /// The files, in the order given.
    #[must_use]
    pub fn files(&self) -> Vec<KeyFiles> {
        self.lock().clone()
    }

    /// What is served now, a pair for each of the files.
    #[must_use]
    pub fn current(&self) -> Arc<Pairs> {
        self.served.0.load_full()
    }

    /// The generation of what is served now.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.served.0.load().generation
    }

    /// What rustls is told: TLS 1.2 and 1.3, the protocol names of RFC 7443, session tickets that
    /// take no memory here, and these certificates, whichever they are when a client comes.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The same certificates for another protocol within TLS, called so, and only for clients whom
    /// `authorities` vouch for, if there are any.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn server_config_for(
        &self,
        protocols: &[&[u8]],
        authorities: Option<Arc<RootCertStore>>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let clients = match authorities {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(authorities) => {
                let provider = Arc::new(aws_lc_rs::default_provider());
                WebPkiClientVerifier::builder_with_provider(authorities, provider)
                    .build()
                    .map_err(|error| rustls::Error::General(error.to_string()))?
            }
        };
        let mut config = client_checked(Arc::clone(&self.served), clients)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Reads the files again and serves what they hold, if that is another thing and good. Says
    /// whether it was another.
    ///
    /// # Errors
    /// When a file is bad; what was served before still is.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let files = self.lock();
        self.serve(&files)
    }

    /// Serves what `other` has read, from now on, and goes by its files. Says whether it is something
    /// else than before.
    pub fn take_over(&self, other: &Self) -> bool {
        let mut files = self.lock();
        *files = other.files();
        let (current, read) = (self.current(), other.current());
        let same = |(one, other): (&Pair, &Pair)| {
            one.chain_pem == other.chain_pem && one.key_pem == other.key_pem
        };
        let as_many = current.iter().count() == read.iter().count();
        if as_many && current.iter().zip(read.iter()).all(same) {
            return false;
        }
        self.served.0.store(Arc::new(Pairs {
            generation: current.generation + 1,
            first: read.first.clone(),
            others: read.others.clone(),
        }));
        true
    }

    fn lock(&self) -> MutexGuard<'_, Vec<KeyFiles>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, files: &[KeyFiles]) -> Result<bool, TlsError> {
        let current = self.current();
        let mut texts = Vec::new();
        for (index, files) in files.iter().enumerate() {
            texts.push(Texts::read(index, files)?);
        }
        let same = |(pair, texts): (&Pair, &Texts)| {
            pair.chain_pem == *texts.chain && pair.key_pem == texts.key
        };
        let as_many = current.iter().count() == texts.len();
        if as_many && current.iter().zip(&texts).all(same) {
            return Ok(false);
        }
        let numbered = texts.into_iter().zip(files).enumerate();
        let pairs: Result<Vec<Pair>, TlsError> = numbered
            .map(|(index, (texts, files))| texts.pair(index, files))
            .collect();
        let pairs = collected(pairs?, current.generation + 1)?;
        self.served.0.store(Arc::new(pairs));
        Ok(true)
    }
}

fn collected(pairs: Vec<Pair>, generation: u64) -> Result<Pairs, TlsError> {
    let mut pairs = pairs.into_iter();
    let first = pairs.next().ok_or(TlsError::Nothing)?;
    Ok(Pairs {
        generation,
        first,
        others: pairs.collect(),
    })
}

fn server_config(served: Arc<Served>) -> Result<ServerConfig, rustls::Error> {
    client_checked(served, WebPkiClientVerifier::no_client_auth())
}

fn client_checked(
    served: Arc<Served>,
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, rustls::Error> {
    // Not the process's default provider, which whoever comes first installs.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(served);
    // RFC 7301 §3.2: who offers other names alone is refused with no_application_protocol; who
    // offers none is served, as RFC 7443 asks it of nobody.
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    // A session's state travels with the client, so that clients fill no memory here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    // Requests of TURN are no harmless ones to repeat (RFC 8446 §8).
    config.max_early_data_size = 0;
    Ok(config)
}

/// Those whose signature makes a client's certificate good, in a file of PEM.
///
/// # Errors
/// In words, when there is none in it.
pub fn client_authorities(path: &Path) -> Result<Arc<RootCertStore>, String> {
    trusted(authorities(path)?).map(Arc::new)
}

/// The certificates of those who vouch for others, in a file of PEM.
///
/// # Errors
/// In words, when there is none in it, or one that vouches for nobody.
pub fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text =
        read(path, MAX_CHAIN).map_err(|error| format!("the file cannot be read: {error}"))?;
    let certificates = chain(&text).map_err(|(reason, _)| reason)?;
    trusted(certificates.clone())?;
    Ok(certificates)
}

fn trusted(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates {
        authorities
            .add(certificate)
            .map_err(|error| format!("one of its certificates cannot be used: {error}"))?;
    }
    Ok(authorities)
}

/// What the two files of a pair hold.
struct Texts {
    chain: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
}

impl Texts {
    fn read(pair: usize, files: &KeyFiles) -> Result<Self, TlsError> {
        let unread = |part, path: &Path, error: io::Error| TlsError::File {
            pair,
            part,
            path: path.to_owned(),
            reason: format!("the file cannot be read: {error}"),
            remedy: "name a file that this process may read",
        };
        let chain = read(&files.cert, MAX_CHAIN)
            .map_err(|error| unread(Part::Certificate, &files.cert, error))?;
        let key =
            read(&files.key, MAX_KEY).map_err(|error| unread(Part::Key, &files.key, error))?;
        Ok(Self { chain, key })
    }

    /// The pair that they are.
    fn pair(self, pair: usize, files: &KeyFiles) -> Result<Pair, TlsError> {
        let fault = |part, (reason, remedy): (String, &'static str)| TlsError::File {
            pair,
            part,
            path: match part {
                Part::Certificate => files.cert.clone(),
                Part::Key => files.key.clone(),
            },
            reason,
            remedy,
        };
        let chain = chain(&self.chain).map_err(|f| fault(Part::Certificate, f))?;
        let certificate = chain.first().and_then(|own| Certificate::parse(own));
        let certificate = certificate.ok_or_else(|| {
            fault(
                Part::Certificate,
                damaged("its first certificate is damaged"),
            )
        })?;
        let mut der = private_key(&self.key).map_err(|f| fault(Part::Key, f))?;
        let key = aws_lc_rs::sign::any_supported_type(&der);
        der.zeroize();
        let key = key.map_err(|_| {
            let reason = "no key that TLS can sign with".to_owned();
            fault(Part::Key, (reason, "use an ECDSA, Ed25519 or RSA key"))
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let reason = format!(
                    "the key does not fit the first certificate of {}",
                    escaped(&files.cert)
                );
                let remedy = "name the key that the certificate was made for; the server's own \
                              certificate stands first in its file";
                return Err(fault(Part::Key, (reason, remedy)));
            }
            Err(error) => {
                let reason = format!("its first certificate cannot be used: {error}");
                return Err(fault(Part::Certificate, damaged(&reason)));
            }
        }
        Ok(Pair {
            chain_pem: self.chain.to_vec(),
            key_pem: self.key,
            certified: Arc::new(certified),
            certificate,
        })
    }
}

/// Reads a file into memory that is made once and cleared, so that no copy of a key stays behind.
fn read(path: &Path, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Opening a pipe that nobody writes to would wait for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(limit + 1));
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    File::open(path)?.take(most + 1).read_to_end(&mut text)?;
    if text.len() > limit {
        return Err(io::Error::other(format!("longer than {limit} bytes")));
    }
    Ok(text)
}

/// Reason and remedy.
type Fault = (String, &'static str);

fn damaged(reason: &str) -> Fault {
    (
        reason.to_owned(),
        "name a PEM file with the server's own certificate first, then those above it",
    )
}

fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(damaged("the file has no certificate in PEM")),
        Ok(chain) => Ok(chain),
        Err(_) => Err(damaged("the file is not PEM, or damaged")),
    }
}

// The library's errors quote lines of the file.
fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Fault> {
    let remedy = "name a PEM file with an unencrypted private key";
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        let encrypted = text.windows(9).any(|word| word == b"ENCRYPTED");
        let reason = if encrypted {
            "the key is encrypted, and nobody is there to give its passphrase"
        } else if matches!(error, pem::Error::NoItemsFound) {
            "the file has no private key in PEM"
        } else {
            "the file is not PEM, or damaged"
        };
        (reason.to_owned(), remedy)
    })
}

fn escaped(path: &Path) -> String {
    path.to_string_lossy().escape_debug().collect()
}
