//! Whole connections of the reactor: what comes over them is taken apart and acted upon by the code that servers run,
//! over a stream in memory and in simulated time.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ::bytes::Bytes;
use ::reactor::cell::RefCell;
use ::reactor::http::{
    Condition, Content, ETag, Headers, Listen, Method, Ranges, Request, Response, Server, Validators,
    WebSocketLimits, evaluate, parse_ranges, websocket,
};
use ::reactor::net::{Duplex, Pipe, pipe};
use ::reactor::rpc::frame::{Header, PREFACE, Priority, Side};
use ::reactor::rpc::metadata::Block;
use ::reactor::rpc::{self, Connection, Metadata, Pool, Service, ServiceName, StreamMethod};
use ::reactor::sim::{self, SimConfig};

use crate::Target;

/// What a stream in memory holds.
const CAPACITY_BYTES: usize = 16 << 10;

/// Runs `main` in a simulated world, where waiting takes no time.
fn in_a_world<T: Send>(main: impl FnOnce() -> T + Send) -> T {
    sim::run(0, SimConfig::default(), |_| main())
}

/// Says `data` in two pieces and ends, while whatever comes is read to its end.
fn talk(peer: &Pipe, data: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    ::reactor::scope(|s| {
        s.spawn(|| {
            let (first, second) = data.split_at(data.len() / 2);
            // The other end may hang up at any point.
            for piece in [first, second] {
                let _ = peer.write_slices(&mut [IoSlice::new(piece)]);
                ::reactor::yield_now();
            }
            let _ = peer.end();
        });
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = peer.read_some(&mut buffer) {
            heard.extend_from_slice(&buffer[..count]);
        }
    });
    heard
}

/// A method that answers with what it is asked, at once and later.
struct Echo<const INLINE: bool>;
impl<const INLINE: bool> rpc::Method for Echo<INLINE> {
    const ID: u32 = if INLINE { 1 } else { 2 };
    const NAME: &'static str = "echo";
    const INLINE: bool = INLINE;
    type Request = Option<Vec<u64>>;
    type Response = Option<Vec<u64>>;
    type Error = String;
}

/// One that is at work until the connection ends.
struct Hang;
impl rpc::Method for Hang {
    const ID: u32 = 3;
    const NAME: &'static str = "hang";
    type Request = ();
    type Response = ();
    type Error = String;
}

/// One that takes short requests only.
struct Short;
impl rpc::Method for Short {
    const ID: u32 = 5;
    const NAME: &'static str = "short";
    const REQUEST_SIZE_BYTES_MAX: Option<usize> = Some(4);
    type Request = ();
    type Response = ();
    type Error = String;
}

/// One that gives back each item that it is given.
struct Mirror;
impl rpc::Method for Mirror {
    const ID: u32 = 4;
    const NAME: &'static str = "mirror";
    type Request = ();
    type Response = ();
    type Error = String;
}
impl StreamMethod for Mirror {
    type Up = Vec<u32>;
    type Down = Vec<u32>;
}

fn service() -> Rc<Service> {
    let mut service = Service::new();
    service.on::<Echo<true>>(|context, value, payload| {
        // What a handler may do with the caller's metadata, however that came.
        for (key, value) in context.metadata.iter() {
            assert!(!key.is_empty() && context.metadata.get(key) == Some(value));
            let _ = context.answer_with(key, value);
        }
        assert_eq!(context.answer_metadata(), context.metadata, "what came can be sent back");
        Ok((value, payload))
    });
    service.on::<Short>(|_, (), _| Ok(((), Bytes::new())));
    let mut other = Service::new();
    other.on::<Echo<true>>(|_, value, payload| Ok((value, payload)));
    service.share(ServiceName::from_static("other"), Rc::new(other));
    service.on::<Echo<false>>(|_, value, payload| {
        ::reactor::yield_now();
        Ok((value, payload))
    });
    service.on::<Hang>(|context, (), payload| {
        context.draining().wait();
        Ok(((), payload))
    });
    service.on_stream::<Mirror>(|context, (), items, out| {
        let _ = context.answer_with("mirror", context.metadata.get("id").unwrap_or_default());
        while let Ok(Some(item)) = items.recv() {
            if out.send(&item).is_err() {
                break;
            }
        }
        Ok(())
    });
    Rc::new(service)
}

