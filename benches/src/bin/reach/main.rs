//! The real program behind routers of every kind, two by two: how they reach each other, and what becomes of a drive in use
//! when the ways change.
//!
//! `cargo run --release -p benches --bin reach` builds a lab of network namespaces (`reactor/tests/nat_lab`): a machine outside
//! that relays, and behind a router of each kind a node and a member that calls. Each calls each node by `netcheck`, and the
//! table says whether directly, after how long, and whether that is what is asked of the pair; `-- --delay 25` has what passes
//! take its time. `-- --neighbours` has two in one network, and two behind one provider's router; `-- --upnp` two of whom one has
//! a router that maps ports; `-- --changes` has a drive written meanwhile flushed, moved, cut, and so on. `--quick` is for continuous
//! integration.
//!
//! It takes root, `ip`, `nft`, and FUSE; without them it says so loudly, and does nothing.
//!
//! What it is not: a judgement of times. The machine is said to be quiet by whoever reads them.

#![forbid(unsafe_code)]

mod changes;
mod demands;
#[path = "../../../../reactor/tests/nat_lab/mod.rs"]
mod nat_lab;
mod neighbours;
mod network;
mod pairs;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use nat_lab::Kind;

/// Has the real program reach others through routers of every kind, and prints how it did.
#[derive(Parser)]
struct Arguments {
    /// Only these kinds of routers; a name that is none prints all.
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// Calls from each to each.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// How long a direct way is looked for, in seconds.
    #[arg(long, default_value_t = 12)]
    seconds: u32,
    /// Of a hundred packets of each site so many are lost, each way.
    #[arg(long, default_value_t = 0)]
    loss: u32,
    /// What passes to a site or from there takes so many milliseconds longer.
    #[arg(long, default_value_t = 0)]
    delay: u32,
    /// Routers answer for themselves what nobody inside has asked for.
    #[arg(long)]
    open: bool,
    /// Routers turn round what is sent to their own outside addresses.
    #[arg(long)]
    hairpin: bool,
    /// Fails where a pair is not reached as soon, and as often, as is demanded of it: on a quiet machine.
    #[arg(long)]
    strict: bool,
    /// Two in one network, and two behind one provider's router.
    #[arg(long)]
    neighbours: bool,
    /// Two of whom one has a router that maps ports by UPnP, NAT-PMP and PCP; it takes miniupnpd.
    #[arg(long)]
    upnp: bool,
    /// Has a drive written while the ways change, between the first two kinds given [default: two home routers].
    #[arg(long)]
    changes: bool,
    /// Of the changes only these, of flush, move, udp, cut, silence, kill and drop.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The program that is tried [default: built as this one].
    #[arg(long)]
    program: Option<std::path::PathBuf>,
    /// Two kinds and one call each: shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        // A busy machine may need most of it; who is reached directly takes less.
        (arguments.runs, arguments.seconds) = (1, 10);
        arguments.kinds = ["port-restricted", "symmetric"].map(str::to_owned).to_vec();
    }
    if !nat_lab::is_usable("reach") {
        return ExitCode::SUCCESS;
    }
    if !Path::new("/dev/fuse").exists() {
        nat_lab::loud("SKIPPED: reach: there is no /dev/fuse, and the node outside comes with a drive");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("reach: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing was lost, and everybody was reached at all.
fn run(arguments: &Arguments) -> io::Result<bool> {
    let program = match &arguments.program {
        Some(program) => std::path::absolute(program)?,
        None => benches::build::own_program("storage-node", "storage-node")?,
    };
    let kinds = kinds_named(&arguments.kinds)?;
    if arguments.changes {
        let kinds = match kinds[..] {
            [one, other] => [one, other],
            _ => [Kind::PortRestricted; 2],
        };
        return changes::run(&program, kinds, &arguments.only);
    }
    if arguments.neighbours {
        return neighbours::run(&program, neighbours::settings(), arguments);
    }
    if arguments.upnp {
        return match nat_lab::upnp::is_here("reach --upnp") {
            true => neighbours::run(&program, neighbours::mapped(), arguments),
            false => Ok(true),
        };
    }
    if arguments.delay > 0 && !nat_lab::delay::is_here("reach --delay") {
        return Ok(true);
    }
    pairs::run(&program, &kinds, arguments)
}

fn kinds_named(names: &[String]) -> io::Result<Vec<Kind>> {
    if names.is_empty() {
        return Ok(Kind::ALL.to_vec());
    }
    let kind = |name: &String| {
        let known = || Kind::ALL.map(demands::name).join(", ");
        let found = Kind::ALL.into_iter().find(|kind| demands::name(*kind) == name);
        found.ok_or_else(|| io::Error::other(format!("there is no kind {name}: there are {}", known())))
    };
    names.iter().map(kind).collect()
}
