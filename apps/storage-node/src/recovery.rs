//! `recovery`: the owner's key as 24 words, on the terminal or on a page to print.
//!
//! With the words and the address of one node, `recover` brings back the home on a bare machine: the network, the user's key,
//! and who was let in. All of that but the key itself is kept by the nodes; so this looks whether they have it, and says what it
//! found before it shows anything. The words are as good as the home, and are shown only to who asked for it twice.
//!
//! Not here: what the words are (`words`), and the way back (`recover`).

use std::fs::OpenOptions;
use std::io::{BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use overlay::NodeId;
use reactor::crypto::PublicKey;
use zeroize::Zeroizing;

use crate::cli::Recovery;
use crate::client::{Client, Settings};
use crate::client_directory;
use crate::errors::Failure;
use crate::home::Home;
use crate::identity;
use crate::invite;
use crate::keeping::{self, Keeping, Kept};
use crate::network::{Network, NodeEntry};
use crate::output;
use crate::process;
use crate::qr;
use crate::volume;
use crate::words;

const WARNING: &str = "\
Whoever has these 24 words and reaches one node has everything: reads and changes the drive, lets people in, removes
them. They cannot be taken back. Write them on paper, alone, and keep that where you would keep a will; no photograph,
no file, no mail. Nobody needs them to help you.";

/// Runs the command.
///
/// # Errors
/// `Failure::NotTheOwner`, `Failure::NotShown` where nobody is there to see the words, `Failure::Keeping` if they would bring back
/// nothing, or those of the files.
pub(crate) fn recovery(options: &Recovery) -> Result<(), Failure> {
    let home = Home::locate(options.home.home.as_deref())?;
    let network = home.network()?;
    let owner = identity::owner(&home)?;
    let is_seen = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !is_seen && !options.show && options.page.is_none() {
        return Err(Failure::NotShown);
    }
    // What the words bring back has to be there first.
    let (kept, keepers) = give_to_nodes(&home, &network)?;
    output::warn(WARNING);
    if let Some(missing) = what_is_missing(&home, &network, &keepers)? {
        output::warn(missing);
    }
    output::settle();
    if is_seen && !options.show && options.page.is_none() && !is_confirmed()? {
        return Err(Failure::NotConfirmed { what: "the words were not shown", word: "show" });
    }
    let text = words::of(&owner.seed());
    let outside = outside(&home, &network, &keepers);
    match &options.page {
        Some(path) => {
            write_page(path, &page(&text, &network, &outside)?)?;
            output::warn(format_args!("print {}, and remove it", path.display()));
        }
        None => {
            output::print(&numbered(&text))?;
            if options.qr {
                output::print(&qr::render(&text)?)?;
            }
        }
    }
    output::warn(format_args!(
        "{} of {} nodes that were reached keep what goes with them, and the others get it from `up`; back with: storage-node recover --node {}",
        kept.by,
        kept.of,
        outside.first().map_or("ADDRESS".to_owned(), SocketAddr::to_string)
    ));
    Ok(())
}

/// Has the nodes keep what the words bring back, and makes sure that one does. Says also who does.
fn give_to_nodes(home: &Home, network: &Network) -> Result<(Kept, Vec<PublicKey>), Failure> {
    let settings = Settings::of_home(home, network.clone());
    let (kept, keepers) = process::run(|| {
        let user = settings.user()?;
        if !keeping::is_possible(home, network, &user) {
            return Err(identity::no_owner(home));
        }
        let client = Client::connect(&settings)?;
        let keeping = Keeping::new(home, network, &user);
        // The second puts together what another copy of this home was faster with.
        let kept = keeping.round(client.overlay(), None).or_else(|_| keeping.round(client.overlay(), None));
        client.leave();
        kept.map(|kept| (kept, keeping.keepers()))
    })?;
    match kept.by {
        0 => Err(Failure::Keeping { reason: "no node keeps what the words would bring back".into() }),
        _ => Ok((kept, keepers)),
    }
}

/// The nodes that are lost with this home.
fn inside(home: &Home, network: &Network) -> Vec<PublicKey> {
    let is_in_here = |node: &&NodeEntry| home.node(node.number).key_file().exists();
    let inside = network.nodes.iter().filter(is_in_here);
    inside.map(|node| PublicKey::from_bytes(node.public_key.0)).collect()
}

/// Where nodes were last that are not lost with this home, as far as other machines can reach them: those first that keep what the
/// words bring back.
fn outside(home: &Home, network: &Network, keepers: &[PublicKey]) -> Vec<SocketAddr> {
    let inside = inside(home, network);
    let mut ways = invite::ways_in(home, network);
    ways.retain(|way| inside.iter().all(|key| NodeId::of(key) != way.id));
    ways.sort_by_key(|way| keepers.iter().all(|key| NodeId::of(key) != way.id));
    let addresses = ways.iter().filter_map(|way| way.addresses.first().copied());
    addresses.filter(|address| !address.ip().is_loopback()).collect()
}

/// What the words would not bring back if this home were lost with the nodes in it; `None` if enough others are elsewhere.
fn what_is_missing(
    home: &Home,
    network: &Network,
    keepers: &[PublicKey],
) -> Result<Option<&'static str>, Failure> {
    let inside = inside(home, network);
    if keepers.iter().all(|keeper| inside.contains(keeper)) {
        return Ok(Some(
            "ALL NODES ARE IN THIS HOME: if it is lost with them, the words bring back NOTHING. Have nodes run elsewhere \
             (`invite --role node`, or move nodes/N), or back this directory up",
        ));
    }
    let root = volume::keepers(network, Some(&client_directory::first(home.path())))?;
    let is_outside = |id: &&NodeId| inside.iter().all(|key| NodeId::of(key) != **id);
    let outside = root.members().iter().filter(is_outside).count();
    Ok((outside < root.needed()).then_some(
        "TOO FEW OF THE NODES THAT KEEP THE DRIVE'S ROOT ARE OUTSIDE THIS HOME: if it is lost with them, the words bring back \
         the network, and NOT THE DRIVE. Have others keep it (`node list`, `node replace N`)",
    ))
}