/// A whole connection of RPC: whatever is said, it ends, and gives back all that it was charged.
pub const RPC_CONNECTION: Target = Target {
    name: "rpc_connection",
    body: |data| {
        in_a_world(|| {
            let pool = Pool::new(1 << 30);
            let (near, peer) = pipe(CAPACITY_BYTES);
            let config = rpc::Config { pool: pool.clone(), ..rpc::Config::default() };
            let connection = Connection::start(near, service(), config);
            talk(&peer, data);
            connection.wait_closed();
            drop(connection);
            // Handlers unwind at their next turn.
            for _ in 0..3 {
                ::reactor::yield_now();
            }
            assert_eq!(pool.taken_bytes(), 0, "it keeps what others could have");
        });
    },
    seeds: || {
        let priority = Priority::Normal;
        let request = |call, method, message: &[u8], payload: &[u8]| {
            let (message_size, payload_size) = (message.len() as u32, payload.len() as u32);
            let header = Header::Request {
                call,
                method,
                timeout_ms: 1_000,
                metadata_size: 0,
                message_size,
                payload_size,
                priority,
            };
            [&header.encode()[..], message, payload].concat()
        };
        let open = Header::Open {
            call: 9,
            method: 4,
            timeout_ms: 1_000,
            metadata_size: 0,
            message_size: 1,
            priority,
        };
        let item = Header::Item { side: Side::Request, call: 9, size: 3 };
        let credit = Header::Credit { side: Side::Response, call: 9, bytes: 100 };
        // Of version 2: its announcement, and what it says of itself.
        let meet = [
            &Header::Cancel { call: 0xffff_0002 }.encode()[..],
            &Header::Hello { message_size: 3 }.encode(),
            b"\x92\x02\x0f",
        ];
        let calls = [
            PREFACE.to_vec(),
            meet.concat(),
            request(1, 1, b"\x93\x01\x02\x03", b"payload"),
            request(2, 2, b"\xc0", b""),
            request(3, 3, b"\xc0", b""),
            Header::Ping.encode().to_vec(),
            Header::Cancel { call: 3 }.encode().to_vec(),
        ];
        let stream = [
            &PREFACE[..],
            &meet.concat(),
            &open.encode(),
            b"\xc0",
            &item.encode(),
            b"\x92\x01\x02",
            &credit.encode(),
            &Header::End { call: 9 }.encode(),
            &Header::Drain.encode(),
        ];
        // Of version 3: a request and an opening with metadata, one for another service, one that is too long.
        let metadata = Metadata::new().with("id", "7").and_then(|metadata| metadata.with("token", b"\xff"));
        let metadata = metadata.expect("it is short");
        let with_block = |call, method, block: &[u8]| {
            let header = Header::Request {
                call,
                method,
                timeout_ms: 1_000,
                metadata_size: block.len() as u16,
                message_size: 1,
                payload_size: 5,
                priority,
            };
            [&header.encode()[..], block, b"\xc0", b"12345"].concat()
        };
        let other = Block::encode(&ServiceName::from_static("other"), &metadata);
        let own = Block::encode(&ServiceName::default(), &metadata);
        let block_size = own.len() as u16;
        let open_with = Header::Open {
            call: 9,
            method: 4,
            timeout_ms: 1_000,
            metadata_size: block_size,
            message_size: 1,
            priority,
        };
        let version_3 = [
            &PREFACE[..],
            &Header::Cancel { call: 0xffff_0003 }.encode(),
            &Header::Hello { message_size: 3 }.encode(),
            b"\x92\x03\x1f",
            &with_block(1, 1, &own),
            &with_block(2, 1, &other),
            &with_block(3, 1, &Block::encode(&ServiceName::from_static("nobody"), &metadata)),
            &with_block(4, 5, &own),
            &open_with.encode(),
            &own,
            b"\xc0",
            &Header::End { call: 9 }.encode(),
        ];
        let goodbye = [&PREFACE[..], &request(1, 3, b"\xc0", b""), &Header::Goodbye.encode()];
        vec![calls.concat(), stream.concat(), version_3.concat(), goodbye.concat()]
    },
};

/// A listener with one client.
struct One(Cell<Option<Pipe>>);

impl Listen for One {
    type Incoming = Pipe;
    type Stream = Pipe;

    fn accept(&self) -> io::Result<(Pipe, Option<SocketAddr>)> {
        match self.0.take() {
            Some(client) => Ok((client, None)),
            None => {
                ::reactor::sleep(Duration::MAX);
                Err(io::ErrorKind::NotFound.into())
            }
        }
    }

    fn open(&self, client: Pipe) -> io::Result<Pipe> {
        Ok(client)
    }
}

/// Looks at all that a handler may ask of a request.
fn look(request: &mut Request<'_>) -> io::Result<Response> {
    let _ = request.query_as::<u32>("n");
    if let Ok(pairs) = request.query_pairs() {
        assert!(pairs.iter().all(|(name, _)| pairs.get(name).is_some()));
    }
    let _ = request.param_as::<i64>("id");
    let _ = (request.query_value("a"), request.cookie("a"), request.peer());
    let content =
        Content::from_bytes("text/plain", "some text that may be sent in parts, or made smaller".repeat(40));
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let tag = ETag::strong("v1").ok_or(io::ErrorKind::InvalidInput)?;
    Ok(content.etag(tag).last_modified(changed).compressible(true).respond(request))
}

