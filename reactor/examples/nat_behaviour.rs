//! Tells what the router between this machine and a server does with UDP packets.
//!
//! `cargo run --example nat_behaviour -- 192.0.2.1:3478` asks a server of RFC 5780;
//! `cargo run --example nat_behaviour -- serve 192.0.2.1 192.0.2.2` is one, at ports 3478 and 3479 of two addresses.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use reactor::nat::behaviour::discover;
use reactor::nat::stun::{DiscoveryServer, Origins};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage =
        || io::Error::new(ErrorKind::InvalidInput, "usage: nat_behaviour SERVER | serve ADDRESS ADDRESS");
    let ip = |text: &String| text.parse::<IpAddr>().map_err(|_| usage());
    match &arguments[..] {
        [word, one, other] if word == "serve" => {
            let origins = Origins { addresses: [ip(one)?, ip(other)?], ports: [3478, 3479] };
            reactor::run(move || {
                let server = DiscoveryServer::bind(origins)?;
                println!("nat_behaviour answers at {}", server.address());
                server.serve().map(drop)
            })
        }
        [server] => {
            let server: SocketAddr = server.parse().map_err(|_| usage())?;
            let behaviour =
                reactor::run(|| discover(server)).map_err(|error| io::Error::other(error.to_string()))?;
            println!("{behaviour}");
            Ok(())
        }
        _ => Err(usage()),
    }
}
