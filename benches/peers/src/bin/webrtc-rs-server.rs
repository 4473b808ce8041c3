//! The server of the `turn` crate (webrtc-rs) with REST credentials:
//! `webrtc-rs-server <ip> <port> <secret>`.
//!
//! One SO_REUSEPORT listener for each core, as its relative pion recommends; it takes the secret's
//! passwords for any user name, so that the load's are good.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use socket2::{Domain, Socket, Type};
use turn::auth::{AuthHandler, generate_auth_key};
use turn::relay::relay_static::RelayAddressGeneratorStatic;
use turn::server::Server;
use turn::server::config::{ConnConfig, ServerConfig};
use webrtc_util::vnet::net::Net;

struct Rest {
    secret: String,
}

impl AuthHandler for Rest {
    fn auth_handle(
        &self,
        username: &str,
        realm: &str,
        _client: SocketAddr,
    ) -> Result<Vec<u8>, turn::Error> {
        let mut mac = Hmac::<Sha1>::new_from_slice(self.secret.as_bytes())
            .map_err(|error| turn::Error::Other(error.to_string()))?;
        mac.update(username.as_bytes());
        let password = STANDARD.encode(mac.finalize().into_bytes());
        Ok(generate_auth_key(username, realm, &password))
    }
}

fn listener(ip: IpAddr, port: u16) -> Result<ConnConfig> {
    let address = SocketAddr::new(ip, port);
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking(),
        None,
    )?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(ConnConfig {
        conn: Arc::new(tokio::net::UdpSocket::from_std(socket.into())?),
        relay_addr_generator: Box::new(RelayAddressGeneratorStatic {
            relay_address: ip,
            address: ip.to_string(),
            net: Arc::new(Net::new(None)),
        }),
    })
}

async fn serve(ip: IpAddr, port: u16, secret: String, cores: usize) -> Result<()> {
    let listeners: Result<_> = (0..cores).map(|_| listener(ip, port)).collect();
    let config = ServerConfig {
        conn_configs: listeners?,
        realm: "bench.invalid".to_owned(),
        auth_handler: Arc::new(Rest { secret }),
        channel_bind_timeout: Duration::ZERO,
        alloc_close_notify: None,
    };
    let _server = Server::new(config).await?;
    std::future::pending().await
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .context("usage: webrtc-rs-server <ip> <port> <secret>")
    };
    let (ip, port, secret) = (next()?.parse()?, next()?.parse()?, next()?);
    let cores = available_parallelism()?.get();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .enable_all()
        .build()?;
    runtime.block_on(serve(ip, port, secret, cores))
}
