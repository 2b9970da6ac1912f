//! WebSocket against ourselves, a raw client that breaks the rules, and Python's `websockets`.

mod http_support;

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use http_support::{connect, get, have, read_until, run_well, start, statuses};
use reactor::http::{Message, Method, Server, ServerHandle, WebSocket, WebSocketLimits, websocket};

fn echo(limits: WebSocketLimits) -> Server {
    Server::new().route(Method::GET, "/echo", move |request| {
        websocket(request, limits, |socket| {
            while let Some(message) = socket.recv()? {
                socket.send(message)?;
            }
            Ok(())
        })
    })
}

fn start_echo() -> (ServerHandle, std::net::SocketAddr) {
    start(echo(WebSocketLimits { message_bytes: 100_000, ..WebSocketLimits::default() }))
}

#[test]
fn our_client_and_our_server_talk_both_ways_at_once() {
    reactor::run(|| {
        let (server, address) = start_echo();
        let socket =
            WebSocket::connect(connect(address), "localhost", "/echo", WebSocketLimits::default()).unwrap();
        reactor::scope(|s| {
            // Sent from one coroutine while another waits for answers.
            s.spawn(|| {
                for size in 0..200 {
                    socket.send("x".repeat(size * 37)).unwrap();
                    socket.send(vec![size as u8; size]).unwrap();
                }
            });
            for size in 0..200 {
                assert_eq!(socket.recv().unwrap(), Some(Message::Text("x".repeat(size * 37))));
                assert_eq!(socket.recv().unwrap(), Some(Message::Binary(vec![size as u8; size])));
            }
        });
        socket.close().unwrap();
        assert_eq!(socket.recv().unwrap(), None);
        assert_eq!(socket.send("late").unwrap_err().kind(), ErrorKind::BrokenPipe);
        while server.connection_count() > 0 {
            reactor::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn a_message_beyond_the_limit_ends_the_connection() {
    reactor::run(|| {
        // Whoever has broken the rules is not waited for as a silent one is: both would wait for the other's end.
        let silence_time = Duration::from_secs(3_600);
        let limits = WebSocketLimits { message_bytes: 100_000, silence_time, ..WebSocketLimits::default() };
        let (server, address) = start(echo(limits));
        let socket =
            WebSocket::connect(connect(address), "localhost", "/echo", WebSocketLimits::default()).unwrap();
        socket.send(vec![0; 100_001]).unwrap();
        // A close with its reason, or a reset: the server reads no further.
        assert!(!matches!(socket.recv(), Ok(Some(_))));
        let ended = reactor::timeout(silence_time / 20, || {
            while server.connection_count() > 0 {
                reactor::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(ended, Ok(()), "it is waited for as if it were silent");
    });
}

/// Whoever goes on whatever comes gets nothing more, and must not have the thread for himself.
#[test]
fn to_receive_again_and_again_after_a_failure_or_the_end_holds_nobody_up() {
    reactor::run(|| {
        // A frame of a kind that there is none of, and a goodbye; masked with zeros.
        for last in [[0x83, 0x80, 0, 0, 0, 0], [0x88, 0x80, 0, 0, 0, 0]] {
            let (turns, seen) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
            let (counted, note) = (turns.clone(), seen.clone());
            let other = reactor::spawn(move || {
                loop {
                    reactor::yield_now();
                    counted.set(counted.get() + 1);
                }
            });
            let server = Server::new().route(Method::GET, "/", move |request| {
                let (turns, note) = (turns.clone(), note.clone());
                websocket(request, WebSocketLimits::default(), move |socket| {
                    while let Ok(Some(_)) = socket.recv() {}
                    let before = turns.get();
                    (0..20_000).for_each(|_| assert!(!matches!(socket.recv(), Ok(Some(_)))));
                    note.set(Some(turns.get() - before));
                    Ok(())
                })
            });
            let (_server, address) = start(server);
            let mut raw = connect(address);
            let request = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            raw.write_all(request.as_bytes()).unwrap();
            raw.write_all(&last).unwrap();
            while seen.get().is_none() {
                reactor::sleep(Duration::from_millis(1));
            }
            other.terminate();
            // Of as many calls as a hundred turns have.
            assert!(seen.get().unwrap() > 50_u32, "the other had {:?} turns", seen.get());
        }
    });
}

#[test]
fn a_silent_peer_is_asked_and_then_let_go() {
    reactor::run(|| {
        let silence_time = Duration::from_millis(50);
        let (server, address) = start(echo(WebSocketLimits { silence_time, ..WebSocketLimits::default() }));
        // It answers pings as long as somebody sits in `recv`.
        let socket =
            WebSocket::connect(connect(address), "localhost", "/echo", WebSocketLimits::default()).unwrap();
        let waited = reactor::timeout(silence_time * 10, || socket.recv());
        assert!(waited.is_err(), "it is still open: {waited:?}");
        assert_eq!(server.connection_count(), 1);
        // Nobody reads any more, so nobody answers.
        while server.connection_count() > 0 {
            reactor::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn a_server_that_drains_tells_its_sockets_that_it_goes_away_and_hears_them_out() {
    reactor::run(|| {
        let (server, address) = start_echo();
        let mut raw = connect(address);
        let request = "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        raw.write_all(request.as_bytes()).unwrap();
        read_until(&mut raw, "\r\n\r\n");
        let minute = Duration::from_secs(60);
        let drained = reactor::spawn(move || reactor::timeout(minute, || server.drain(10 * minute)));
        let mut close = [0; 4];
        reactor::timeout(minute, || raw.read_exact(&mut close)).expect("it is told nothing").unwrap();
        assert_eq!(close, [0x88, 2, 0x03, 0xe9], "1001, going away");
        // A close of ours, masked with zeros.
        raw.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]).unwrap();
        assert_eq!(drained.join().unwrap(), Ok(0), "nobody had to be ended");
    });
}

/// Once a message was lost that had come behind a ping: it was in hand while the pong was sent, which had to wait behind a
/// message of ours, and the time of `recv` was over before.
#[test]
fn a_message_is_not_lost_when_the_time_for_it_ends_while_a_pong_waits() {
    reactor::run(|| {
        let (has_written, written) = reactor::sync::channel::<()>(1);
        let (may_read, reads) = reactor::sync::channel::<()>(1);
        let (tell, told) = reactor::sync::channel(1);
        // More than sockets hold.
        const OURS_BYTES: usize = 32 << 20;
        let (_server, address) = start(Server::new().route(Method::GET, "/busy", move |request| {
            let (written, may_read, tell) = (written.clone(), may_read.clone(), tell.clone());
            websocket(request, WebSocketLimits::default(), move |socket| {
                reactor::scope(|s| {
                    // It waits for a peer that does not read, and others that want to send behind it.
                    s.spawn(|| socket.send(vec![0; OURS_BYTES]));
                    written.recv().expect("the peer is there");
                    let (mut heard, mut cut_count) = (Vec::new(), 0);
                    for _ in 0..10 {
                        match reactor::timeout(Duration::from_millis(10), || socket.recv()) {
                            Ok(message) => heard.extend(message?),
                            Err(reactor::Elapsed) => cut_count += 1,
                        }
                    }
                    let _ = may_read.send(());
                    while let Some(message) = socket.recv()? {
                        heard.push(message);
                    }
                    let _ = tell.send((heard, cut_count));
                    Ok(())
                })
            })
        }));
        let mut raw = connect(address);
        let request = "GET /busy HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        raw.write_all(request.as_bytes()).unwrap();
        // A ping and two messages, masked with zeros.
        let frames = [&[0x89, 0x80, 0, 0, 0, 0][..], b"\x81\x85\0\0\0\0first", b"\x81\x86\0\0\0\0second"];
        raw.write_all(&frames.concat()).unwrap();
        has_written.send(()).unwrap();
        reads.recv().unwrap();
        // And a close.
        raw.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).unwrap();
        let mut all = Vec::new();
        raw.read_to_end(&mut all).unwrap();
        let (heard, cut_count) = told.recv().unwrap();
        assert_eq!(heard, [Message::Text("first".into()), Message::Text("second".into())]);
        assert!(cut_count > 0, "it never had to wait");
        assert!(all.len() > OURS_BYTES);
    });
}

#[test]
fn a_handshake_that_is_none_is_refused() {
    reactor::run(|| {
        let (_server, address) = start_echo();
        let good = [
            "Connection: keep-alive, Upgrade",
            "Upgrade: WebSocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ];
        let ask = |fields: &[&str]| {
            let mut stream = connect(address);
            let fields = fields.iter().map(|field| format!("{field}\r\n")).collect::<String>();
            write!(stream, "GET /echo HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n").unwrap();
            read_until(&mut stream, "\r\n\r\n")
        };
        let answer = ask(&good);
        assert_eq!(statuses(&answer), [101]);
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        for (missing, status) in [(0, 426), (1, 426), (2, 426), (3, 400)] {
            let mut fields = good.to_vec();
            fields.remove(missing);
            assert_eq!(statuses(&ask(&fields)), [status], "without {}", good[missing]);
        }
        let mut short = good;
        short[3] = "Sec-WebSocket-Key: c2hvcnQ=";
        assert_eq!(statuses(&ask(&short)), [400]);
        let strange = [&good[..], &["Origin: https://elsewhere.example"]].concat();
        assert_eq!(statuses(&ask(&strange)), [403], "a page of another site");
        let own = format!("Origin: http://{address}");
        assert_eq!(statuses(&ask(&[&good[..], &[&own]].concat())), [101]);
        assert_eq!(statuses(&get(address, "/echo", "")), [426]);
    });
}

#[test]
fn python_websockets_talks_to_our_server() {
    if !have("python3", &["-c", "import websockets"]) {
        return;
    }
    reactor::run(|| {
        let (_server, address) = start_echo();
        let script = r#"
import asyncio, sys, websockets
async def main(url):
    async with websockets.connect(url, compression=None, max_size=None) as ws:
        for size in [0, 1, 125, 126, 127, 65535, 65536, 99999]:
            await ws.send("ä" * (size // 2)); assert await ws.recv() == "ä" * (size // 2)
            await ws.send(b"x" * size); assert await ws.recv() == b"x" * size
        await ws.send(["frag", "men", "ted"])
        assert await ws.recv() == "fragmented"
        await (await ws.ping())
    assert ws.close_code == 1000, ws.close_code
    async with websockets.connect(url, compression=None) as ws:
        await ws.send(b"x" * 200000)
        try:
            await ws.recv(); raise SystemExit("a message beyond the limit was taken")
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd is None or closed.rcvd.code == 1009, closed
    print("fine")
asyncio.run(main(sys.argv[1]))
"#;
        assert_eq!(run_well("python3", &["-c", script, &format!("ws://{address}/echo")]), "fine\n");
    });
}
