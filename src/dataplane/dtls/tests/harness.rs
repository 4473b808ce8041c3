//! What the tests and the fuzz target share: certificates, an OpenSSL client in memory, and a
//! world in which datagrams go where the test says. `crate::dataplane` and `crate::turn` are
//! taciturn's in both.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef, SslStream,
    SslVersion,
};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

use crate::dataplane::dtls::{Dtls, DtlsContext, Identity, Idle, Limits, Received};
use crate::turn::{ClientAddr, Tick};

/// A certificate authority or a server: its certificate, key, and chain in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
    chain: Vec<u8>,
}

impl Issued {
    /// A certificate for `name` and its key, signed by `issuer` or by itself.
    pub(crate) fn new(name: &str, key: PKey<Private>, issuer: Option<&Self>) -> Self {
        let mut subject = X509NameBuilder::new().unwrap();
        subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
        let subject = subject.build();
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        let serial = BigNum::from_u32(u32::try_from(name.len()).unwrap()).unwrap();
        let serial = serial.to_asn1_integer().unwrap();
        builder.set_serial_number(&serial).unwrap();
        builder.set_subject_name(&subject).unwrap();
        let issuer_name = issuer.map_or(&*subject, |it| it.certificate.subject_name());
        builder.set_issuer_name(issuer_name).unwrap();
        builder.set_pubkey(&key).unwrap();
        let (from, to) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(2));
        builder.set_not_before(&from.unwrap()).unwrap();
        builder.set_not_after(&to.unwrap()).unwrap();
        if name.contains('.') {
            let context = builder.x509v3_context(None, None);
            let names = SubjectAlternativeName::new().dns(name).build(&context);
            builder.append_extension(names.unwrap()).unwrap();
        } else {
            let authority = BasicConstraints::new().critical().ca().build().unwrap();
            builder.append_extension(authority).unwrap();
        }
        let signer = issuer.map_or(&key, |it| &it.key);
        builder.sign(signer, MessageDigest::sha256()).unwrap();
        let certificate = builder.build();
        let mut chain = certificate.to_pem().unwrap();
        // A root is not sent.
        if let Some(issuer) = issuer
            && issuer.is_intermediate()
        {
            chain.extend_from_slice(&issuer.chain);
        }
        Self {
            certificate,
            key,
            chain,
        }
    }

    fn is_intermediate(&self) -> bool {
        let (subject, issuer) = (
            self.certificate.subject_name(),
            self.certificate.issuer_name(),
        );
        subject.try_cmp(issuer).unwrap().is_ne()
    }

    pub(crate) fn pem(&self) -> (Vec<u8>, Vec<u8>) {
        let key = self.key.private_key_to_pem_pkcs8().unwrap();
        (self.chain.clone(), key)
    }
}

pub(crate) fn ecdsa() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

pub(crate) fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

pub(crate) fn context(servers: &[&Issued]) -> Arc<DtlsContext> {
    let pem: Vec<_> = servers.iter().map(|server| server.pem()).collect();
    let identities: Vec<_> = pem
        .iter()
        .map(|(chain, key)| Identity { chain, key })
        .collect();
    Arc::new(DtlsContext::new(&identities).unwrap())
}

/// A server with a certificate of its own making, for tests that do not look at it.
pub(crate) fn plain_context() -> Arc<DtlsContext> {
    static CONTEXT: OnceLock<Arc<DtlsContext>> = OnceLock::new();
    let make = || context(&[&Issued::new("plain.test", ecdsa(), None)]);
    Arc::clone(CONTEXT.get_or_init(make))
}

pub(crate) fn address(host: u8, port: u16) -> ClientAddr {
    ClientAddr::new(SocketAddr::from(([192, 0, 2, host], port)))
}

