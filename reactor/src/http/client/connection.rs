//! One connection of a client: how it is opened, and how an idle one is known to be dead.

use std::io;
use std::net::Ipv6Addr;
use std::rc::Rc;

use http::{Method, StatusCode};
use url::{Host, Url};

use super::proxy::Proxy;
use super::{ClientError, Phase};
use crate::http::{HeadLimits, Headers, Input, ResponseHead, write_request_line};
use crate::net::tls::{self, CertifiedStream};
use crate::net::{Duplex, TcpStream};

/// A connection and what it has read ahead.
pub(super) struct Connection {
    /// Shared with whoever writes to it while its answer is read.
    stream: Rc<Stream>,
    pub(super) input: Input,
}

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<CertifiedStream>),
}

impl Stream {
    pub(super) fn duplex(&self) -> &dyn Duplex {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &**stream,
        }
    }
}

/// How a request goes through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    /// The proxy reads it, and asks for us.
    Asking,
    /// The proxy passes bytes on.
    Tunnel,
}

/// What connections in the pool are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Server {
    is_tls: bool,
    host: String,
    port: u16,
    proxy: Option<(String, u16, Option<String>)>,
}

impl Server {
    pub(super) fn new(url: &Url, proxy: Option<&Proxy>) -> Result<Server, ClientError> {
        let bad = || ClientError::InvalidUrl(format!("{url} names no host"));
        Ok(Server {
            is_tls: url.scheme() == "https",
            host: url.host_str().ok_or_else(bad)?.to_owned(),
            port: url.port_or_known_default().ok_or_else(bad)?,
            proxy: proxy.map(|proxy| (proxy.host.clone(), proxy.port, proxy.authorization.clone())),
        })
    }
}

impl Connection {
    /// The parts that a reader and a writer use at once.
    pub(super) fn split(&mut self) -> (&dyn Duplex, &mut Input) {
        (self.stream.duplex(), &mut self.input)
    }

    pub(super) fn duplex(&self) -> &dyn Duplex {
        self.stream.duplex()
    }

    /// For whoever writes to it meanwhile.
    pub(super) fn share(&self) -> Rc<Stream> {
        self.stream.clone()
    }

    /// The stream as it is, and what was read ahead of it; for another protocol. `None` while somebody writes to it.
    pub(super) fn into_stream(mut self) -> Option<(Box<dyn Duplex>, Vec<u8>)> {
        let ahead = self.input.take();
        Some(match Rc::into_inner(self.stream)? {
            Stream::Plain(stream) => (Box::new(stream), ahead),
            Stream::Tls(stream) => (stream, ahead),
        })
    }

    /// Whether nothing has come since the last answer: neither an end nor bytes that nobody asked for. Never suspends.
    pub(super) fn is_quiet(&self) -> bool {
        self.input.bytes().is_empty()
            && match &*self.stream {
                Stream::Plain(stream) => stream.is_quiet(),
                Stream::Tls(stream) => stream.is_quiet() && stream.get_ref().is_quiet(),
            }
    }

    /// Opens a connection for a request to `url`. Suspends until it stands, TLS and all.
    pub(super) fn open(
        url: &Url,
        proxy: Option<(&Proxy, Through)>,
        tls: Option<&tls::Client>,
        limits: &HeadLimits,
    ) -> Result<Connection, ClientError> {
        let host = url.host().ok_or_else(|| ClientError::InvalidUrl(format!("{url} names no host")))?;
        let host = host_name(&host);
        let port = url.port_or_known_default().unwrap_or(80);
        let unreachable = |name: &str, port: u16| {
            let server = format!("{name}:{port}");
            move |source| ClientError::Connect { server, source }
        };
        let stream = match proxy {
            None => TcpStream::connect((&*host, port)).map_err(unreachable(&host, port))?,
            Some((proxy, through)) => {
                let stream = TcpStream::connect((&*proxy.host, proxy.port));
                let stream = stream.map_err(unreachable(&proxy.host, proxy.port))?;
                if through == Through::Tunnel {
                    open_tunnel(&stream, url, port, proxy, limits)?;
                }
                stream
            }
        };
        let stream = match tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let stream = tls.connect(stream, &host).map_err(unreachable(&host, port))?;
                Stream::Tls(Box::new(stream))
            }
        };
        Ok(Connection { stream: Rc::new(stream), input: Input::new() })
    }
}

/// The host as names are looked up and certificates written: an IPv6 address without its brackets.
fn host_name(host: &Host<&str>) -> String {
    match host {
        Host::Domain(name) => (*name).to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => Ipv6Addr::to_string(address),
    }
}

/// Asks the proxy for a tunnel to the server of `url` (RFC 9110, section 9.3.6).
fn open_tunnel(
    stream: &TcpStream,
    url: &Url,
    port: u16,
    proxy: &Proxy,
    limits: &HeadLimits,
) -> Result<(), ClientError> {
    let authority = format!("{}:{port}", url.host_str().unwrap_or_default());
    let mut wire = Vec::new();
    write_request_line(&mut wire, &Method::CONNECT, &authority)?;
    let mut headers = Headers::new();
    headers.push("Host", &authority)?;
    if let Some(authorization) = &proxy.authorization {
        headers.push("Proxy-Authorization", authorization)?;
    }
    headers.write(&mut wire);
    wire.extend_from_slice(b"\r\n");
    let failed = |source: io::Error| ClientError::Io { phase: Phase::Connect, source };
    stream.write_slices(&mut [io::IoSlice::new(&wire)]).map_err(failed)?;
    let mut input = Input::new();
    let mut head = ResponseHead::new();
    loop {
        if let Some(size) = head.parse(input.bytes(), limits)? {
            input.consume(size);
            // Interim answers may come before the one that counts.
            if !head.status().is_informational() {
                break;
            }
        } else if !input.fill(stream as &dyn Duplex).map_err(failed)? {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    match head.status() {
        status if !status.is_success() => Err(ClientError::ProxyRefused(status)),
        // In TLS the client speaks first: whatever is here already is not the server's.
        _ if !input.bytes().is_empty() => Err(ClientError::ProxyRefused(StatusCode::BAD_GATEWAY)),
        _ => Ok(()),
    }
}
