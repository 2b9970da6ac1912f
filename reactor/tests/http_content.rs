//! What is served and to whom: ranges, conditions, files, compression; first by raw bytes, then by curl.

mod http_support;

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use http_support::{body, get, have, run, run_well, start, statuses};
use reactor::http::{Content, ETag, Files, Method, Response, Server};

const TEXT: &str = "0123456789abcdefghij";

fn serve_text() -> Server {
    Server::new().route(Method::GET, "/text", |request| {
        Content::from_bytes("text/plain", TEXT)
            .etag(ETag::strong("v1").unwrap())
            .last_modified(UNIX_EPOCH + Duration::from_secs(784_111_777))
            .respond(request)
    })
}

#[test]
fn ranges_are_served_one_or_many_and_only_of_the_version_that_is_meant() {
    reactor::run(|| {
        let (_server, address) = start(serve_text());
        let answer = get(address, "/text", "Range: bytes=2-4\r\n");
        assert_eq!((statuses(&answer), body(&answer)), (vec![206], "234"));
        assert!(
            answer.contains("Content-Range: bytes 2-4/20\r\n") && answer.contains("Content-Length: 3\r\n")
        );
        assert_eq!(body(&get(address, "/text", "Range: bytes=-3\r\n")), "hij");
        let answer = get(address, "/text", "Range: bytes=20-\r\n");
        assert_eq!(statuses(&answer), [416]);
        assert!(answer.contains("Content-Range: bytes */20\r\n"), "{answer}");

        let answer = get(address, "/text", "Range: bytes=0-1, 10-12\r\n");
        assert_eq!(statuses(&answer), [206]);
        let boundary = answer.split_once("multipart/byteranges; boundary=").unwrap().1[..32].to_owned();
        let expected = format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/20\r\n\r\n01\
             \r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 10-12/20\r\n\r\nabc\
             \r\n--{boundary}--\r\n"
        );
        assert_eq!(body(&answer), expected);

        let same = "Range: bytes=0-1\r\nIf-Range: \"v1\"\r\n";
        assert_eq!(statuses(&get(address, "/text", same)), [206]);
        let other = "Range: bytes=0-1\r\nIf-Range: \"v2\"\r\n";
        let answer = get(address, "/text", other);
        assert_eq!((statuses(&answer), body(&answer)), (vec![200], TEXT));
        let many = format!("Range: bytes={}\r\n", "0-0,".repeat(100));
        assert_eq!(statuses(&get(address, "/text", &many)), [200]);
    });
}