/// Datagrams in both directions.
#[derive(Debug, Default)]
struct Queue {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

impl Read for Queue {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.pop_front();
        let datagram = datagram.ok_or(io::ErrorKind::WouldBlock)?;
        buf[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

impl Write for Queue {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.outgoing.push(buf.to_vec());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a client is with its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shaken {
    Waiting,
    Done,
    /// OpenSSL's words for it.
    Failed(String),
}

fn client_context() -> SslContextBuilder {
    let mut builder = SslContext::builder(SslMethod::dtls_client()).unwrap();
    builder.set_options(SslOptions::NO_QUERY_MTU);
    builder
}

/// A client of OpenSSL's.
pub(crate) struct Client {
    pub(crate) addr: ClientAddr,
    stream: SslStream<Queue>,
}

impl Client {
    /// A client that accepts every certificate.
    pub(crate) fn new(addr: ClientAddr) -> Self {
        static CONTEXT: OnceLock<SslContext> = OnceLock::new();
        let context = CONTEXT.get_or_init(|| client_context().build());
        Self::of(addr, "plain.test", context)
    }

    /// A client that asks for the server `name`.
    pub(crate) fn with(
        addr: ClientAddr,
        name: &str,
        configure: impl FnOnce(&mut SslContextBuilder),
    ) -> Self {
        let mut builder = client_context();
        configure(&mut builder);
        Self::of(addr, name, &builder.build())
    }

    fn of(addr: ClientAddr, name: &str, context: &SslContext) -> Self {
        let mut ssl = Ssl::new(context).unwrap();
        // RFC 6066 §3: an address is no name to ask for.
        if name.parse::<IpAddr>().is_err() {
            ssl.set_hostname(name).unwrap();
            ssl.param_mut().set_host(name).unwrap();
        }
        ssl.set_connect_state();
        ssl.set_mtu(1_200).unwrap();
        let stream = SslStream::new(ssl, Queue::default()).unwrap();
        Self { addr, stream }
    }

    /// One that speaks nothing later than DTLS 1.0.
    pub(crate) fn old(addr: ClientAddr) -> Self {
        Self::with(addr, "plain.test", |builder| {
            builder.set_min_proto_version(None).unwrap();
            builder
                .set_max_proto_version(Some(SslVersion::DTLS1))
                .unwrap();
            builder.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
        })
    }

    /// Takes a datagram.
    pub(crate) fn receive(&mut self, datagram: &[u8]) {
        let queue = self.stream.get_mut();
        queue.incoming.push_back(datagram.to_vec());
    }

    /// Goes on with the handshake.
    pub(crate) fn shake(&mut self) -> Shaken {
        match self.stream.do_handshake() {
            Ok(()) => Shaken::Done,
            Err(error) if error.code() == ErrorCode::WANT_READ => Shaken::Waiting,
            Err(error) => Shaken::Failed(error.to_string()),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.stream.ssl().is_init_finished()
    }

    /// The datagrams it sends.
    pub(crate) fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.stream.get_mut().outgoing)
    }

    /// Seals application data.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.stream.ssl_write(plain).unwrap();
        self.sent().concat()
    }

    /// Seals application data, unless the session is at its end.
    pub(crate) fn try_seal(&mut self, plain: &[u8]) -> bool {
        self.stream.ssl_write(plain).is_ok()
    }

    /// All application data that it got; `None` at the end if the server said goodbye.
    pub(crate) fn open(&mut self) -> Vec<Option<Vec<u8>>> {
        let mut plain = [0; 1 << 14];
        let mut all = Vec::new();
        loop {
            match self.stream.ssl_read(&mut plain) {
                Ok(len) => all.push(Some(plain[..len].to_vec())),
                Err(error) if error.code() == ErrorCode::WANT_READ => return all,
                Err(_) => {
                    all.push(None);
                    return all;
                }
            }
        }
    }

    /// Its goodbye.
    pub(crate) fn goodbye(&mut self) -> Vec<u8> {
        let _sent = self.stream.shutdown().unwrap();
        self.sent().concat()
    }

    pub(crate) fn certificate(&self) -> X509 {
        self.stream.ssl().peer_certificate().unwrap()
    }

    pub(crate) fn ssl(&self) -> &SslRef {
        self.stream.ssl()
    }
}

/// A server, and what it sent, opened and closed.
pub(crate) struct World {
    pub(crate) dtls: Dtls,
    pub(crate) now: Tick,
    pub(crate) sent: Vec<(ClientAddr, Vec<u8>)>,
    pub(crate) plain: Vec<(ClientAddr, Vec<u8>)>,
    pub(crate) closed: Vec<ClientAddr>,
    /// How much `Dtls::read` is offered.
    pub(crate) room: usize,
    limits: Limits,
}

impl World {
    pub(crate) fn new(context: Arc<DtlsContext>, limits: Limits) -> Self {
        Self {
            dtls: Dtls::new(context, [7; 32], limits),
            now: Tick::from_nanos(3_600_000_000_000),
            sent: Vec::new(),
            plain: Vec::new(),
            closed: Vec::new(),
            room: 1 << 14,
            limits,
        }
    }

