//! A chat room: whatever one client writes, all others read.
//!
//! `cargo run --example chat -- 127.0.0.1:7002`, then `nc 127.0.0.1 7002` in a few terminals. The first line is one's name.
//!
//! All coroutines run on one thread, so the room is a plain `RefCell`: no lock, no channel of commands.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use reactor::cell::RefCell;
use reactor::net::{TcpListener, TcpStream};
use reactor::sync::{Sender, channel};

const LINE_LIMIT_BYTES: usize = 4096;

/// Lines that wait for a slow client. One that lags further behind misses lines; nobody waits for it.
const BACKLOG_MAX: usize = 64;

#[derive(Default)]
struct Room {
    members: RefCell<BTreeMap<SocketAddr, Sender<String>>>,
}

impl Room {
    fn tell_others(&self, from: SocketAddr, line: &str) {
        for (_, member) in self.members.borrow().iter().filter(|(address, _)| **address != from) {
            let _ = member.try_send(format!("{line}\n"));
        }
    }
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7002".to_owned());
    reactor::run(move || {
        let room = Rc::new(Room::default());
        let listener = TcpListener::bind(address)?;
        println!("chat listens at {}", listener.local_addr()?);
        loop {
            let (client, from) = listener.accept()?;
            let room = room.clone();
            let seated = reactor::try_spawn(move || {
                // A client that breaks off has left as much as one that says goodbye.
                let _ = serve(&room, &client, from);
                room.members.borrow_mut().remove(&from);
            });
            if let Err(error) = seated {
                eprintln!("{from} was turned away: {error}");
            }
        }
    })
}

fn serve(room: &Room, client: &TcpStream, from: SocketAddr) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    let Some(name) = read_line(&mut reader)? else { return Ok(()) };
    let (sender, lines) = channel(BACKLOG_MAX);
    room.members.borrow_mut().insert(from, sender);
    room.tell_others(from, &format!("* {name} is here"));
    let result = reactor::scope(|s| {
        let writer = s.spawn(|| {
            let mut client = client;
            while let Ok(line) = lines.recv() {
                client.write_all(line.as_bytes())?;
            }
            Ok::<_, io::Error>(())
        });
        let ended = loop {
            match read_line(&mut reader) {
                Ok(Some(line)) => room.tell_others(from, &format!("{name}: {line}")),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // The scope waits for its children, and this one waits for lines.
        writer.terminate();
        ended
    });
    room.tell_others(from, &format!("* {name} has left"));
    result
}

fn read_line(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<String>> {
    let line = reactor::read_until(reader, b'\n', LINE_LIMIT_BYTES)?;
    Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).trim_end().to_owned()))
}
