//! `owner`: the owner's key apart from the home, for who wants it offline, and back in it.
//!
//! A file that `owner export` wrote holds the key under a passphrase of its own, and opens everywhere: given to a command with
//! `--owner FILE`, it does there what the key in the home would. Without it the home is what any writer's is, and more: it has
//! the user's key, which says who may write and who keeps the drive's root. What takes the owner's word waits: letting people
//! in, removing them, renewing passports, and what nodes keep for who has nothing but the words (`keeping`).
//!
//! The key leaves the home last, once what was written is known to open. Not here: what the owner's key is for (`identity`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use overlay::message::Renew;
use overlay::{Overlay, Passport, Revocations};
use reactor::crypto::Identity;
use serde::{Deserialize, Serialize};

use crate::admitting::{now, seconds};
use crate::cli::{Owner, OwnerAction};
use crate::client::{Client, Settings};
use crate::client_directory::ClientDirectory;
use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::home::{Home, Lock};
use crate::identity;
use crate::keeping;
use crate::keyring;
use crate::members::age;
use crate::network::{KeyFile, Network, Role};
use crate::output::say;
use crate::process;
use crate::remove::on_each;
use crate::roll::Roll;
use crate::secrets::Source;
use crate::shelf;
use crate::words;

/// A node writes them down before it answers.
const RENEW_LIMIT: Duration = Duration::from_secs(20);
/// Passports in one call: 14 KiB.
const PASSPORTS_PER_CALL: usize = 64;

/// `owner.json`: that the owner's key is not in the home that it made, and what is known of where it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Away {
    /// Seconds since 1970.
    since: u64,
    /// The file that it was written to.
    file: PathBuf,
}

impl Kind for Away {
    const KIND: &'static str = "hypha owner";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
}

/// Runs the command; `exported` is where the passphrase of a file comes from that is to be imported.
///
/// # Errors
/// `Failure::NotTheOwner`, `Failure::OwnerOfAnother`, `Failure::NotGiven`, `Failure::WrongPassphrase`, `Failure::Words`,
/// `Failure::Locked` if the home is in use, `Failure::Renewing` or `Failure::NoNode`, or those of the files.
pub(crate) fn owner(options: &Owner, exported: &Source<'_>) -> Result<(), Failure> {
    let home = Home::locate(options.home().home.as_deref())?;
    let network = home.network()?;
    match &options.action {
        OwnerAction::Export { file, new_passphrase_fd, .. } => {
            let _unused = unused(&home)?;
            export(&home, file, *new_passphrase_fd)
        }
        OwnerAction::Renew { .. } => renew(&home, &network),
        OwnerAction::Import { file: Some(file), .. } => {
            let _unused = unused(&home)?;
            import(&home, &network, &keyring::open_exported(file, &exported.ask()?)?)?;
            say(format_args!(
                "{} has it still, under its passphrase: remove it, or keep it as a copy",
                file.display()
            ));
            Ok(())
        }
        OwnerAction::Import { file: None, words_fd, .. } => {
            let _unused = unused(&home)?;
            let source = Source { descriptor: *words_fd, credential: None, what: "the 24 words" };
            import(&home, &network, &Identity::from_seed(&*words::parse(&source.ask_words()?)?))
        }
    }
}

/// Proof that nobody uses the home: whoever has its drive reads the key whenever something is to be signed.
///
/// # Errors
/// `Failure::KeysInUse`, or those of the locks.
pub(crate) fn unused(home: &Home) -> Result<(Lock, Vec<ClientDirectory>), Failure> {
    let take = || {
        let lock = home.lock()?;
        let drives: Result<Vec<_>, Failure> =
            ClientDirectory::all(home.path()).map(|path| ClientDirectory::take(&path)).collect();
        Ok((lock, drives?))
    };
    take().map_err(|failure| match failure {
        Failure::Locked { path, holder } => Failure::KeysInUse { path, holder },
        other => other,
    })
}

