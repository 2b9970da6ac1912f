//! Who works at this machine, as other people read it: in the name of a conflict's file, in the list of snapshots, and in
//! the roll, unless `join --as` says otherwise. Whoever joined goes by what the roll calls him, as the others see it in `members`; the
//! home that made the network by user and machine. Nothing is granted to a name.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::errors::Failure;
use crate::files::{self, Kind};

/// Where accounts have their names on every Unix; those of a directory service are not in it, and go by their number.
const ACCOUNTS: &str = "/etc/passwd";

/// What whoever this home is of is called: beside his key.
const CALLED: &str = "called.json";

#[derive(Debug, Serialize, Deserialize)]
struct Called {
    name: String,
}

impl Kind for Called {
    const KIND: &'static str = "hypha name";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
}

/// Has the holder of a key be called so from now on.
///
/// # Errors
/// If it can't be written.
pub(crate) fn call(key_file: &Path, name: &str) -> Result<(), Failure> {
    files::save(&key_file.with_file_name(CALLED), &Called { name: name.into() })
}

/// What the holder of a key is called. That it can't be read is no reason not to write files.
pub(crate) fn of(key_file: &Path) -> String {
    files::load::<Called>(&key_file.with_file_name(CALLED)).map_or_else(|_| author(), |called| called.name)
}

/// user@host. The user is who runs this process, whatever the environment says of who logged in.
pub(crate) fn author() -> String {
    let number = rustix::process::geteuid().as_raw();
    let accounts = fs::read(ACCOUNTS).unwrap_or_default();
    let user = name_of(number, &String::from_utf8_lossy(&accounts)).unwrap_or_else(|| number.to_string());
    format!("{user}@{}", host())
}

/// What a node is called unless somebody says otherwise: by its machine, and not by whoever started it, who may be a member himself.
pub(crate) fn of_node() -> String {
    format!("node@{}", host())
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The first account with that number (passwd(5): name, password, number, ...).
fn name_of(number: u32, accounts: &str) -> Option<String> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let is_it = fields.nth(1)?.parse() == Ok(number);
        is_it.then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_named_as_its_number_says() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\n+\n:x:5:5\nann:x:1000:1000::/home/ann:/bin/sh\ntoor:x:0:0::/:/bin/sh\n";
        assert_eq!(name_of(0, accounts).as_deref(), Some("root"));
        assert_eq!(name_of(1000, accounts).as_deref(), Some("ann"));
        assert_eq!((name_of(5, accounts), name_of(7, accounts), name_of(0, "")), (None, None, None));
    }
}
