//! What a coroutine of ours costs, by Criterion: switch, park and wake, spawn and join, a message over a channel.
//!
//! `cargo bench -p benches`; `cargo test --benches` runs each once, so that this cannot rot. The figures of may and
//! tokio stand beside ours in `cargo run --release -p benches --bin coroutine`.

#![forbid(unsafe_code)]

use benches::coroutine::Row;
use criterion::{Criterion, criterion_group, criterion_main};

fn coroutine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coroutine");
    for row in Row::ALL.into_iter().filter(|&row| row != Row::ParkedMemory) {
        group.bench_function(row.name(), |bencher| bencher.iter_custom(|count| row.time(count)));
    }
    group.finish();
}

criterion_group!(benches, coroutine);
criterion_main!(benches);
