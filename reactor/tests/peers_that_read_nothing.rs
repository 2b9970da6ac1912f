//! A peer that reads nothing holds up nobody's end: over TLS an end takes room like any other word, and such a peer need not give any.
//!
//! What was written before leaves exactly as much room as the peer likes, so answers of all sizes are tried: behind one of
//! them the window closes. Ends once waited there outside of every limit, for as long as the peer answered the kernel.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::crypto::{Identity, PublicKey};
use reactor::http::{Limits, Method, Server, ServerHandle, WebSocket, WebSocketLimits, websocket};
use reactor::net::tls::{self, Expect, TlsStream};
use reactor::net::{Duplex, Pipe, pipe};
use reactor::sync::{Receiver, Sender, channel};
use reactor::{run, sleep, spawn, timeout};

/// What should never take so long, even on a machine that is busy; a hang fails by it.
const PATIENCE: Duration = Duration::from_secs(100);

/// How long the peer is borne.
const BORNE: Duration = Duration::from_millis(50);

/// What a stream holds, and a little more than that: sizes of what is said before the end.
const HELD_BYTES: usize = 600;

/// TLS over streams in memory that are given to a server one by one.
struct Given(Receiver<Pipe>, Rc<Identity>);

impl reactor::http::Listen for Given {
    type Incoming = Pipe;
    type Stream = TlsStream<Pipe>;

    fn accept(&self) -> io::Result<(Pipe, Option<SocketAddr>)> {
        let next = self.0.recv().map_err(|_| io::ErrorKind::NotConnected)?;
        Ok((next, None))
    }

    fn open(&self, incoming: Pipe) -> io::Result<TlsStream<Pipe>> {
        tls::accept(incoming, &self.1)
    }
}

struct Served {
    server: ServerHandle,
    sender: Sender<Pipe>,
    key: PublicKey,
}

fn start(server: Server) -> Served {
    let (sender, receiver) = channel(1);
    let identity = Rc::new(Identity::generate());
    let key = identity.public_key();
    Served { server: server.start(Given(receiver, identity)), sender, key }
}

impl Served {
    fn connected(&self) -> TlsStream<Pipe> {
        let (near, far) = pipe(HELD_BYTES);
        assert!(self.sender.send(far).is_ok());
        tls::connect(near, &Rc::new(Identity::generate()), Expect::Key(self.key)).unwrap()
    }

    /// A client that has said that and reads nothing any more, from now on.
    fn told(&self, said: &[u8]) -> TlsStream<Pipe> {
        let near = self.connected();
        near.write_slices(&mut [IoSlice::new(said)]).unwrap();
        near
    }

    /// Waits until it has none of those any more.
    fn wait_to_be_rid_of(self, clients: Vec<TlsStream<Pipe>>) {
        timeout(PATIENCE, || {
            while self.server.connection_count() > 0 {
                sleep(Duration::from_millis(1));
            }
        })
        .unwrap_or_else(|_| panic!("{} clients hold it up", self.server.connection_count()));
        drop(clients);
    }
}

const UPGRADE: &str = "GET /0 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

/// The request for a WebSocket that is told so many bytes, and a frame of the client's behind it, of which a mask changes nothing.
fn upgrade(size: usize, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let request = UPGRADE.replace("/0", &format!("/{size}"));
    [request.as_bytes(), &[0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

#[test]
fn an_http_server_gives_up_a_client_that_leaves_no_room_for_the_end() {
    run(|| {
        let limits = Limits { write_time: BORNE, connections: 1_000, ..Limits::default() };
        let server = Server::new()
            .route(Method::GET, "/{size}", |request| {
                "x".repeat(request.param("size").unwrap().parse::<usize>().unwrap())
            })
            .limits(limits);
        let served = start(server);
        let clients = (0..HELD_BYTES)
            .map(|size| {
                let request = format!("GET /{size} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
                served.told(request.as_bytes())
            })
            .collect();
        served.wait_to_be_rid_of(clients);
    });
}

/// WebSockets that are sent so much as is asked for; then `talk` goes on with them.
fn telling(talk: impl Fn(&WebSocket<'_>) -> io::Result<()> + Clone + 'static) -> Served {
    let web = WebSocketLimits { write_time: BORNE, silence_time: BORNE, ..WebSocketLimits::default() };
    let limits = Limits { write_time: BORNE, connections: 1_000, ..Limits::default() };
    let server = Server::new()
        .route(Method::GET, "/{size}", move |request| {
            let size: usize = request.param("size").unwrap().parse().unwrap();
            let talk = talk.clone();
            websocket(request, web, move |socket| {
                // It may take too long.
                let _ = socket.send(vec![0; size]);
                talk(socket)
            })
        })
        .limits(limits);
    start(server)
}

#[test]
fn a_websocket_that_is_closed_gives_up_a_client_that_leaves_no_room_for_the_end() {
    run(|| {
        let served = telling(|_| Ok(()));
        // They have said goodbye before.
        let clients = (0..HELD_BYTES).map(|size| served.told(&upgrade(size, 8, &[]))).collect();
        served.wait_to_be_rid_of(clients);
    });
}

#[test]
fn a_websocket_gives_up_a_client_that_breaks_the_rules_and_leaves_no_room_to_be_told() {
    run(|| {
        let served = telling(|socket| socket.recv().map(drop));
        // No frame has the opcode 3. One that is asked for more than there is room for is broken already.
        let sizes = (0..HELD_BYTES).chain([100_000]);
        let clients = sizes.map(|size| served.told(&upgrade(size, 3, b"?"))).collect();
        served.wait_to_be_rid_of(clients);
    });
}

#[test]
fn a_websockets_client_gives_up_a_server_that_leaves_no_room_for_the_end() {
    run(|| {
        // Whoever has the socket there does not look at it.
        let served = telling(|_| {
            sleep(10 * PATIENCE);
            Ok(())
        });
        let limits = WebSocketLimits { write_time: BORNE, silence_time: BORNE, ..WebSocketLimits::default() };
        let ending: Vec<_> = (0..HELD_BYTES)
            .map(|size| {
                let near = served.connected();
                spawn(move || {
                    let socket = WebSocket::connect(near, "h", "/0", limits).unwrap();
                    let _ = socket.send(vec![0; size]);
                    let _ = socket.close();
                })
            })
            .collect();
        timeout(PATIENCE, || ending.into_iter().for_each(|ending| ending.join().unwrap())).expect("it hangs");
    });
}
