//! HTTP/1.1, RFC 9110 and 9112: pure parts first, then connections made of loops.
//!
//! The pure parts know no socket: [`RequestHead`] and [`ResponseHead`] are heads, [`BodyDecoder`] finds the end of
//! a body, [`evaluate`] and [`parse_ranges`] read conditions and ranges. [`Input`] and [`BodyReader`] join them to
//! any [`crate::net::Duplex`].
//!
//! A [`Server`] has a coroutine for each connection and calls handlers, which are ordinary functions: they read the
//! request's body as it comes and return a [`Response`], whose body may be a stream, a file ([`Files`]), events
//! ([`events`]) or the beginning of a WebSocket ([`websocket`]).
//!
//! A [`client::Client`] asks other servers: over connections that it keeps, through redirects, proxies and TLS.
//!
//! Where laxity is a hole it is strict: what two servers could read differently is refused, no value can inject a
//! header, no path leads out of its directory, and everything that a client controls is bounded ([`Limits`]).
//!
//! What many handlers have in common goes into layers around them ([`Server::layer`], [`Group`]); what they take out of
//! a request is typed, or a [`Refusal`]. A form with files is read part by part ([`Multipart`]).
//!
//! What it is not: templates, sessions, or HTTP/2 and 3. The codec of HTTP/2 that others build on, `h2`, reads and writes
//! through tokio's traits; those without I/O of their own that could be found (in November 2026) were younger than a
//! year and used by hardly anybody, which is too little for what strangers' bytes go through. A proxy that speaks HTTP/2
//! to browsers, nginx say, speaks HTTP/1.1 to servers behind it.

mod body;
pub mod client;
mod conditional;
mod content;
mod cookies;
mod cors;
mod dump_page;
mod events;
mod extract;
mod files;
mod head;
mod headers;
mod input;
mod multipart;
mod range;
mod refusal;
mod request;
mod request_id;
mod response;
mod server;
#[cfg(feature = "websocket")]
mod websocket;

pub use body::{BodyDecoder, BodyError, BodyLimits, Part, write_chunk_size, write_last_chunk};
pub use conditional::{Condition, ETag, Validators, evaluate};
pub use content::Content;
pub use cookies::{Cookie, SameSite};
pub use cors::Cors;
pub use dump_page::dump_page;
pub use events::{Event, EventWriter, events};
pub use extract::Pairs;
pub use files::Files;
pub use head::{
    Framing, HEADERS_MAX, HeadError, HeadLimits, RequestHead, ResponseHead, write_request_line,
    write_status_line,
};
pub use headers::{Headers, InvalidHeader};
pub use input::{BodyReader, Input, Source};
pub use multipart::{
    FormPart, Multipart, MultipartDecoder, MultipartError, MultipartLimits, MultipartPiece, PartHead,
};
pub use range::{Ranges, parse_ranges};
pub use refusal::Refusal;
pub use request::Request;
pub use request_id::{REQUEST_ID, request_id};
pub use response::Response;
pub use server::{
    Answered, BodyWriter, Group, Limits, Listen, Next, RequestBody, Secured, Server, ServerHandle, Upgraded,
};
#[cfg(feature = "websocket")]
pub use websocket::{Message, WebSocket, WebSocketLimits, websocket};

pub use ::http::{Method, StatusCode};
