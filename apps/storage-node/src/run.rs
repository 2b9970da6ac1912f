//! `run`: one storage node in the foreground.
//!
//! It prints one line when it serves, and that line is also how `up` learns the node's address.

use std::time::Duration;

use crate::children::READY;
use crate::cli::Run;
use crate::copies;
use crate::errors::Failure;
use crate::home::NodeHome;
use crate::node::StorageNode;
use crate::output::{self, say};
use crate::process;
use crate::removed;
use crate::stop::{Reason, Stop};

/// What a node says that relays.
pub(crate) const RELAYS: &str = "it relays for members whose routers keep them apart: let its port in by TCP and by UDP (--relay=off: not)";

/// After a killed `up`, its nodes take a moment to leave while the next `up` starts theirs already.
pub(crate) const PREDECESSOR_LIMIT: Duration = Duration::from_secs(15);

/// Runs the command.
///
/// # Errors
/// What keeps the node from starting; `Failure::Removed` once it is no member of its network any more; `Failure::Twin` once a
/// copy of its home is found for which it is to stop.
pub(crate) fn run(options: &Run) -> Result<(), Failure> {
    let home =
        NodeHome::open(options.home.as_deref().ok_or(Failure::NoHome)?).map_err(|failure| match failure {
            Failure::NotAHome { path, missing } => Failure::NotANodesHome { path, missing },
            other => other,
        })?;
    if options.until_stdin_closes {
        output::bound_log(home.log_file());
    }
    process::run(|| {
        let stop = if options.until_stdin_closes { Stop::on_input_end()? } else { Stop::on_signals()? };
        let patience = if options.until_stdin_closes { PREDECESSOR_LIMIT } else { Duration::ZERO };
        let (listen, accept_copy) = (options.listen, options.accept_copy);
        let node = StorageNode::start(&home, listen, &options.says, &options.nodes, patience, accept_copy)?;
        let relays = match node.relay(options.relay.when) {
            Ok(relays) => relays,
            Err(failure) => {
                node.stop();
                return Err(failure);
            }
        };
        node.map_ports(options.mapping);
        node.discover(options.discovery);
        say(format_args!("node {} {READY}{}", node.number(), node.address()));
        if relays {
            say(RELAYS);
        }
        if !options.until_stdin_closes {
            if let Err(failure) = home.note_address(node.number(), node.address()) {
                say(format_args!("{failure}; clients have to be told with --node {}", node.address()));
            }
            say("Ctrl-C stops it; what it stores stays");
        }
        let opener = stop.clone();
        let watching = removed::watch(node.overlay(), removed::NODE, move |_| opener.open(Reason::Removed));
        let of_copies = copies::watch(&node, &stop);
        stop.wait();
        drop((watching, of_copies));
        let removed = removed::refuse(node.overlay(), removed::NODE);
        let copied = copies::refuse(&node);
        node.stop();
        copied?;
        // `up` knows what it means that a node which was not told to end has ended well: not to start it again.
        if options.until_stdin_closes { Ok(()) } else { removed }
    })
}
