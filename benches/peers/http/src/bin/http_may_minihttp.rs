//! may_minihttp: HTTP's heads on may's coroutines, and little more; one worker.

use http_bench::{PLAINTEXT, json, listen_address};
use may_minihttp::{HttpServer, HttpService, Request, Response};
use std::io;

#[derive(Clone)]
struct Answer;

impl HttpService for Answer {
    fn call(&mut self, request: Request<'_, '_, '_>, response: &mut Response<'_>) -> io::Result<()> {
        match request.path() {
            "/plaintext" => {
                response.header("Content-Type: text/plain");
                response.body(PLAINTEXT);
            }
            "/json" => {
                response.header("Content-Type: application/json");
                response.body_vec(json());
            }
            _ => {
                response.status_code(404, "Not Found");
            }
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    may::config().set_workers(1);
    let server = HttpServer(Answer).start(listen_address())?;
    server.join().expect("the server never panics");
    Ok(())
}
