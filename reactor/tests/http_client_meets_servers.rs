//! The client against servers that others wrote: nginx (kept connections, chunks, ranges, gzip, uploads, redirects, TLS)
//! and Python's http.server. Our own is met in `sim_http.rs`.

mod certificates;
mod loopback;
mod skipped;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use certificates::Authority;
use loopback::own_place;
use reactor::http::client::Client;
use reactor::net::tls;
use reactor::run;

/// A server in a process of its own; it ends with this.
struct Running(Child, SocketAddr);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts what `command` makes of a place, and waits until it listens there; `None` if there is no such program.
fn start(name: &str, command: impl FnOnce(SocketAddr) -> Command) -> Option<Running> {
    start_at(own_place(), name, command)
}

fn start_at(place: SocketAddr, name: &str, command: impl FnOnce(SocketAddr) -> Command) -> Option<Running> {
    let child = match command(place).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    {
        Ok(child) => child,
        Err(error) => {
            skipped::skipped(&format!("{name} does not run here: {error}"));
            return None;
        }
    };
    let mut running = Running(child, place);
    let deadline = Instant::now() + Duration::from_secs(60);
    while StdStream::connect(place).is_err() {
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "{name} does not listen at {place}: {ended:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(running)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

fn nginx(directory: &Path) -> Option<Running> {
    nginx_at(own_place(), directory)
}

fn nginx_at(place: SocketAddr, directory: &Path) -> Option<Running> {
    let tls = directory.join("chain.pem").exists();
    start_at(place, "nginx", |place| {
        let at = directory.display();
        let listen = match tls {
            true => format!(
                "listen {place} ssl; ssl_certificate {at}/chain.pem; ssl_certificate_key {at}/key.pem;"
            ),
            false => format!("listen {place};"),
        };
        let config = format!(
            "daemon off; master_process off; error_log stderr; pid {at}/pid;
            events {{ worker_connections 64; }}
            http {{
                access_log off; default_type text/plain; client_max_body_size 10m;
                client_body_temp_path {at}/tmp1; proxy_temp_path {at}/tmp2; fastcgi_temp_path {at}/tmp3;
                uwsgi_temp_path {at}/tmp4; scgi_temp_path {at}/tmp5;
                server {{
                    {listen}
                    root {at}/www; keepalive_requests 5;
                    location /gzip/ {{ alias {at}/www/; gzip on; gzip_min_length 1; gzip_types *; }}
                    location /up/ {{ alias {at}/up/; dav_methods PUT DELETE; create_full_put_path on; }}
                    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 permanent; }}
                    location /count {{ return 200 \"$connection $connection_requests\"; }}
                }}
            }}"
        );
        let path = directory.join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(path).arg("-p").arg(directory).arg("-e").arg("stderr");
        command
    })
}

fn site() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["www", "up"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    std::fs::write(directory.path().join("www/file"), pattern(300_000)).unwrap();
    std::fs::write(directory.path().join("www/text"), "all work and no play ".repeat(5_000)).unwrap();
    std::fs::write(directory.path().join("www/empty"), "").unwrap();
    directory
}

#[test]
fn nginx_serves_files_ranges_chunks_and_gzip_over_kept_connections() {
    let directory = site();
    let Some(server) = nginx(directory.path()) else { return };
    let url = |path: &str| format!("http://{}{path}", server.1);
    run(|| {
        let client = Client::new();
        let get = |path: &str| client.get(&url(path)).send().unwrap();
        let response = get("/file");
        let etag = response.headers().get_str("etag").unwrap().to_owned();
        assert!(response.bytes(300_000).unwrap() == pattern(300_000));
        assert_eq!(get("/empty").bytes(0).unwrap(), b"");
        assert_eq!(get("/none").status(), 404);
        let part = client.get(&url("/file")).header("Range", "bytes=1000-1999").send().unwrap();
        assert_eq!(part.status(), 206);
        assert_eq!(part.headers().get_str("content-range"), Some("bytes 1000-1999/300000"));
        assert!(part.bytes(1000).unwrap() == pattern(300_000)[1000..2000]);
        let parts = client.get(&url("/text")).header("Range", "bytes=0-1,4-7").send().unwrap();
        assert!(parts.headers().get_str("content-type").unwrap().starts_with("multipart/byteranges"));
        let unchanged = client.get(&url("/file")).header("If-None-Match", &etag).send().unwrap();
        assert_eq!(unchanged.status(), 304);
        assert_eq!(unchanged.bytes(0).unwrap(), b"");
        let head = client.head(&url("/file")).send().unwrap();
        assert_eq!(head.headers().get_str("content-length"), Some("300000"));
        drop(head);
        // gzip has no length here, so that it comes in chunks as well.
        let zipped = get("/gzip/text");
        assert_eq!(zipped.headers().get_str("content-encoding"), Some("gzip"));
        assert_eq!(zipped.headers().get_str("transfer-encoding"), Some("chunked"));
        assert_eq!(zipped.text(200_000).unwrap(), "all work and no play ".repeat(5_000));
        let raw = client.get(&url("/gzip/text")).header("Accept-Encoding", "gzip").send().unwrap();
        assert!(raw.bytes(10_000).unwrap().starts_with(&[0x1f, 0x8b]), "who asks by hand decodes by hand");
        let plain = Client::builder().gzip(false).build().get(&url("/gzip/text")).send().unwrap();
        assert_eq!(plain.headers().get("content-encoding"), None);
        let moved = get("/moved/text");
        assert_eq!((moved.status().as_u16(), moved.url()), (200, &*url("/text")));
        assert_eq!(client.idle_connections(), 0, "its body is still to be read");
    });
}

#[test]
fn nginx_closes_after_some_requests_and_nobody_notices() {
    let directory = site();
    let Some(server) = nginx(directory.path()) else { return };
    run(|| {
        let client = Client::new();
        let mut seen = Vec::new();
        for _ in 0..20 {
            let response = client.get(&format!("http://{}/count", server.1)).send().unwrap();
            let text = response.text(100).unwrap();
            let (connection, count) = text.split_once(' ').unwrap();
            seen.push((connection.parse::<u64>().unwrap(), count.parse::<u64>().unwrap()));
        }
        // nginx closes after the fifth on each.
        let counts: Vec<u64> = seen.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5].repeat(4));
        seen.dedup_by_key(|(connection, _)| *connection);
        assert_eq!(seen.len(), 4);
    });
}

