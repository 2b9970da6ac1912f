//! Takes an order over a connection: a dialogue as a machine whose states are plain sequential code.
//!
//! `cargo run --example fsm_dialogue -- 127.0.0.1:7004`, then `nc 127.0.0.1 7004`; or `-- --diagram` to see it drawn.

use std::cell::Cell;
use std::io::{self, BufReader, Write};
use std::time::Duration;

use reactor::fsm::{Machine, Trigger};
use reactor::net::{TcpListener, TcpStream};
use reactor::sync::Mutex;

const LINE_LIMIT_BYTES: usize = 256;
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a state did not come to its end.
enum Trouble {
    NotOnTheMenu,
    Refused,
    Broken(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Broken(error)
    }
}

/// The two ends of a conversation.
trait Talk {
    fn say(&self, line: &str) -> io::Result<()>;
    fn hear(&self) -> io::Result<String>;
}

struct Line<'a>(&'a TcpStream, Mutex<BufReader<&'a TcpStream>>);

impl Talk for Line<'_> {
    fn say(&self, line: &str) -> io::Result<()> {
        let mut stream = self.0;
        stream.write_all(format!("{line}\n").as_bytes())
    }

    fn hear(&self) -> io::Result<String> {
        // A mutex is what may be held across a wait.
        let line = reactor::read_until(&mut *self.1.lock(), b'\n', LINE_LIMIT_BYTES)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim().to_owned())
    }
}

fn dialogue<'a>(guest: &'a dyn Talk, drink: &'a Cell<&'static str>) -> Machine<'a, Trouble> {
    let mut machine = Machine::new("dialogue");
    let asking = machine.state("asking", move || {
        guest.say("Tea or coffee?")?;
        drink.set(match guest.hear()?.as_str() {
            "tea" => "tea",
            "coffee" => "coffee",
            _ => return Err(Trouble::NotOnTheMenu),
        });
        Ok(())
    });
    let explaining =
        machine.state("explaining", move || Ok(guest.say("There is tea, and there is coffee.")?));
    let confirming = machine.state("confirming", move || {
        guest.say(&format!("One {}. Is that right?", drink.get()))?;
        if guest.hear()? == "yes" { Ok(()) } else { Err(Trouble::Refused) }
    });
    let served = machine.state("served", move || Ok(guest.say(&format!("Here is your {}.", drink.get()))?));
    let closed = machine.state("closed", move || Ok(guest.say("We close. Good night!")?));

    machine.transition(asking, confirming, Trigger::end());
    machine.transition(
        asking,
        explaining,
        Trigger::error("not on the menu", |e| matches!(e, Trouble::NotOnTheMenu)),
    );
    machine.transition(explaining, asking, Trigger::end());
    machine.transition(confirming, served, Trigger::end());
    machine.transition(confirming, asking, Trigger::error("refused", |e| matches!(e, Trouble::Refused)));
    for state in [asking, confirming] {
        machine.transition(state, closed, Trigger::after(PATIENCE));
    }
    machine
}

fn main() -> io::Result<()> {
    let argument = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7004".to_owned());
    if argument == "--diagram" {
        struct Nobody;
        impl Talk for Nobody {
            fn say(&self, _: &str) -> io::Result<()> {
                Ok(())
            }
            fn hear(&self) -> io::Result<String> {
                Err(io::ErrorKind::NotConnected.into())
            }
        }
        println!("{}", dialogue(&Nobody, &Cell::new("")).mermaid());
        return Ok(());
    }
    reactor::run(move || {
        let listener = TcpListener::bind(argument)?;
        println!("fsm_dialogue listens at {}", listener.local_addr()?);
        loop {
            let (stream, from) = listener.accept()?;
            let begun = reactor::try_spawn(move || {
                let guest = Line(&stream, Mutex::new(BufReader::new(&stream)));
                if let Err(Trouble::Broken(error)) = dialogue(&guest, &Cell::new("")).run() {
                    eprintln!("{from}: {error}");
                }
            });
            if let Err(error) = begun {
                eprintln!("{from} was turned away: {error}");
            }
        }
    })
}
