//! Server-sent events: a response that never needs to end, one event after another.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use super::{BodyWriter, Response};

/// An event, as a page's `EventSource` gets it.
///
/// # Examples
///
/// ```
/// use reactor::http::{Event, Method, Server, events};
///
/// let server = Server::new().route(Method::GET, "/ticks", |_| {
///     events(|out| {
///         for number in 0.. {
///             out.send(&Event::new(format!("tick {number}")))?;
///             reactor::sleep(std::time::Duration::from_secs(1));
///         }
///         Ok(())
///     })
/// });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Event {
    data: String,
    name: Option<String>,
    id: Option<String>,
    retry: Option<Duration>,
}

impl Event {
    /// An event of type `message`.
    pub fn new(data: impl Into<String>) -> Event {
        Event { data: data.into(), ..Event::default() }
    }

    /// Of another type.
    pub fn name(mut self, name: impl Into<String>) -> Event {
        self.name = Some(name.into());
        self
    }

    /// With an id, which the client sends back as `Last-Event-ID` when it connects again.
    pub fn id(mut self, id: impl Into<String>) -> Event {
        self.id = Some(id.into());
        self
    }

    /// Tells the client how long to wait before it connects again.
    pub fn retry(mut self, after: Duration) -> Event {
        self.retry = Some(after);
        self
    }

    /// The bytes on the wire; an error if a name or an id would end its line.
    fn encode(&self) -> io::Result<String> {
        let mut text = String::with_capacity(self.data.len() + 16);
        for (field, value) in [("event", &self.name), ("id", &self.id)] {
            let Some(value) = value else { continue };
            if value.contains(['\r', '\n', '\0']) {
                return Err(io::Error::new(ErrorKind::InvalidInput, "an event's name or id is one line"));
            }
            let _ = writeln!(text, "{field}: {value}");
        }
        if let Some(retry) = self.retry {
            let _ = writeln!(text, "retry: {}", retry.as_millis());
        }
        // A carriage return ends a line, too: data that holds one must not be able to begin a field.
        for line in self.data.replace("\r\n", "\n").split(['\n', '\r']) {
            let _ = writeln!(text, "data: {line}");
        }
        text.push('\n');
        Ok(text)
    }
}

/// Where events go.
pub struct EventWriter<'a, 'b>(&'a mut BodyWriter<'b>);

impl EventWriter<'_, '_> {
    /// Sends an event now.
    ///
    /// # Errors
    ///
    /// When the client has left; `InvalidInput` for a name or id of more than a line.
    ///
    /// # Suspends
    ///
    /// While the client reads more slowly than it is written to.
    pub fn send(&mut self, event: &Event) -> io::Result<()> {
        self.0.write_all(event.encode()?.as_bytes())?;
        self.0.flush()
    }

    /// Sends a line that clients pass over: keeps proxies from ending a quiet connection, and finds out whether the
    /// client is still there.
    ///
    /// # Errors
    ///
    /// When the client has left.
    ///
    /// # Suspends
    ///
    /// As [`EventWriter::send`].
    pub fn keep_alive(&mut self) -> io::Result<()> {
        self.0.write_all(b":\n\n")?;
        self.0.flush()
    }
}

/// A response of events, which ends when `write` returns.
pub fn events(write: impl FnOnce(&mut EventWriter<'_, '_>) -> io::Result<()> + 'static) -> Response {
    Response::stream(move |out| {
        out.flush()?;
        write(&mut EventWriter(out))
    })
    .content_type("text/event-stream")
    .header("Cache-Control", "no-cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_data_can_begin_another_field_or_event() {
        let event = Event::new("a\nid: 7\r\rb\r\nc").name("n").id("1").retry(Duration::from_secs(2));
        assert_eq!(
            event.encode().unwrap(),
            "event: n\nid: 1\nretry: 2000\ndata: a\ndata: id: 7\ndata: \ndata: b\ndata: c\n\n"
        );
        assert!(Event::new("").name("a\nb").encode().is_err());
        assert!(Event::new("").id("a\rb").encode().is_err());
        assert_eq!(Event::new("").encode().unwrap(), "data: \n\n");
    }
}
