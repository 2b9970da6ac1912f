//! Builds what is measured: our own programs, the peers' workspace, the C++ peer.
//!
//! By the profile by which the harness itself was built, but always with optimisations; and every time: cargo finds in
//! a moment that nothing changed, while a forgotten rebuild is a figure about yesterday's code.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Returns the directory of this crate's sources.
fn benches_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo puts what it builds, and by which of its profiles.
struct Place {
    target: PathBuf,
    profile: String,
}

impl Place {
    /// Programs are built by the profile by which this one was, but never without optimisations.
    fn of_this_program() -> io::Result<Self> {
        // This program is target/PROFILE/NAME, or a test in target/PROFILE/deps, or an example beside that.
        let own = std::env::current_exe()?;
        let directory =
            own.ancestors().skip(1).find(|path| !path.ends_with("deps") && !path.ends_with("examples"));
        let parts = directory.and_then(|path| Some((path.parent()?, path.file_name()?.to_str()?)));
        let (target, profile) = parts.ok_or_else(|| {
            io::Error::other(format!("{} is in no target directory; run it through cargo", own.display()))
        })?;
        let profile = if profile == "debug" { "release" } else { profile };
        Ok(Self { target: target.to_path_buf(), profile: profile.to_owned() })
    }

    fn programs(&self) -> PathBuf {
        self.target.join(&self.profile)
    }
}

/// Builds the program `binary` of our workspace's `package` and returns its path.
///
/// # Errors
/// Fails when cargo does, whose message has been printed then.
pub fn own_program(package: &str, binary: &str) -> io::Result<PathBuf> {
    let manifest = benches_directory().join("../Cargo.toml");
    let place = Place::of_this_program()?;
    cargo_build(&manifest, &place.profile, &["-p", package, "--bin", binary])?;
    Ok(place.programs().join(binary))
}

/// Builds the example `example` of our workspace's `package` and returns its path.
///
/// # Errors
/// Fails when cargo does, whose message has been printed then.
pub fn own_example(package: &str, example: &str) -> io::Result<PathBuf> {
    let manifest = benches_directory().join("../Cargo.toml");
    let place = Place::of_this_program()?;
    cargo_build(&manifest, &place.profile, &["-p", package, "--example", example])?;
    Ok(place.programs().join("examples").join(example))
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
    Place::of_this_program().map(|place| place.target)
}

/// Builds the program `binary` of the peers' `package` and returns its path.
///
/// # Errors
/// Fails when cargo does, whose message has been printed then; or when it is not there and shall not be built.
pub fn peer_of(package: &str, binary: &str, rebuild: Rebuild) -> io::Result<PathBuf> {
    if rebuild == Rebuild::Always {
        return build_peer(binary, &["-p", package]);
    }
    let program = benches_directory().join("peers/target/release").join(binary);
    match program.is_file() {
        true => Ok(program),
        false => Err(io::Error::other("not built yet (a run without --quick builds it)")),
    }
}

/// Builds the peers' program `binary` and returns its path.
///
/// # Errors
/// Fails when cargo does, whose message has been printed then.
pub fn peer_program(binary: &str) -> io::Result<PathBuf> {
    build_peer(binary, &[])
}

fn build_peer(binary: &str, package: &[&str]) -> io::Result<PathBuf> {
    let peers = benches_directory().join("peers");
    let place = Place { target: peers.join("target"), ..Place::of_this_program()? };
    let directory = place.target.to_string_lossy();
    let more = [package, &["--bin", binary, "--target-dir", &directory]].concat();
    cargo_build(&peers.join("Cargo.toml"), &place.profile, &more)?;
    Ok(place.programs().join(binary))
}

fn cargo_build(manifest: &Path, profile: &str, more: &[&str]) -> io::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--profile", profile, "--manifest-path"]).arg(manifest).args(more);
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
