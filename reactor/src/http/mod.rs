//! HTTP/1.1, RFC 9110 and 9112: pure parts first, then connections made of loops.
//!
//! The pure parts know no socket: [`RequestHead`] and [`ResponseHead`] are heads, [`BodyDecoder`] finds the end of
//! a body. [`Input`] and [`BodyReader`] join them to any [`crate::net::Duplex`].

mod body;
pub mod client;
mod head;
mod headers;
mod input;
mod request;
mod response;
mod server;

pub use body::{BodyDecoder, BodyError, BodyLimits, Part, write_chunk_size, write_last_chunk};
pub use head::{
    Framing, HEADERS_MAX, HeadError, HeadLimits, RequestHead, ResponseHead, write_request_line,
    write_status_line,
};
pub use headers::{Headers, InvalidHeader};
pub use input::{BodyReader, Input, Source};
pub use request::Request;
pub use response::Response;
pub use server::{BodyWriter, Limits, Listen, RequestBody, Secured, Server, ServerHandle, Upgraded};

pub use ::http::{Method, StatusCode};
