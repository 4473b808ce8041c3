//! The relay's certificate, and the authority that vouches for it.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::{Lab, SERVICE};

/// The relay's name; the parties' hosts files know it.
pub(crate) const NAME: &str = "turn.calls.test";

/// Writes `authority.pem`, `certificate.pem` and `key.pem` into the lab's directory.
pub(crate) fn issue(lab: &Lab) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "The lab's authority");
    let authority_key = KeyPair::generate().expect("the system has entropy");
    let authority_certificate = authority
        .self_signed(&authority_key)
        .expect("an authority may sign itself");
    let authority = Issuer::new(authority, authority_key);

    let mut names = vec![NAME.to_owned()];
    names.extend(SERVICE.all().map(|address| address.to_string()));
    let key = KeyPair::generate().expect("the system has entropy");
    let certificate = CertificateParams::new(names)
        .and_then(|params| params.signed_by(&key, &authority))
        .expect("the names are names");
    for (name, content) in [
        ("authority.pem", authority_certificate.pem()),
        ("certificate.pem", certificate.pem()),
        ("key.pem", key.serialize_pem()),
    ] {
        fs::write(lab.file(name), content).expect("the lab's directory is writable");
    }
}