#[test]
fn nginx_takes_uploads_of_known_length_in_chunks_and_after_its_word() {
    let directory = site();
    let Some(server) = nginx(directory.path()) else { return };
    let url = |path: &str| format!("http://{}{path}", server.1);
    run(|| {
        let client = Client::new();
        let body = pattern(2_000_000);
        let stored = |name: &str| std::fs::read(directory.path().join("up").join(name)).unwrap() == body;
        assert_eq!(client.put(&url("/up/a")).body(&body[..]).send().unwrap().status(), 201);
        assert!(stored("a"));
        let mut reader = &body[..];
        assert_eq!(client.put(&url("/up/b")).stream(&mut reader, None).send().unwrap().status(), 201);
        assert!(stored("b"));
        let agreed = client.put(&url("/up/c")).body(&body[..]).expect_continue().send().unwrap();
        assert_eq!(agreed.status(), 201);
        assert!(stored("c"));
        // More than it takes: its refusal is heard, though it closes without reading all of it.
        let mut endless = std::io::repeat(7).take(1 << 30);
        let refused = client.put(&url("/up/d")).stream(&mut endless, Some(1 << 30)).send().unwrap();
        assert_eq!(refused.status(), 413);
        assert_eq!(client.delete(&url("/up/a")).send().unwrap().status(), 204);
    });
}

#[test]
fn nginx_serves_over_tls_with_a_self_made_authority() {
    let directory = site();
    let authority = Authority::new();
    let place = own_place();
    let issued = authority.issue(&[&place.ip().to_string()]);
    std::fs::write(directory.path().join("chain.pem"), issued.chain).unwrap();
    std::fs::write(directory.path().join("key.pem"), issued.key).unwrap();
    let Some(server) = nginx_at(place, directory.path()) else { return };
    run(|| {
        let trust = tls::Client::with_roots(authority.pem.as_bytes()).unwrap();
        let client = Client::builder().tls(trust).build();
        let url = |path: &str| format!("https://{}{path}", server.1);
        for _ in 0..8 {
            let response = client.get(&url("/file")).send().unwrap();
            assert!(response.bytes(300_000).unwrap() == pattern(300_000));
        }
        let text = client.get(&url("/gzip/text")).send().unwrap().text(200_000).unwrap();
        assert_eq!(text.len(), 105_000);
        assert!(Client::new().get(&url("/file")).send().is_err());
    });
}

#[test]
fn pythons_server_is_read_in_either_version_of_http() {
    let directory = site();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let server = start("python3", |place| {
            let mut command = Command::new("python3");
            command.args(["-m", "http.server", "--protocol", version, "--bind", &place.ip().to_string()]);
            command.arg("--directory").arg(directory.path().join("www")).arg(place.port().to_string());
            command
        });
        let Some(server) = server else { return };
        run(|| {
            let client = Client::new();
            let url = |path: &str| format!("http://{}{path}", server.1);
            for _ in 0..3 {
                let response = client.get(&url("/file")).send().unwrap();
                assert!(response.bytes(300_000).unwrap() == pattern(300_000));
                assert_eq!(client.idle_connections(), usize::from(version == "HTTP/1.1"));
            }
            assert_eq!(client.get(&url("/none")).send().unwrap().status(), 404);
            let listing = client.get(&url("/")).send().unwrap().text(10_000).unwrap();
            assert!(listing.contains("href=\"empty\""), "{listing}");
            // It knows no POST, and says so in either version.
            let refused = client.post(&url("/file")).body("x").send().unwrap();
            assert_eq!(refused.status(), 501);
        });
    }
}

#[test]
fn a_large_download_takes_no_more_memory_than_a_piece_of_it() {
    let directory = site();
    let Some(server) = nginx(directory.path()) else { return };
    let path = directory.path().join("www/large");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(200 << 20).unwrap();
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    run(|| {
        let client = Client::new();
        let mut response = client.get(&format!("http://{}/large", server.1)).send().unwrap();
        let before = resident();
        let mut total = 0;
        let mut most = 0;
        let mut sink = std::io::sink();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = response.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            sink.write_all(&buffer[..count]).unwrap();
            total += count;
            most = most.max(resident());
        }
        assert_eq!(total, 200 << 20);
        // Other tests run beside this one; none of them holds as much.
        assert!(most.saturating_sub(before) < 64 << 20, "{most} bytes, {before} before");
    });
}