fn export(home: &Home, file: &Path, new_passphrase_fd: Option<u16>) -> Result<(), Failure> {
    let owner = identity::owner(home)?;
    let file = std::path::absolute(file).map_err(|error| Failure::file(file, error))?;
    let place = keyring::directory_of(&file);
    let place = fs::canonicalize(&place).map_err(|error| Failure::file(&place, error))?;
    if fs::canonicalize(home.path()).is_ok_and(|home| place.starts_with(home)) {
        let reason = "a file in the home would be no place apart from it".into();
        return Err(Failure::Untrusted { path: file, reason });
    }
    if file.exists() {
        return Err(Failure::file(&file, rustix::io::Errno::EXIST.into()));
    }
    let what = "a passphrase for the file with the owner's key";
    let passphrase = Source { descriptor: new_passphrase_fd, credential: None, what }.ask_new()?;
    keyring::write_file(&file, &owner.seed(), &passphrase)?;
    if keyring::open_exported(&file, &passphrase)?.public_key() != owner.public_key() {
        return Err(Failure::damaged(
            &file,
            "it does not give back what was written; the key is still in the home",
        ));
    }
    files::save(&home.owner_away_file(), &Away { since: now(), file: file.clone() })?;
    let key = home.owner_key_file();
    if key.exists() {
        fs::remove_file(&key).map_err(|error| Failure::file(&key, error))?;
        settle(home)?;
    }
    say(format_args!(
        "the owner's key is in {}, and not in {} any more",
        file.display(),
        home.path().display()
    ));
    say(
        "keep a copy of that file, or the words of `recovery`: without either of them nobody is ever let in or removed again\n\
         who was invited waits for an `up` or `mount` with --owner FILE, and passports for `owner renew`; `status` says how long they last",
    );
    Ok(())
}

fn import(home: &Home, network: &Network, owner: &Identity) -> Result<(), Failure> {
    if owner.public_key() != network.owner_key() {
        return Err(Failure::OwnerOfAnother { path: home.path().into() });
    }
    keyring::save(&home.owner_key_file(), KeyFile::plain(Role::Owner, owner, None))?;
    let mark = home.owner_away_file();
    if mark.exists() {
        fs::remove_file(&mark).map_err(|error| Failure::file(&mark, error))?;
    }
    settle(home)?;
    say(format_args!("the owner's key is in {} again", home.path().display()));
    Ok(())
}

/// Signs the members' passports that are due, and has the nodes keep all of them for their holders.
fn renew(home: &Home, network: &Network) -> Result<(), Failure> {
    identity::owner(home)?;
    let passports = Roll::renewed(home, network, SystemTime::now())?.passports(&home.revocations(network)?);
    let settings = Settings::of_home(home, network.clone());
    let (by, of) = process::run(|| {
        let client = Client::connect(&settings)?;
        let nodes = shelf::live_nodes(client.overlay());
        let taken = on_each(client.overlay(), &nodes, |overlay, node| {
            let take = |some: &[Passport]| {
                overlay.call::<Renew>(node, &some.to_vec(), Bytes::new(), RENEW_LIMIT).is_ok()
            };
            passports.chunks(PASSPORTS_PER_CALL).all(take)
        });
        keeping::once(&settings, client.overlay());
        client.leave();
        Ok::<_, Failure>((taken.iter().filter(|taken| **taken == Some(true)).count(), nodes.len()))
    })?;
    if by == 0 {
        return Err(Failure::Renewing { reason: "no node has taken them".into() });
    }
    let members =
        if passports.len() == 1 { "1 member".into() } else { format!("{} members", passports.len()) };
    say(format_args!("{by} of {of} nodes keep the newest passports of {members}"));
    Ok(())
}

fn settle(home: &Home) -> Result<(), Failure> {
    let path = home.path();
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| Failure::file(path, error))
}

/// What it means for others that the owner's key is not at hand.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OwnerAway {
    /// Seconds since 1970.
    since: u64,
    file: PathBuf,
    /// Tickets that are good, and that nobody gets in by.
    tickets_waiting: usize,
    /// When the first passport of a member ends, if any does.
    first_passport_ends: Option<u64>,
}

