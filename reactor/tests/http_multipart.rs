//! Forms with files: from curl, from Python's requests, and from our own client; larger than what is ever held of them;
//! and what becomes of one that is malformed, too large, or breaks off.

mod http_support;

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use http_support::{body, connect, have, read_all, run_well, start, statuses, talk};
use reactor::http::client::{Client, ClientError, FormData};
use reactor::http::{Limits, Method, MultipartLimits, Refusal, Request, Response, Server};
use reactor::run;

/// Tells of each part what it is, and how long.
fn told(request: &mut Request<'_>) -> Result<Response, Refusal> {
    let mut form = request.multipart(MultipartLimits::default())?;
    let mut told = String::new();
    while let Some(mut part) = form.next_part()? {
        let head = part.head().clone();
        let (mut length, mut sum) = (0, 0_u32);
        let mut buffer = [0; 5_000];
        loop {
            let count = part.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            length += count;
            sum = buffer[..count].iter().fold(sum, |sum, byte| sum.wrapping_mul(31) + u32::from(*byte));
        }
        let file = head.file_name().unwrap_or(if head.is_file() { "(none)" } else { "-" });
        told += &format!("{}|{file}|{}|{length}|{sum}\n", head.name(), head.content_type());
    }
    Ok(told.into())
}

fn server() -> Server {
    Server::new().route(Method::POST, "/told", told)
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
}

/// What looks like boundaries all the time, and is none.
fn pattern(len: usize) -> Vec<u8> {
    b"\r\n--\r\n----------\r\r\n-\0\xff".iter().copied().cycle().take(len).collect()
}

#[test]
fn curl_sends_fields_and_files() {
    if !have("curl", &["--version"]) {
        return;
    }
    run(|| {
        let (_server, address) = start(server());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cat \"1\".png");
        let data = pattern(300_000);
        std::fs::write(&file, &data).unwrap();
        let from_file =
            format!("photo=@\"{}\";type=image/png", file.display().to_string().replace('"', "\\\""));
        let url = format!("http://{address}/told");
        let arguments = ["-sS", "--fail", "-F", "title=grüße & mehr", "-F", &from_file, "-F", "empty=", &url];
        let title = "grüße & mehr";
        let expected = format!(
            "title|-|text/plain|{}|{}\nphoto|cat \"1\".png|image/png|300000|{}\nempty|-|text/plain|0|0\n",
            title.len(),
            sum(title.as_bytes()),
            sum(&data),
        );
        assert_eq!(run_well("curl", &arguments), expected);
        // And in chunks.
        let chunked = [&["-H", "Transfer-Encoding: chunked"], &arguments[..]].concat();
        assert_eq!(run_well("curl", &chunked), expected);
    });
}

#[test]
fn python_requests_sends_fields_and_files() {
    if !have("python3", &["-c", "import requests"]) {
        return;
    }
    let script = r#"
import requests, sys
s = requests.Session(); s.trust_env = False
print(s.post(sys.argv[1], data={"title": "grüße"}, files=[
    ("photo", ("kätzchen.png", b"abc" * 100000, "image/png")),
    ("photo", ("../../etc/passwd", b"x")),
]).text, end="")
"#;
    run(move || {
        let (_server, address) = start(server());
        let told = run_well("python3", &["-c", script, &format!("http://{address}/told")]);
        let names: Vec<_> = told.lines().map(|line| line.rsplit_once('|').unwrap().0).collect();
        let expected =
            ["title|-|text/plain|7", "photo|kätzchen.png|image/png|300000", "photo|passwd|text/plain|1"];
        assert_eq!(names, expected, "{told}");
    });
}

#[test]
fn our_client_sends_what_our_server_reads() {
    run(|| {
        let (_server, address) = start(server());
        let (client, url) = (Client::new(), format!("http://{address}/told"));
        let data = pattern(1_000_000);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("notes.txt");
        std::fs::write(&file, &data[..100_000]).unwrap();
        let whole =
            || FormData::new().text("a \"b\"\r\n", "text").bytes("small", "x.bin", "application/x", b"123");
        let send = |form| client.post(&url).multipart(form).send().unwrap().text(10_000).unwrap();
        let first = format!(
            "a \"b\"\r\n|-|text/plain|4|{}\nsmall|x.bin|application/x|3|{}\n",
            sum(b"text"),
            sum(b"123")
        );
        assert_eq!(send(FormData::new()), "");
        assert_eq!(send(whole()), first);
        for length in [Some(data.len() as u64), None] {
            let form = whole().reader("long", "l", "a/b", &data[..], length).file("f", &file).unwrap();
            let expected = format!(
                "{first}long|l|a/b|1000000|{}\nf|notes.txt|text/plain|100000|{}\n",
                sum(&data),
                sum(&data[..100_000])
            );
            assert_eq!(send(form), expected, "of length {length:?}");
        }
        assert_eq!(client.idle_connections(), 1);
        let short = FormData::new().reader("short", "s", "a/b", &data[..10], Some(11));
        let error = client.post(&url).multipart(short).send().err().unwrap();
        assert!(matches!(&error, ClientError::Body { .. }), "{error}");
        let bad = FormData::new().text("a\0b", "");
        assert!(matches!(client.post(&url).multipart(bad).send(), Err(ClientError::InvalidHeader(_))));
    });
}

