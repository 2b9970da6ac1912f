//! `passphrase`: a home whose keys take a passphrase to be used: setting it, changing it, taking it off.
//!
//! Each step is whole and on the disk before the next, and after each the home opens with the old passphrase or with the new
//! one: what is sealed is sealed under the home's key, and that is under one passphrase, which one file's replacement changes.
//! Setting seals one key file after another, once the home's key is there; taking it off opens them one by one, and removes the
//! home's key last. Whoever was cut short says the same again.
//!
//! The user's and the owner's keys are sealed. A node's is not, since it opens nothing that its own disk does not lie open to:
//! it lets the node be itself, so that it starts again without anybody.
//!
//! What a key file held before it was sealed may be on the disk still, in blocks that the file system has given up. Not here:
//! how a key is sealed (`keyring`).

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use reactor::crypto::aead::Key;
use reactor::crypto::key_file::Cost;

use crate::cli::Passphrase;
use crate::errors::Failure;
use crate::files;
use crate::home::Home;
use crate::keyring;
use crate::network::KeyFile;
use crate::output::say;
use crate::owner;
use crate::secrets::{Secret, Source};

/// Runs the command.
///
/// # Errors
/// `Failure::WrongPassphrase`, `Failure::NotGiven`, `Failure::Locked` if the home is in use, `Failure::NothingToSeal`, or those of
/// the home's files.
pub(crate) fn passphrase(options: &Passphrase, current: &Source<'_>) -> Result<(), Failure> {
    let home = Home::locate(options.home.home.as_deref())?;
    home.network()?;
    let keys = Keys::of(&home)?;
    let new = Source { descriptor: options.new_passphrase_fd, credential: None, what: "the new passphrase" };
    // Whoever has the drive has read keys, and reads them again.
    let _unused = owner::unused(&home)?;
    keys.sweep()?;
    let was_sealed = keys.are_sealed()?;
    if options.remove {
        if !was_sealed {
            keys.forget()?;
            say("the keys of this home are under no passphrase");
            return Ok(());
        }
        keys.open(&current.ask()?)?;
        say("the keys of this home are under no passphrase any more: whoever reads its files has them");
        return Ok(());
    }
    match was_sealed {
        true => keys.change(&current.ask()?, || new.ask_new())?,
        false => keys.set(&new.ask_new()?)?,
    }
    say(format_args!(
        "the keys of this home are under {} passphrase (Argon2id: {})",
        if was_sealed { "another" } else { "a" },
        Cost::default()
    ));
    say(format_args!(
        "commands and drives of this home ask for it; its nodes start without it. Nobody can bring it back: keep it. If it is lost, {}",
        keyring::lost(home.is_owners())
    ));
    Ok(())
}

/// The key files of a home that a passphrase is for.
struct Keys {
    directory: PathBuf,
    files: Vec<PathBuf>,
}

impl Keys {
    fn of(home: &Home) -> Result<Keys, Failure> {
        let files: Vec<PathBuf> = keyring::there(&home.sealable_keys()).cloned().collect();
        match files.is_empty() {
            true => Err(Failure::NothingToSeal { path: home.path().into() }),
            false => Ok(Keys { directory: home.path().into(), files }),
        }
    }

    /// Whether one of them is. All have to be read for that: what can't be may be sealed, under the only key that opens it.
    fn are_sealed(&self) -> Result<bool, Failure> {
        Ok(self.each_sealed()?.contains(&true))
    }

    fn are_all_sealed(&self) -> Result<bool, Failure> {
        Ok(!self.each_sealed()?.contains(&false))
    }

    fn each_sealed(&self) -> Result<Vec<bool>, Failure> {
        self.files.iter().map(|path| keyring::is_sealed(path)).collect()
    }

    /// Puts the keys under a passphrase. The home's key is drawn anew: nothing is sealed under the one that may be there.
    fn set(&self, new: &Secret) -> Result<(), Failure> {
        let key = Key::random();
        keyring::write_file(&self.passphrase_file(), key.as_bytes(), new)?;
        self.seal(&key)
    }

    /// Puts them under another passphrase, and under this one those that were not under any: if there are such, it may be the same.
    fn change(&self, current: &Secret, new: impl FnOnce() -> Result<Secret, Failure>) -> Result<(), Failure> {
        let key = keyring::open_home_key(&self.directory, current)?;
        let new = new()?;
        if new == *current && self.are_all_sealed()? {
            let reason = "it is the one that the keys are under already".into();
            return Err(Failure::NotGiven { what: "another passphrase".into(), reason });
        }
        keyring::write_file(&self.passphrase_file(), key.as_bytes(), &new)?;
        self.seal(&key)
    }

    fn seal(&self, key: &Key) -> Result<(), Failure> {
        for path in &self.files {
            files::save(path, &keyring::seal(files::load::<KeyFile>(path)?, key))?;
        }
        Ok(())
    }

    /// Takes the passphrase off.
    fn open(&self, current: &Secret) -> Result<(), Failure> {
        let key = keyring::open_home_key(&self.directory, current)?;
        for path in &self.files {
            let opened = keyring::open(path, files::load(path)?, Some(&key))?;
            files::save(path, &KeyFile::plain(opened.role, &opened.identity, opened.passport))?;
        }
        self.forget()
    }