/// Asks at the terminal whether the words are to be shown.
fn is_confirmed() -> Result<bool, Failure> {
    output::warn("Type `show` and Enter to see them:");
    output::settle();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|source| Failure::Stream { what: "standard input", source })?;
    Ok(answer.trim() == "show")
}

/// Four to a line, each with its number.
fn numbered(text: &str) -> Zeroizing<String> {
    let mut lines = Zeroizing::new(String::with_capacity(1024));
    for (index, word) in text.split(' ').enumerate() {
        let end = if index % 4 == 3 { "\n" } else { "" };
        lines.push_str(&format!("{:>2}. {word:<12}{end}", index + 1));
    }
    lines
}

/// A page for a printer: words, QR code, and what to do with them.
fn page(text: &str, network: &Network, outside: &[SocketAddr]) -> Result<Zeroizing<String>, Failure> {
    let cells: String = text
        .split(' ')
        .enumerate()
        .map(|(index, word)| format!("<li value=\"{}\">{word}</li>\n", index + 1))
        .collect();
    let addresses: Vec<String> = outside.iter().map(SocketAddr::to_string).collect();
    let node = addresses.first().map_or("ADDRESS", String::as_str);
    Ok(Zeroizing::new(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Recovery words</title>\n\
         <style>body{{font:12pt/1.5 serif;margin:2cm}}ol{{columns:3;font:14pt/1.8 monospace}}svg{{width:6cm;height:6cm}}</style>\n\
         </head><body>\n<h1>Recovery words</h1>\n<p>Of the network {}. {}</p>\n<ol>\n{cells}</ol>\n{}\n\
         <p>Back on any machine that reaches one of its nodes: <code>storage-node recover --node {node}</code></p>\n\
         <p>Nodes were last at: {}</p>\n</body></html>\n",
        &network.owner.to_string()[..12],
        WARNING.replace('\n', " "),
        qr::svg(text)?,
        if addresses.is_empty() { "no known address".into() } else { addresses.join(", ") },
    )))
}

/// A file that only this user reads, and that was not there before.
fn write_page(path: &Path, page: &str) -> Result<(), Failure> {
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
            file.write_all(page.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|error| Failure::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Founding;

    #[test]
    fn what_is_shown_is_read_again() {
        let text = words::of(&[7; 32]);
        let shown = numbered(&text);
        assert_eq!(shown.lines().count(), 6);
        assert_eq!(*words::parse(&shown).unwrap(), [7; 32]);
    }

    #[test]
    fn the_page_has_the_words_a_code_and_the_way_back() {
        let founding = Founding::new();
        let network =
            founding.network(vec![NodeEntry { number: 1, public_key: founding.node_key().1, address: None }]);
        let text = words::of(&[7; 32]);
        let page = page(&text, &network, &["192.0.2.7:4701".parse().unwrap()]).unwrap();
        for word in text.split(' ') {
            assert!(page.contains(&format!(">{word}</li>")), "{word}");
        }
        assert!(page.contains("<svg") && page.contains("recover --node 192.0.2.7:4701"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("page.html");
        write_page(&path, &page).unwrap();
        assert!(write_page(&path, &page).is_err(), "what is there is not replaced");
    }
}