#[test]
fn a_form_larger_than_all_buffers_goes_through_with_little_of_it_held() {
    /// More than loopback's buffers on both sides hold.
    const FORM_BYTES: u64 = 64 << 20;
    run(|| {
        // What was taken out of the file when the server had read its first byte.
        let (read, at_first) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(None)));
        let (given, noted) = (read.clone(), at_first.clone());
        let server = Server::new().limits(Limits {
            body: reactor::http::BodyLimits { size_bytes: 1 << 30, ..Default::default() },
            ..Limits::default()
        });
        let server = server.route(Method::POST, "/", move |request| -> Result<Response, Refusal> {
            let mut form = request.multipart(MultipartLimits::default())?;
            let mut part = form.next_part()?.expect("there is one");
            part.read_exact(&mut [0])?;
            noted.set(Some(given.get()));
            let rest = io::copy(&mut part, &mut io::sink())?;
            drop(part);
            assert!(form.next_part()?.is_none());
            Ok((rest + 1).to_string().into())
        });
        let (_server, address) = start(server);
        struct Counted(Rc<Cell<u64>>);
        impl Read for Counted {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.set(self.0.get() + buffer.len() as u64);
                Ok(buffer.len())
            }
        }
        let form = FormData::new().reader("big", "big.bin", "a/b", Counted(read), Some(FORM_BYTES));
        let answer = Client::new().post(&format!("http://{address}/")).multipart(form).send().unwrap();
        assert_eq!(answer.text(100).unwrap(), FORM_BYTES.to_string());
        let held = at_first.get().unwrap();
        assert!(held < FORM_BYTES / 2, "{held} bytes had been read before the server took its first");
    });
}

const HEAD: &str = "POST /told HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\n";

fn with_length(form: &str) -> String {
    format!("{HEAD}Content-Length: {}\r\n\r\n{form}", form.len())
}

#[test]
fn a_form_that_is_none_is_refused_with_a_reason_and_the_connection_goes_on() {
    run(|| {
        let (_server, address) = start(server());
        let mut wire = String::new();
        for form in
            ["", "nothing", "--b\r\n\r\nx\r\n--b--", "--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx"]
        {
            wire += &with_length(form);
        }
        wire += &with_length("--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b--\r\nepilogue");
        wire += &with_length("").replace("; boundary=b", "");
        wire += &with_length("").replace("multipart/form-data; boundary=b", "text/plain");
        // Another reader would take the other boundary.
        let second = "Content-Type: multipart/form-data; boundary=c\r\nContent-Length";
        let form = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b--\r\n";
        wire += &with_length(form).replace("Content-Length", second);
        wire += "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let answers = talk(address, wire);
        assert_eq!(statuses(&answers), [400, 400, 400, 400, 200, 400, 415, 400, 404], "{answers}");
        assert!(answers.contains("a part must have one Content-Disposition"), "{answers}");
    });
}

#[test]
fn a_part_that_is_too_large_or_breaks_off_leaves_no_file() {
    run(|| {
        let directory = Rc::new(tempfile::tempdir().unwrap());
        let into = directory.clone();
        let server =
            Server::new().route(Method::POST, "/told", move |request| -> Result<Response, Refusal> {
                let mut form = request.multipart(MultipartLimits::default())?;
                let mut saved = 0;
                while let Some(part) = form.next_part()? {
                    let path = into.path().join(part.file_name().unwrap_or("unnamed"));
                    saved += part.save(path, 100_000)?;
                }
                Ok(saved.to_string().into())
            });
        let (server, address) = start(server);
        let part = |name: &str, len: usize| {
            format!(
                "--b\r\nContent-Disposition: form-data; name=f; filename={name}\r\n\r\n{}\r\n",
                "x".repeat(len)
            )
        };
        let close = |wire: String| wire.replace("Host: h\r\n", "Host: h\r\nConnection: close\r\n");
        let answer = talk(address, close(with_length(&(part("good", 100_000) + "--b--"))));
        assert_eq!((statuses(&answer), body(&answer)), (vec![200], "100000"));
        let answer = talk(address, close(with_length(&(part("large", 100_001) + "--b--"))));
        assert_eq!(statuses(&answer), [413], "{answer}");
        // A second one of that name takes nothing from the first.
        let answer = talk(address, close(with_length(&(part("good", 5) + "--b--"))));
        assert_eq!(statuses(&answer), [500]);
        // The client leaves in the middle.
        let mut stream = connect(address);
        let whole = with_length(&(part("broken", 90_000) + "--b--"));
        stream.write_all(&whole.as_bytes()[..50_000]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(statuses(&read_all(&mut stream)), [400]);
        drop(stream);
        while server.connection_count() > 0 || std::fs::read_dir(directory.path()).unwrap().count() > 1 {
            reactor::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(std::fs::read(directory.path().join("good")).unwrap().len(), 100_000);
    });
}