#[test]
fn a_client_that_has_it_is_told_so() {
    reactor::run(|| {
        let (_server, address) = start(serve_text());
        let answer = get(address, "/text", "");
        assert!(
            answer.contains("ETag: \"v1\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
            "{answer}"
        );
        let answer = get(address, "/text", "If-None-Match: W/\"v1\"\r\n");
        assert_eq!((statuses(&answer), body(&answer)), (vec![304], ""));
        assert!(answer.contains("ETag: \"v1\"") && !answer.contains("Content-Length"), "{answer}");
        let since = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        assert_eq!(statuses(&get(address, "/text", since)), [304]);
        assert_eq!(statuses(&get(address, "/text", "If-Match: \"v2\"\r\n")), [412]);
        // A condition that holds comes before the range.
        assert_eq!(statuses(&get(address, "/text", "If-None-Match: \"v1\"\r\nRange: bytes=0-1\r\n")), [304]);
    });
}

#[test]
fn files_are_served_and_nothing_outside_their_directory() {
    reactor::run(|| {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("sub/index.html"), "<p>index</p>").unwrap();
        std::fs::write(root.join(".env"), "hidden").unwrap();
        std::fs::write(root.join("a b.txt"), "spaced").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        let large: Vec<u8> =
            (0..1_000_003_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(root.join("large.bin"), &large).unwrap();

        let files = Files::new(&root).unwrap();
        let server =
            Server::new().route(Method::GET, "/f/{*path}", move |request| files.serve(request, "path"));
        let (_server, address) = start(server);
        assert_eq!(body(&get(address, "/f/a%20b.txt", "")), "spaced");
        let answer = get(address, "/f/sub/", "");
        assert!(answer.contains("Content-Type: text/html; charset=utf-8") && body(&answer) == "<p>index</p>");
        let answer = get(address, "/f/sub", "");
        assert!(statuses(&answer) == [301] && answer.contains("Location: ./sub/\r\n"), "{answer}");
        for path in [
            "/f/../../secret",
            "/f/%2e%2e/secret",
            "/f/..%2fsecret",
            "/f/%2e%2e%2fsecret",
            "/f/link",
            "/f/.env",
            "/f/%2eenv",
            "/f//etc/passwd",
            "/f/%00",
            "/f/a%20b.txt%00.png",
            "/f/sub/..%5c..%5csecret",
            "/f/",
            "/f/none",
            "/f/a%20b.txt/",
            "/f/%252e%252e/secret",
            "/f/....//secret",
        ] {
            let answer = get(address, path, "");
            assert_eq!(statuses(&answer), [404], "{path}: {answer}");
            assert!(!answer.contains("secret") && !answer.contains("hidden"), "{path}: {answer}");
        }
        if have("curl", &["--version"]) {
            let url = format!("http://{address}/f/large.bin");
            let target = outside.path().join("copy");
            let copy = target.to_str().unwrap();
            run_well("curl", &["-sS", "--fail", "-o", copy, &url]);
            assert!(std::fs::read(copy).unwrap() == large);
            // Cut off, and continued from there.
            std::fs::write(copy, &large[..300_000]).unwrap();
            run_well("curl", &["-sS", "--fail", "-C", "-", "-o", copy, &url]);
            assert!(std::fs::read(copy).unwrap() == large);
            let two = run("curl", &["-sS", "--fail", "-r", "0-9,500000-500009", &url]).stdout;
            for part in [&large[..10], &large[500_000..500_010]] {
                assert!(two.windows(10).any(|window| window == part), "curl gets both parts");
            }
            // curl keeps `..` with --path-as-is, and asks for it.
            let refused =
                run_well("curl", &["-sS", "--path-as-is", &format!("http://{address}/f/../../secret")]);
            assert!(!refused.contains("secret"), "{refused}");
        }
    });
}

#[test]
fn what_lies_compressed_beside_a_file_goes_to_those_who_take_it_unless_it_is_older() {
    reactor::run(|| {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, age_s: u64| {
            let file = std::fs::File::create(root.path().join(name)).unwrap();
            (&file).write_all(text.as_bytes()).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000 - age_s)).unwrap();
        };
        write("page.html", "the page itself", 10);
        write("page.html.br", "as br", 20);
        write("page.html.gz", "as gzip", 10);
        let (plain, packed) =
            (Files::new(root.path()).unwrap(), Files::new(root.path()).unwrap().with_precompressed());
        let server = Server::new()
            .route(Method::GET, "/plain/{*path}", move |request| plain.serve(request, "path"))
            .route(Method::GET, "/{*path}", move |request| packed.serve(request, "path"));
        let (_server, address) = start(server);
        let ask = |target: &str, fields: &str| get(address, target, fields);

        let packed = ask("/page.html", "Accept-Encoding: br, gzip\r\n");
        assert_eq!((statuses(&packed), body(&packed)), (vec![200], "as gzip"), "br is older than the page");
        for field in
            ["Content-Encoding: gzip", "Content-Type: text/html; charset=utf-8", "Vary: Accept-Encoding"]
        {
            assert!(packed.contains(&format!("{field}\r\n")), "{field}: {packed}");
        }
        let etag = |answer: &str| answer.lines().find(|line| line.starts_with("ETag: ")).unwrap().to_owned();
        for (target, fields) in [("/page.html", ""), ("/page.html", "Accept-Encoding: gzip;q=0\r\n")] {
            let whole = ask(target, fields);
            assert_eq!(body(&whole), "the page itself");
            assert!(
                whole.contains("Vary: Accept-Encoding") && !whole.contains("Content-Encoding"),
                "{whole}"
            );
            assert_ne!(etag(&whole), etag(&packed));
        }
        // A range counts the bytes that are sent.
        let part = ask("/page.html", "Accept-Encoding: gzip\r\nRange: bytes=3-\r\n");
        assert_eq!((statuses(&part), body(&part)), (vec![206], "gzip"));
        let parts = ask("/page.html", "Accept-Encoding: gzip\r\nRange: bytes=0-0,3-3\r\n");
        assert_eq!((statuses(&parts), body(&parts)), (vec![200], "as gzip"));
        let known = ask(
            "/page.html",
            &format!("Accept-Encoding: gzip\r\nIf-None-Match: {}\r\n", &etag(&packed)[6..]),
        );
        assert_eq!(statuses(&known), [304]);
        // Only where it was asked for.
        assert_eq!(body(&ask("/plain/page.html", "Accept-Encoding: gzip\r\n")), "the page itself");
    });
}

