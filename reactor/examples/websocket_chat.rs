//! A chat room in the browser: one page, one WebSocket for each who opens it.
//!
//! `cargo run --example websocket_chat -- 127.0.0.1:7005`, then open http://127.0.0.1:7005/ in two windows.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use reactor::cell::RefCell;
use reactor::http::{Message, Method, Response, Server, WebSocket, WebSocketLimits, websocket};
use reactor::net::TcpListener;
use reactor::sync::{Sender, channel};

/// Messages that wait for a slow reader. One that lags further behind misses some; nobody waits for it.
const BACKLOG_MAX: usize = 64;

const PAGE: &str = r#"<!doctype html>
<meta charset="utf-8"><title>Chat</title>
<form id="form"><input id="text" autofocus autocomplete="off" placeholder="Say something"></form>
<ul id="said"></ul>
<script>
  const socket = new WebSocket("ws://" + location.host + "/chat");
  socket.onmessage = (event) => {
    const line = document.createElement("li");
    line.textContent = event.data;
    said.prepend(line);
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    socket.send(text.value);
    text.value = "";
  };
</script>
"#;

#[derive(Default)]
struct Room {
    members: RefCell<BTreeMap<u64, Sender<String>>>,
    next_number: RefCell<u64>,
}

impl Room {
    fn tell_everyone(&self, line: &str) {
        for member in self.members.borrow().values() {
            let _ = member.try_send(line.to_owned());
        }
    }
}

/// Takes a guest out of the room however the conversation ends.
struct Guest<'a>(&'a Room, u64);

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.0.members.borrow_mut().remove(&self.1);
        self.0.tell_everyone(&format!("guest {} has left", self.1));
    }
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7005".to_owned());
    reactor::run(move || {
        let listener = TcpListener::bind(address)?;
        println!("websocket_chat listens at {}", listener.local_addr()?);
        let room = Rc::new(Room::default());
        Server::new()
            .route(Method::GET, "/", |_| Response::html(PAGE))
            .route(Method::GET, "/chat", move |request| {
                let room = room.clone();
                websocket(request, WebSocketLimits::default(), move |socket| talk(&room, socket))
            })
            .serve(listener)
    })
}

fn talk(room: &Room, socket: &WebSocket<'_>) -> io::Result<()> {
    let number = room.next_number.replace_with(|number| *number + 1) + 1;
    let (sender, lines) = channel(BACKLOG_MAX);
    room.members.borrow_mut().insert(number, sender);
    let _guest = Guest(room, number);
    room.tell_everyone(&format!("guest {number} is here"));
    reactor::scope(|s| {
        let writer = s.spawn(|| {
            while let Ok(line) = lines.recv() {
                socket.send(line)?;
            }
            Ok::<_, io::Error>(())
        });
        let ended = loop {
            match socket.recv() {
                Ok(Some(Message::Text(text))) => room.tell_everyone(&format!("guest {number}: {text}")),
                Ok(Some(Message::Binary(_))) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // The scope waits for its children, and this one waits for lines.
        writer.terminate();
        ended
    })
}
