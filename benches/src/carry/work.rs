//! What is done on a stream, whoever carries it: pieces one way (`tls.rs`), or questions and answers.

use crate::tls::processor_time;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// Bytes of a question, and of its answer.
pub const CALL_BYTES: usize = 64;

/// Pieces that are sent in bulk.
pub const PIECE_BYTES: usize = 256 << 10;

/// What one read takes at most, of questions or answers.
const READ_BYTES: usize = 64 << 10;

/// What a side says when it is warm, and with its figures when its time is over.
pub const WORDS: [&str; 2] = ["begin", "end"];

/// Sends back all that comes.
///
/// # Errors
/// Those of the stream, but for its end.
pub fn mirror(mut stream: impl Read + Write) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => {
                stream.write_all(&buffer[..count])?;
                stream.flush()?;
            }
        }
    }
}

/// Keeps so many questions under way for a quarter of `duration` to warm up, then for `duration`; prints how many were
/// answered, the time, and its processor time, and ends the process.
///
/// # Errors
/// Those of the stream.
pub fn ask(mut stream: impl Read + Write, in_flight: usize, duration: Duration) -> io::Result<()> {
    let questions = vec![7; in_flight * CALL_BYTES];
    let mut buffer = vec![0; READ_BYTES];
    // Bytes of an answer that is not whole yet.
    let mut rest = 0;
    stream.write_all(&questions)?;
    stream.flush()?;
    let mut run = |duration: Duration| {
        let (begin, cpu) = (Instant::now(), processor_time());
        let mut answered = 0_usize;
        while begin.elapsed() < duration {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let whole = (rest + count) / CALL_BYTES;
            rest = (rest + count) % CALL_BYTES;
            answered += whole;
            if whole > 0 {
                stream.write_all(&questions[..whole * CALL_BYTES])?;
                stream.flush()?;
            }
        }
        io::Result::Ok((answered, begin.elapsed(), processor_time() - cpu))
    };
    run(duration / 4)?;
    println!("{}", WORDS[0]);
    let (answered, elapsed, cpu) = run(duration)?;
    println!("{} {answered} {} {}", WORDS[1], elapsed.as_secs_f64(), cpu.as_secs_f64());
    io::stdout().flush()?;
    std::process::exit(0);
}