    pub(crate) fn plain() -> Self {
        Self::new(plain_context(), Limits::default())
    }

    /// A datagram reaches the server, which is then asked for all there is to ask.
    pub(crate) fn deliver(&mut self, from: ClientAddr, datagram: &[u8]) -> Received {
        let sent = &mut self.sent;
        let mut out = |to, datagram: &[u8]| sent.push((to, datagram.to_vec()));
        let received = self.dtls.receive(from, datagram, self.now, &mut out);
        let mut plain = vec![0; self.room];
        while let Some(len) = self.dtls.read(&mut plain, &mut out) {
            assert_eq!(received, Received::Readable);
            self.plain.push((from, plain[..len].to_vec()));
        }
        self.settle();
        received
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, span: Duration, idle: Idle) {
        self.now = self.now.plus(span);
        while self.dtls.poll_timeout().is_some_and(|at| at <= self.now) {
            let sent = &mut self.sent;
            let mut out = |to, datagram: &[u8]| sent.push((to, datagram.to_vec()));
            self.dtls
                .handle_timeout(self.now, &mut |_client| idle, &mut out);
        }
        self.settle();
    }

    pub(crate) fn send(&mut self, to: ClientAddr, parts: &[&[u8]]) -> bool {
        let sent = &mut self.sent;
        let mut out = |to, datagram: &[u8]| sent.push((to, datagram.to_vec()));
        let done = self.dtls.send(to, parts, &mut out).is_ok();
        self.settle();
        done
    }

    pub(crate) fn close(&mut self, client: ClientAddr) {
        let sent = &mut self.sent;
        let mut out = |to, datagram: &[u8]| sent.push((to, datagram.to_vec()));
        self.dtls.close(client, &mut out);
        self.settle();
    }

    fn settle(&mut self) {
        self.closed
            .extend(std::iter::from_fn(|| self.dtls.take_closed()));
        // A look at every session; with thousands of them a test would do nothing else.
        if self.dtls.len() <= 200 {
            assert_eq!(self.dtls.check_invariants(), Ok(()));
        }
        assert!(self.dtls.len() <= self.limits.sessions);
        assert!(self.dtls.half_open() <= self.limits.half_open);
    }

    /// What was sent to `client` since this was last asked.
    pub(crate) fn sent_to(&mut self, client: ClientAddr) -> Vec<Vec<u8>> {
        let (own, others) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(to, _)| *to == client);
        self.sent = others;
        own.into_iter().map(|(_, datagram)| datagram).collect()
    }

    /// Lets a client and the server speak until neither has anything more to say.
    pub(crate) fn shake(&mut self, client: &mut Client) -> Shaken {
        loop {
            let shaken = client.shake();
            let said = client.sent();
            for datagram in &said {
                self.deliver(client.addr, datagram);
            }
            let answers = self.sent_to(client.addr);
            for datagram in &answers {
                client.receive(datagram);
            }
            if answers.is_empty() {
                return shaken;
            }
        }
    }

    /// A client that has finished its handshake.
    pub(crate) fn connect(&mut self, addr: ClientAddr) -> Client {
        let mut client = Client::new(addr);
        assert_eq!(self.shake(&mut client), Shaken::Done);
        client
    }

    /// Whether application data passes in both directions.
    pub(crate) fn passes(&mut self, client: &mut Client) -> bool {
        self.plain.clear();
        let sealed = client.seal(b"there");
        self.deliver(client.addr, &sealed);
        let there = self.plain == [(client.addr, b"there".to_vec())];
        if !self.send(client.addr, &[b"ba", b"", b"ck"]) {
            return false;
        }
        for datagram in self.sent_to(client.addr) {
            client.receive(&datagram);
        }
        there && client.open() == [Some(b"back".to_vec())]
    }
}