fn server() -> Server {
    Server::new()
        .route(Method::GET, "/look/{id}", look)
        .route(Method::POST, "/form", |request| match request.form(1 << 12) {
            Ok(pairs) => Response::from(pairs.iter().count().to_string()),
            Err(refusal) => refusal.into(),
        })
        .route(Method::POST, "/json", |request| match request.json::<Vec<Option<String>>>(1 << 12) {
            Ok(values) => Response::json_of(&values),
            Err(refusal) => refusal.into(),
        })
        .route(Method::PUT, "/echo", |request| -> io::Result<Response> {
            Ok(request.read_body(1 << 14)?.into())
        })
        .route(Method::GET, "/socket", |request| {
            websocket(
                request,
                WebSocketLimits { message_bytes: 1 << 12, ..WebSocketLimits::default() },
                |socket| {
                    while let Some(message) = socket.recv()? {
                        socket.send(message)?;
                    }
                    Ok(())
                },
            )
        })
}

/// What our server answers to `data`, which is all that a client says.
fn answers(data: &[u8]) -> Vec<u8> {
    let (client, peer) = pipe(CAPACITY_BYTES);
    let running = server().start(One(Cell::new(Some(client))));
    let heard = RefCell::new(talk(&peer, data));
    assert_eq!(running.drain(Duration::from_secs(3600)), 0, "the connection does not end");
    heard.take()
}

/// A whole connection of HTTP, and of WebSocket inside: whatever is said, it ends, and what is answered is HTTP.
pub const HTTP_CONNECTION: Target = Target {
    name: "http_connection",
    body: |data| {
        let heard = in_a_world(|| answers(data));
        assert!(heard.is_empty() || heard.starts_with(b"HTTP/1.1 "), "{}", heard.escape_ascii());
    },
    seeds: || {
        let text = |text: &str| text.replace('\n', "\r\n").into_bytes();
        let upgrade = text(
            "GET /socket HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n",
        );
        // Masked with zeros: a text in two frames with a ping between them, and a close.
        let frames = b"\x01\x82\0\0\0\0he\x89\x80\0\0\0\0\x80\x83\0\0\0\0llo\x88\x82\0\0\0\0\x03\xe8";
        vec![
            text(
                "GET /look/7?n=5&a=b+c%21 HTTP/1.1\nHost: h\nRange: bytes=0-9,20-\nCookie: a=b; c=\"d\"\n\n",
            ),
            text("GET /look/x HTTP/1.1\nHost: h\nIf-None-Match: W/\"v1\"\nAccept-Encoding: gzip;q=0.5\n\n"),
            text(
                "POST /form HTTP/1.1\nHost: h\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 7\n\na=b&c=d",
            ),
            text(
                "POST /json HTTP/1.1\nHost: h\nContent-Type: application/json\nContent-Length: 9\n\n[\"a\",null]",
            ),
            text(
                "PUT /echo HTTP/1.1\nHost: h\nExpect: 100-continue\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\nGET / HTTP/1.0\n\n",
            ),
            [&upgrade[..], frames].concat(),
        ]
    },
};

/// Fields of a request that hold values of their own, a line each: query, ranges, conditions, codings, cookies. Taken apart
/// they keep their promises, and a server answers them.
pub const HTTP_VALUES: Target = Target {
    name: "http_values",
    body: |data| {
        let mut lines = data.split(|&byte| byte == b'\n');
        let query = lines.next().unwrap_or_default();
        let mut headers = Headers::new();
        let names = [
            "Range",
            "If-Range",
            "If-Match",
            "If-None-Match",
            "If-Modified-Since",
            "Accept-Encoding",
            "Cookie",
        ];
        for (name, value) in names.into_iter().zip(lines) {
            // What can't stand in a field is refused, and left out.
            let _ = headers.push(name, value);
        }
        for size in [0, 1, 1_000, u64::MAX] {
            if let Ranges::Parts(parts) = parse_ranges(&headers, size) {
                assert!(
                    !parts.is_empty() && parts.iter().all(|part| part.start < part.end && part.end <= size)
                );
                let total = parts.iter().map(|part| u128::from(part.end - part.start)).sum::<u128>();
                assert!(total <= u128::from(size), "more than there is: {parts:?}");
            }
        }
        let stored = Validators { etag: ETag::strong("v1"), last_modified: None };
        if evaluate(&Method::PUT, &headers, &stored) == Condition::NotModified {
            panic!("what changes something is not answered with 304");
        }
        let query: Vec<u8> = query.iter().copied().filter(u8::is_ascii_graphic).collect();
        let mut request =
            [&b"GET /look/1?"[..], &query, b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"].concat();
        for (name, value) in headers.iter() {
            request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        request.extend_from_slice(b"\r\n");
        let heard = in_a_world(|| answers(&request));
        assert!(heard.starts_with(b"HTTP/1.1 "), "{}", heard.escape_ascii());
    },
    seeds: || {
        vec![
            b"n=5&a=b+c%21&a=%zz\nbytes=0-9,20-,-5\n\"v1\"\n*\nW/\"v1\", \"v2\"\nSun, 06 Nov 1994 08:49:37 GMT\n\
              gzip;q=0.5, br, *;q=0\na=b; c=\"d\""
                .to_vec(),
            b"\nbytes=99999999999999999999-\nSun, 09 Sep 2001 01:46:40 GMT\n\"v1\"".to_vec(),
        ]
    },
};
