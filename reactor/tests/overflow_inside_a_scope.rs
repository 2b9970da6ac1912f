//! A parent's stack holds what its scope's children borrowed. If it overflows, the process must end before any of them
//! runs again: the one case in which an overflow is not that coroutine's own affair.

use std::process::Command;
use std::time::Duration;

const CHILD: &str = "HYPHA_TEST_OVERFLOW_INSIDE_A_SCOPE";

#[inline(never)]
#[allow(unconditional_recursion)]
fn deeper(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 64]);
    deeper(n + 1) + frame[0]
}

#[test]
fn a_parent_that_overflows_inside_a_scope_ends_the_process() {
    if std::env::var_os(CHILD).is_some() {
        reactor::run(|| {
            let parent = reactor::spawn(|| {
                let borrowed = [1u8; 64];
                reactor::scope(|s| {
                    s.spawn(|| {
                        reactor::sleep(Duration::from_millis(5));
                        println!("the child went on with {}", borrowed[0]);
                    });
                    deeper(0)
                })
            });
            parent.join()
        })
        .unwrap();
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "a_parent_that_overflows"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success());
    assert!(err.contains("inside a scope"), "{out}{err}");
    assert!(!out.contains("the child went on"), "{out}{err}");
}
