//! Builds what is measured: our own programs, the peers' workspace, the C++ peer.
//!
//! Always with optimisations, whichever way the harness itself was built, and every time: cargo finds in a moment
//! that nothing changed, while a forgotten rebuild is a figure about yesterday's code.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Returns the directory of this crate's sources.
fn benches_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns where cargo puts the programs of the project's own workspace.
fn release_directory() -> io::Result<PathBuf> {
    // This program is target/{debug,release}/NAME, or target/{debug,release}/deps/NAME when it is a test.
    let own = std::env::current_exe()?;
    let target = own.ancestors().find(|path| path.ends_with("debug") || path.ends_with("release"));
    let target = target.and_then(Path::parent).ok_or_else(|| {
        io::Error::other(format!("{} is in no cargo target directory; run this through cargo", own.display()))
    })?;
    Ok(target.join("release"))
}

/// Builds the program `binary` of our workspace's `package` and returns its path.
///
/// # Errors
/// Fails when cargo does, whose message has been printed then.
pub fn own_program(package: &str, binary: &str) -> io::Result<PathBuf> {
    let manifest = benches_directory().join("../Cargo.toml");
    cargo_build(&manifest, &["-p", package, "--bin", binary])?;
    Ok(release_directory()?.join(binary))
}

/// Builds the example `example` of our workspace's `package` and returns its path.
///
/// # Errors
/// Fails when cargo does, whose message has been printed then.
pub fn own_example(package: &str, example: &str) -> io::Result<PathBuf> {
    let manifest = benches_directory().join("../Cargo.toml");
    cargo_build(&manifest, &["-p", package, "--example", example])?;
    Ok(release_directory()?.join("examples").join(example))
}

/// Whether a peer's program is built where it may have been before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuild {
    /// Yes: cargo finds in a moment that nothing changed.
    Always,
    /// No: some take minutes, which continuous integration does not have.
    Never,
}

/// Returns where cargo puts what it builds.
///
/// # Errors
/// Fails when this program does not run from there.
pub fn target_directory() -> io::Result<PathBuf> {
    release_directory().map(|mut path| {
        path.pop();
        path
    })
}

/// Builds the program `binary` of the peers' `package` and returns its path.
///
/// # Errors
/// Fails when cargo does, whose message has been printed then; or when it is not there and shall not be built.
pub fn peer_of(package: &str, binary: &str, rebuild: Rebuild) -> io::Result<PathBuf> {
    let peers = benches_directory().join("peers");
    let target = peers.join("target");
    let program = target.join("release").join(binary);
    if rebuild == Rebuild::Always {
        let directory = target.to_string_lossy();
        cargo_build(
            &peers.join("Cargo.toml"),
            &["-p", package, "--bin", binary, "--target-dir", &directory],
        )?;
    } else if !program.is_file() {
        return Err(io::Error::other("not built yet (a run without --quick builds it)"));
    }
    Ok(program)
}

/// Builds the peers' program `binary` and returns its path.
///
/// # Errors
/// Fails when cargo does, whose message has been printed then.
pub fn peer_program(binary: &str) -> io::Result<PathBuf> {
    let peers = benches_directory().join("peers");
    let target = peers.join("target");
    let directory = target.to_string_lossy();
    cargo_build(&peers.join("Cargo.toml"), &["--bin", binary, "--target-dir", &directory])?;
    Ok(target.join("release").join(binary))
}

fn cargo_build(manifest: &Path, more: &[&str]) -> io::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--release", "--manifest-path"]).arg(manifest).args(more);
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("{command:?} failed: {status}"))),
    }
}

/// Compiles the Asio echo server and returns its path, or says what is missing.
///
/// # Errors
/// Fails when no C++ compiler or no Asio is found; the message says which package to install.
pub fn asio_program() -> io::Result<PathBuf> {
    compile("asio/echo.cpp", "echo_asio", &[], "asio.hpp", "libasio-dev")
}

/// Compiles the gRPC echo and returns its path, or says what is missing.
///
/// # Errors
/// Fails when no C++ compiler or no gRPC is found; the message says which package to install.
pub fn grpc_program() -> io::Result<PathBuf> {
    // Its callback API takes a lock of Abseil's inline, which its own package description does not link.
    let libraries = ["-lgrpc++", "-lgrpc", "-lgpr", "-labsl_synchronization"];
    compile("grpc/echo.cpp", "rpc_grpc", &libraries, "grpcpp/", "libgrpc++-dev")
}

/// Compiles `source`, unless its program is newer; `header` missing means that Debian's `package` is.
fn compile(source: &str, name: &str, libraries: &[&str], header: &str, package: &str) -> io::Result<PathBuf> {
    let peers = benches_directory().join("peers");
    let source = peers.join(source);
    let directory = peers.join("target/cpp");
    std::fs::create_dir_all(&directory)?;
    let program = directory.join(name);
    let changed = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified());
    if changed(&program).is_ok_and(|built| changed(&source).is_ok_and(|written| written < built)) {
        return Ok(program);
    }
    let compilers = ["g++", "clang++", "c++"];
    let Some(compiler) = compilers.into_iter().find(|name| find_program(name).is_some()) else {
        return Err(io::Error::other(format!("no C++ compiler found (Debian: apt install g++ {package})")));
    };
    let mut command = Command::new(compiler);
    command.args(["-O2", "-std=c++17", "-pthread"]).arg(&source).arg("-o").arg(&program).args(libraries);
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(program);
    }
    let message = String::from_utf8_lossy(&output.stderr);
    if message.contains(header) && message.contains("No such file") {
        return Err(io::Error::other(format!("no headers of it found (Debian: apt install {package})")));
    }
    Err(io::Error::other(format!("{compiler} failed: {}", message.lines().next().unwrap_or("no message"))))
}

/// Returns the path of `name` among the directories of PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
}