/// The file that the owner's key of a home is in, if it was taken out of it.
pub(crate) fn away_in(home: &Home) -> Option<PathBuf> {
    let away: Away = files::load(&home.owner_away_file()).ok()?;
    (!home.owner_key_file().exists()).then_some(away.file)
}

impl OwnerAway {
    /// Where a home stands whose owner's key was taken out of it, and is not given to this process; `None` for every other home.
    /// Blocks.
    pub(crate) fn of(home: &Home, network: &Network) -> Option<OwnerAway> {
        if identity::has_owner(home) {
            return None;
        }
        let away: Away = files::load(&home.owner_away_file()).ok()?;
        let (roll, revoked) = (Roll::read(home).ok()?, home.revocations(network).ok()?);
        Some(OwnerAway::with(away, &roll, &revoked, now()))
    }

    fn with(away: Away, roll: &Roll, revoked: &Revocations, now: u64) -> OwnerAway {
        let ends: Vec<SystemTime> = roll.passports(revoked).iter().filter_map(Passport::expires).collect();
        OwnerAway {
            since: away.since,
            file: away.file,
            tickets_waiting: roll.open_tickets(revoked, now).count(),
            first_passport_ends: ends.into_iter().min().map(seconds),
        }
    }

    /// In words, for people.
    pub(crate) fn in_words(&self) -> String {
        let mut text = format!(
            "the owner's key is away (in {}): nobody is let in or removed but by what runs with --owner FILE",
            self.file.display()
        );
        match self.tickets_waiting {
            0 => {}
            1 => text += "; a ticket is good, and waits for it",
            count => text += &format!("; {count} tickets are good, and wait for it"),
        }
        match self.first_passport_ends.map(|ends| ends.saturating_sub(now())) {
            None => {}
            Some(0) => text += "; the passport of a member has ended: `owner renew --owner FILE` renews it",
            Some(left) => {
                let left = age(left, 0);
                text += &format!(
                    "; the first passport of a member ends in {left}: `owner renew --owner FILE` renews all"
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use overlay::Rights;
    use overlay::invitation::InvitedAs;

    use super::*;
    use crate::network::Hex;
    use crate::roll::{Invited, LetIn};

    #[test]
    fn it_is_told_who_waits_for_the_owner_and_how_long_they_last() {
        let (owner, member) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(5_000_000_000);
        let passport = Passport::issue(&owner, member.public_key(), Rights::CLIENT, Some(ends));
        let let_in = LetIn {
            key: Hex(*member.public_key().as_bytes()),
            sealing_key: Hex([2; 32]),
            name: "ann".into(),
            role: InvitedAs::Writer,
            since: 0,
            ticket: Hex([3; 32]),
            number: None,
            may_be_on_drive: true,
            passport: Some(Hex(passport.to_bytes())),
        };
        let ticket = |ticket, uses, expires| Invited {
            ticket: Hex([ticket; 32]),
            role: InvitedAs::Reader,
            uses,
            issued: 0,
            expires,
        };
        // One is used, one is over, one is good.
        let roll = Roll {
            invitations: vec![ticket(3, 1, 90), ticket(4, 1, 9), ticket(5, 1, 90)],
            members: vec![let_in],
            ..Roll::default()
        };
        let away = || Away { since: 7, file: "/media/key".into() };
        let told = OwnerAway::with(away(), &roll, &Revocations::default(), 10);
        assert_eq!((told.tickets_waiting, told.first_passport_ends), (1, Some(5_000_000_000)));
        assert!(told.in_words().contains("/media/key") && told.in_words().contains("a ticket is good"));
        // Who was removed has no passport that could end.
        let revoked = Revocations::default();
        let revoked = revoked.with(&owner, [member.public_key()], SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(OwnerAway::with(away(), &roll, &revoked, 10).first_passport_ends, None);
    }
}