    /// Removes the home's key, under which nothing is sealed.
    fn forget(&self) -> Result<(), Failure> {
        let path = self.passphrase_file();
        if self.are_sealed()? {
            return Err(Failure::Internal("a key is sealed still".into()));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::file(&path, error)),
            _ => settle(&self.directory),
        }
    }

    /// Removes what writes that were cut short left beside the key files: it may be a key that is not sealed.
    fn sweep(&self) -> Result<(), Failure> {
        let failed = |error| Failure::file(&self.directory, error);
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".new") && name.contains(".key.") {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn passphrase_file(&self) -> PathBuf {
        keyring::passphrase_file(&self.directory)
    }
}

/// Has a directory's names on the disk.
fn settle(directory: &Path) -> Result<(), Failure> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(|error| Failure::file(directory, error))
}

#[cfg(test)]
mod tests {
    use reactor::crypto::Identity;
    use zeroize::Zeroizing;

    use super::*;
    use crate::network::Role;

    fn secret(text: &str) -> Secret {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    /// A home's directory with two keys, and what each must be.
    fn keys() -> (tempfile::TempDir, Keys) {
        let directory = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> =
            ["owner.key", "user.key"].iter().map(|name| directory.path().join(name)).collect();
        for (path, (role, seed)) in files.iter().zip([(Role::Owner, 1), (Role::User, 2)]) {
            files::save(path, &KeyFile::plain(role, &Identity::from_seed(&[seed; 32]), None)).unwrap();
        }
        let directory_path = directory.path().into();
        (directory, Keys { directory: directory_path, files })
    }

    /// Whether everything opens with this passphrase.
    fn opens_with(keys: &Keys, passphrase: &str) -> bool {
        let key = keyring::open_home_key(&keys.directory, &secret(passphrase)).ok();
        keys.files.iter().zip([1, 2]).all(|(path, seed)| {
            let opened = keyring::open(path, files::load(path).unwrap(), key.as_ref());
            opened.is_ok_and(|opened| *opened.identity.seed() == [seed; 32])
        })
    }

    #[test]
    fn a_passphrase_is_set_changed_and_taken_off() {
        let (_directory, keys) = keys();
        keys.set(&secret("first")).unwrap();
        assert!(keys.are_sealed().unwrap() && opens_with(&keys, "first") && !opens_with(&keys, "second"));
        let wrong =
            keys.change(&secret("second"), || panic!("a wrong one is told before another is asked for"));
        assert!(matches!(wrong, Err(Failure::WrongPassphrase { .. })));
        let same = keys.change(&secret("first"), || Ok(secret("first")));
        assert!(matches!(same, Err(Failure::NotGiven { .. })), "that would be no other one");
        keys.change(&secret("first"), || Ok(secret("second"))).unwrap();
        assert!(opens_with(&keys, "second") && !opens_with(&keys, "first"));
        assert!(matches!(keys.open(&secret("first")), Err(Failure::WrongPassphrase { .. })));
        keys.open(&secret("second")).unwrap();
        assert!(!keys.are_sealed().unwrap() && opens_with(&keys, "none is needed"));
        assert!(!keys.passphrase_file().exists());
    }

    #[test]
    fn whoever_was_cut_short_has_keys_that_open_and_goes_on_with_it() {
        let (_directory, keys) = keys();
        // Before any key was sealed.
        keyring::write_file(&keys.passphrase_file(), &[9; 32], b"first").unwrap();
        assert!(!keys.are_sealed().unwrap() && opens_with(&keys, "first"));
        keys.set(&secret("again")).unwrap();
        assert!(opens_with(&keys, "again"));
        // Between the one and the other, on the way there and on the way back.
        let owner = KeyFile::plain(Role::Owner, &Identity::from_seed(&[1; 32]), None);
        files::save(&keys.files[0], &owner).unwrap();
        assert!(keys.are_sealed().unwrap() && opens_with(&keys, "again"));
        keys.change(&secret("again"), || Ok(secret("again"))).unwrap();
        assert!(
            keys.files.iter().all(|path| keyring::is_sealed(path).unwrap()) && opens_with(&keys, "again")
        );
        files::save(&keys.files[0], &owner).unwrap();
        keys.open(&secret("again")).unwrap();
        assert!(!keys.are_sealed().unwrap() && opens_with(&keys, "none is needed"));
    }

    /// What went wrong: what could not be read passed for plain, and the only key that opens it was removed.
    #[test]
    fn a_sealed_key_that_cannot_be_read_keeps_what_opens_it() {
        use std::os::unix::fs::PermissionsExt;
        let (_directory, keys) = keys();
        keys.set(&secret("first")).unwrap();
        let before = fs::read(keys.passphrase_file()).unwrap();
        for path in &keys.files {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        assert!(matches!(keys.are_sealed(), Err(Failure::KeyReadable { .. })));
        assert!(matches!(keys.forget(), Err(Failure::KeyReadable { .. })));
        assert_eq!(fs::read(keys.passphrase_file()).unwrap(), before);
        // A link to a disk that is not there is a key all the same.
        let gone = [keys.directory.join("gone.key")];
        std::os::unix::fs::symlink("nowhere", &gone[0]).unwrap();
        assert_eq!(keyring::there(&gone).count(), 1);
    }

    #[test]
    fn no_plain_key_of_a_write_that_was_cut_short_stays_behind() {
        let (directory, keys) = keys();
        let left = directory.path().join("user.key.4711.new");
        fs::write(&left, "a plain seed").unwrap();
        keys.sweep().unwrap();
        assert!(!left.exists() && opens_with(&keys, "none is needed"));
    }
}
