//! The wire format, seen from outside: published vectors, properties, another implementation as
//! oracle, and the bodies of the fuzz targets on seeded random bytes.
#![expect(
    clippy::unwrap_used,
    reason = "helpers outside of #[test] functions are tests too"
)]

mod differential;
mod fuzz_bodies;
mod fuzz_smoke;
mod generate;
mod oracle;
mod properties;
mod proxy_header;
mod rfc_vectors;
