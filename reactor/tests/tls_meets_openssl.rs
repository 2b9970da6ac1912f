//! TLS against programs that others wrote: OpenSSL's client and server in both versions, and curl.

mod certificates;
mod skipped;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use certificates::Authority;
use reactor::net::tls::{Client, Server, Version};
use reactor::net::{Duplex, TcpListener, TcpStream};
use reactor::{offload, run, spawn};
use tempfile::TempDir;

/// Whether `program` is there; says so loudly if not.
fn have(program: &str) -> bool {
    let found =
        Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        skipped::skipped(&format!("there is no {program} on this machine"));
    }
    found
}

/// An authority and a certificate of it in files.
fn files(names: &[&str]) -> (TempDir, Authority, [PathBuf; 3]) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let issued = authority.issue(names);
    let paths = ["ca.pem", "chain.pem", "key.pem"].map(|name| directory.path().join(name));
    for (path, text) in paths.iter().zip([&authority.pem, &issued.chain, &issued.key]) {
        std::fs::write(path, text).unwrap();
    }
    (directory, authority, paths)
}

/// Answers one request each with what it asked for in the first line, and closes properly.
fn serve(server: Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        loop {
            let (client, _) = listener.accept().unwrap();
            let server = server.clone();
            spawn(move || {
                // A client that refuses our certificate hangs up when our handshake is done (of 1.3, whose last word is
                // the client's): whether we hear of it as we read or as we write is a race, and no failure. What a
                // client got is judged at its own end.
                if let Err(error) = answer(&server, client) {
                    println!("a client left: {error}");
                }
            });
        }
    });
    address
}

fn answer(server: &Server, client: TcpStream) -> std::io::Result<()> {
    let mut stream = server.accept(client)?;
    let mut reader = BufReader::new(&stream);
    let mut first = reactor::read_until(&mut reader, b'\n', 1000)?;
    first.truncate(first.trim_ascii_end().len());
    let body = format!("{} by {:?}\n", String::from_utf8_lossy(&first), stream.version());
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes())?;
    stream.end()
}

fn execute(mut command: Command, input: &'static [u8]) -> Output {
    offload(move || {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The pipe holds it whole; dropping our end tells the child that this was all.
        // One that has been refused may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    })
}

fn s_client(address: SocketAddr, roots: &Path, extra: &[&str]) -> Output {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-verify_return_error", "-ign_eof"]);
    command.args(["-servername", "a.test", "-verify_hostname", "a.test", "-CAfile"]).arg(roots).args(extra);
    execute(command, b"GET /openssl HTTP/1.1\r\n\r\n")
}

#[test]
fn our_server_is_read_by_openssls_client_in_both_versions() {
    if !have("openssl") {
        return;
    }
    let (_directory, _, [ca, chain, key]) = files(&["a.test"]);
    run(|| {
        let certificate = reactor::net::tls::Certificate::from_pem_files(chain, key).unwrap();
        let address = serve(Server::new(&[certificate]).unwrap().alpn(&["http/1.1"]));
        for (flag, version) in [("-tls1_2", "Tls12"), ("-tls1_3", "Tls13")] {
            let output = s_client(address, &ca, &[flag, "-alpn", "h2,http/1.1"]);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(&format!("/openssl HTTP/1.1 by {version}")), "{text}");
            assert!(text.contains("ALPN protocol: http/1.1"), "{text}");
            assert!(output.status.success(), "the end was a proper one: {output:?}");
        }
        let refused = s_client(address, &ca, &["-tls1_3", "-alpn", "h2"]);
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(text.contains("no application protocol"), "{text}");
        for old in ["-tls1", "-tls1_1"] {
            let refused = s_client(address, &ca, &[old]);
            assert!(!String::from_utf8_lossy(&refused.stdout).contains("by Tls"), "{old} is too old");
        }
    });
}

#[test]
fn openssls_client_resumes_a_session_of_our_server_in_both_versions() {
    if !have("openssl") {
        return;
    }
    let (directory, _, [ca, chain, key]) = files(&["a.test"]);
    run(|| {
        let certificate = reactor::net::tls::Certificate::from_pem_files(chain, key).unwrap();
        let address = serve(Server::new(&[certificate]).unwrap());
        for flag in ["-tls1_2", "-tls1_3"] {
            let session = directory.path().join(flag);
            let session = session.to_str().unwrap();
            s_client(address, &ca, &[flag, "-sess_out", session]);
            let output = s_client(address, &ca, &[flag, "-sess_in", session]);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("Reused, TLSv1."), "{flag}: {text}");
        }
    });
}

#[test]
fn our_server_is_read_by_curl() {
    if !have("curl") {
        return;
    }
    let (_directory, _, [ca, chain, key]) = files(&["a.test"]);
    run(|| {
        let certificate = reactor::net::tls::Certificate::from_pem_files(chain, key).unwrap();
        let address = serve(Server::new(&[certificate]).unwrap().alpn(&["http/1.1"]));
        let fetch = |name: &str| {
            let mut command = Command::new("curl");
            let url = format!("https://{name}:{}/curl", address.port());
            command.args([
                "-sS",
                "--noproxy",
                "*",
                "--resolve",
                &format!("{name}:{}:127.0.0.1", address.port()),
            ]);
            command.arg("--cacert").arg(&ca).arg(url);
            execute(command, b"")
        };
        let output = fetch("a.test");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "GET /curl HTTP/1.1 by Tls13\n");
        assert_eq!(fetch("b.test").status.code(), Some(60), "curl refuses another name");
    });
}

/// OpenSSL's server, which answers each line reversed.
struct Reverser(Child, SocketAddr);

impl Reverser {
    fn start(chain: &Path, key: &Path, version: &str) -> Reverser {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-rev", version, "-alpn", "reversed/1"]);
        command.arg("-cert").arg(chain).arg("-key").arg(key);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.find_map(|line| line.strip_prefix("ACCEPT ")?.parse().ok()).unwrap();
        // Its further output goes nowhere, but the pipe must stay open.
        std::thread::spawn(move || lines.for_each(drop));
        Reverser(child, address)
    }
}

impl Drop for Reverser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn our_client_speaks_with_openssls_server_in_both_versions() {
    if !have("openssl") {
        return;
    }
    let (_directory, authority, [_, chain, key]) = files(&["a.test"]);
    for (flag, version) in [("-tls1_2", Version::Tls12), ("-tls1_3", Version::Tls13)] {
        let server = Reverser::start(&chain, &key, flag);
        run(|| {
            let client = Client::with_roots(authority.pem.as_bytes()).unwrap().alpn(&["reversed/1"]);
            for round in 0..3 {
                let mut stream = client.connect(TcpStream::connect(server.1).unwrap(), "a.test").unwrap();
                assert_eq!((stream.version(), stream.alpn().as_deref()), (version, Some(&b"reversed/1"[..])));
                assert_eq!(stream.is_resumed(), round > 0, "{flag}, round {round}");
                stream.write_all(b"abc\n").unwrap();
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"cba\n");
                // Our close_notify is answered with its own, and that is an end, not a cut.
                stream.end().unwrap();
                assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            }
            let stranger = Client::with_roots(Authority::new().pem.as_bytes()).unwrap();
            assert!(stranger.connect(TcpStream::connect(server.1).unwrap(), "a.test").is_err());
        });
    }
}
