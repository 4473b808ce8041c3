//! OpenSSL's door: the few functions of its DTLS that the `openssl` crate does not wrap.
#![expect(
    unsafe_code,
    reason = "functions of libssl that no crate declares; nothing else in this directory is unsafe"
)]

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::ptr::NonNull;

use foreign_types::ForeignTypeRef;
use openssl::ssl::{SslContextBuilder, SslRef, SslStream};
use openssl::x509::X509Ref;
use openssl_sys::{SSL, SSL_CTX_ctrl};

/// `SSL_CTRL_SET_MAX_CERT_LIST` and `SSL_CTRL_CHAIN_CERT` of ssl.h.
const SET_MAX_CERT_LIST: c_int = 51;
const CHAIN_CERT: c_int = 89;
/// For `CHAIN_CERT`: take a reference of its own to the certificate.
const WITH_REFERENCE: c_long = 1;
/// An hour in microseconds, and no handshake lives that long.
const NEVER: c_uint = 3_600_000_000;

#[repr(C)]
struct BioAddr {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn BIO_ADDR_new() -> *mut BioAddr;
    fn BIO_ADDR_free(addr: *mut BioAddr);
    fn DTLSv1_listen(ssl: *mut SSL, client: *mut BioAddr) -> c_int;
    fn DTLS_set_timer_cb(ssl: *mut SSL, callback: extern "C" fn(*mut SSL, c_uint) -> c_uint);
    fn SSL_alloc_buffers(ssl: *mut SSL) -> c_int;
    fn SSL_free_buffers(ssl: *mut SSL) -> c_int;
    fn SSL_has_pending(ssl: *const SSL) -> c_int;
}

extern "C" fn never(_ssl: *mut SSL, _previous: c_uint) -> c_uint {
    NEVER
}

/// Reads a ClientHello with a cookie from the session's BIO, and prepares the session to go on
/// from there. False if there was none.
pub(super) fn listen<S>(stream: &mut SslStream<S>) -> bool {
    // SAFETY: takes nothing; null is looked at below.
    let Some(client) = NonNull::new(unsafe { BIO_ADDR_new() }) else {
        return false;
    };
    // SAFETY: both are alive and nobody else's for the time of the call; the BIO has no address
    // to give, for which libssl clears this one.
    let listened = unsafe { DTLSv1_listen(stream.ssl().as_ptr(), client.as_ptr()) };
    // SAFETY: made above, freed once, used by nobody since.
    unsafe { BIO_ADDR_free(client.as_ptr()) };
    listened > 0
}

/// Keeps libssl from retransmitting by the system's clock.
pub(super) fn stop_timer(ssl: &mut SslRef) {
    // SAFETY: the session is alive, and the callback touches nothing.
    unsafe { DTLS_set_timer_cb(ssl.as_ptr(), never) };
}

/// Gives the session its 33 KB of buffers back, if [`release_buffers`] took them.
pub(super) fn take_buffers<S>(stream: &mut SslStream<S>) -> bool {
    // SAFETY: the session is alive; with buffers in place this does nothing.
    unsafe { SSL_alloc_buffers(stream.ssl().as_ptr()) == 1 }
}

/// Frees the session's buffers unless something is in them; `SSL_MODE_RELEASE_BUFFERS` does
/// nothing for DTLS.
pub(super) fn release_buffers<S>(stream: &mut SslStream<S>) {
    // SAFETY: the session is alive. Asked because libssl before 3.0.14 freed the buffer of a
    // record that was read only in part (CVE-2024-4741).
    if unsafe { SSL_has_pending(stream.ssl().as_ptr()) } == 0 {
        // SAFETY: the session is alive, and nothing of it points into the buffers.
        unsafe { SSL_free_buffers(stream.ssl().as_ptr()) };
    }
}

/// Caps what a handshake message may be long, beyond the 17 KB of a record.
pub(super) fn cap_handshake_messages(context: &mut SslContextBuilder, len: u16) {
    // SAFETY: the context is alive, and this control takes a number and no pointer.
    unsafe {
        SSL_CTX_ctrl(
            context.as_ptr(),
            SET_MAX_CERT_LIST,
            c_long::from(len),
            std::ptr::null_mut(),
        )
    };
}

/// Adds an intermediate certificate to the chain of the certificate that was set last, so that
/// each kind of key has a chain of its own.
pub(super) fn add_to_chain(context: &mut SslContextBuilder, certificate: &X509Ref) -> bool {
    let certificate: *mut c_void = certificate.as_ptr().cast();
    // SAFETY: both are alive, and libssl takes a reference of its own to the certificate.
    let added = unsafe { SSL_CTX_ctrl(context.as_ptr(), CHAIN_CERT, WITH_REFERENCE, certificate) };
    added == 1
}