#[test]
fn a_response_is_compressed_for_those_who_take_it() {
    reactor::run(|| {
        let text = "all work and no play makes jack a dull boy\n".repeat(5_000);
        let (whole, streamed) = (text.clone(), text.clone());
        let server = Server::new()
            .route(Method::GET, "/whole", move |_| Response::from(whole.clone()).compressible())
            .route(Method::GET, "/short", |_| Response::text("short").compressible())
            .route(Method::GET, "/secret", |_| Response::from("x".repeat(1000)))
            .route(Method::GET, "/content", {
                let text = text.clone();
                move |request| {
                    let content = Content::from_bytes("text/plain", text.clone()).compressible(true);
                    content.etag(ETag::strong("v1").unwrap()).respond(request)
                }
            })
            .route(Method::GET, "/stream", move |_| {
                let text = streamed.clone();
                Response::stream(move |out| {
                    for piece in text.as_bytes().chunks(1000) {
                        out.write_all(piece)?;
                    }
                    Ok(())
                })
                .compressible()
            });
        let (_server, address) = start(server);
        let gzip = "Accept-Encoding: gzip\r\n";
        for path in ["/whole", "/stream", "/content"] {
            let answer = get(address, path, "");
            assert!(answer.contains("Vary: Accept-Encoding") && !answer.contains("gzip"), "{path}");
            let answer = get(address, path, gzip);
            assert!(answer.contains("Content-Encoding: gzip") && answer.len() < text.len() / 10, "{path}");
            assert_eq!(answer.matches("Vary:").count(), 1, "{path}");
            assert!(!get(address, path, "Accept-Encoding: gzip;q=0\r\n").contains("gzip"));
            if have("curl", &["--version"]) {
                let url = format!("http://{address}{path}");
                assert!(run_well("curl", &["-sS", "--fail", "--compressed", &url]) == text, "{path}");
            }
        }
        assert!(!get(address, "/short", gzip).contains("Content-Encoding"));
        assert!(!get(address, "/secret", gzip).contains("Content-Encoding"), "nobody called it compressible");
        let answer = get(address, "/content", gzip);
        assert!(
            answer.contains("ETag: W/\"v1\"\r\n") && answer.contains("Accept-Ranges: none"),
            "{answer:.300}"
        );
        let answer = get(address, "/content", "Accept-Encoding: gzip\r\nRange: bytes=0-7\r\n");
        assert_eq!((statuses(&answer), body(&answer)), (vec![206], "all work"));
        let head = http_support::talk(
            address,
            format!("HEAD /whole HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{gzip}\r\n"),
        );
        assert!(head.contains("Content-Encoding: gzip") && body(&head).is_empty());
    });
}
