//! What can go wrong at the command line, and what to do next about each.
//!
//! One enum for the whole program: its reader is a person at a terminal, so each variant is a sentence about the
//! cause, and [`Failure::advice`] a sentence about the next step. Errors of the crates below arrive as their text.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use filesystem::Errno;
use filesystem::calendar::Civil;
use filesystem::format::Shown;
use filesystem::mount::MountError;
use filesystem::volume::{RestoreError, SnapshotError};
use thiserror::Error;

/// As a shell says of a program that SIGPIPE ends, which this one does not let end it: 128, and the signal's number.
const READER_GONE: u8 = 128 + 13;

/// Why a command did not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// Ctrl-C, before a command that only looks had anything to show.
    #[error("it was cut short")]
    CutShort,
    /// Neither `--home` nor the environment says where to remember things.
    #[error("no home: neither --home nor XDG_DATA_HOME nor HOME is set")]
    NoHome,
    /// Neither `--directory` nor the environment says where a client's journal may be.
    #[error("no place for the journal: neither --directory nor XDG_DATA_HOME nor HOME is set")]
    NoDirectory,
    /// The directory holds no network.
    #[error("{} is not a hypha home: it has no {missing}", path.display())]
    NotAHome { path: PathBuf, missing: &'static str },
    /// A node is to run where none has its home.
    #[error("{} is the home of no node: it has no {missing}", path.display())]
    NotANodesHome { path: PathBuf, missing: &'static str },
    /// A directory that is about to become a home has other things in it.
    #[error("{} is not a hypha home, and is not empty", path.display())]
    HomeOccupied { path: PathBuf },
    /// The home of a whole network was given where a node's home is needed.
    #[error("{} is the home of a network, not of one node", path.display())]
    NetworkHomeForNode { path: PathBuf },
    /// Another process uses the home.
    #[error("{} is in use by process {holder}", path.display())]
    Locked { path: PathBuf, holder: String },
    /// The home's keys are to be changed, and a process has read them.
    #[error("{} is in use by process {holder}, which reads its keys as they are", path.display())]
    KeysInUse { path: PathBuf, holder: String },
    /// The home has another number of nodes.
    #[error("{} was made with {remembered} node{}, not {asked}", path.display(), if *remembered == 1 { "" } else { "s" })]
    OtherNodeCount { path: PathBuf, remembered: u16, asked: u16 },
    /// `up` starts nodes, and the home has none.
    #[error(
        "{} has no nodes of its own: {}", path.display(),
        if *was_recovered { "it was brought back, and those of the former home are not in it" } else { "it joined a network whose nodes run elsewhere" }
    )]
    NoNodesHere { path: PathBuf, was_recovered: bool },
    /// A file operation failed.
    #[error("{}: {}", path.display(), plain(source))]
    File { path: PathBuf, source: io::Error },
    /// A settings file does not say what it should.
    #[error("{} is damaged or not what it should be: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    /// A settings file is from a later version.
    #[error("{} has format {found}; this program knows up to {known}", path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    /// A key file has too wide a mode.
    #[error("others can read the key file {} (mode {mode:o})", path.display())]
    KeyReadable { path: PathBuf, mode: u32 },
    /// Something that should be this user's alone may be another's doing.
    #[error("{} cannot be trusted: {reason}", path.display())]
    Untrusted { path: PathBuf, reason: String },
    /// It can't be mounted or unmounted; the message says what to do.
    #[error(transparent)]
    Drive(#[from] MountError),
    /// The mountpoint is no empty directory.
    #[error("{} cannot become the drive: {reason}", path.display())]
    Mountpoint { path: PathBuf, reason: String },
    /// Nothing of ours is mounted there.
    #[error(
        "no hypha drive is mounted at {}{}", path.display(),
        before.as_ref().map_or(String::new(), |outcome| format!("; the one that was there is unmounted, and {outcome}"))
    )]
    NotMounted { path: PathBuf, before: Option<String> },
    /// The process that serves a drive takes too long to end.
    #[error("it is unmounted, but process {pid} is still storing what was written")]
    NotFlushed { pid: u32 },
    /// A port can't be used.
    #[error("cannot listen on {address}: {}", plain(source))]
    Listen { address: SocketAddr, source: io::Error },
    /// A copy of the home is in use.
    #[error(
        "another process serves with this node's key{}{}: this home is a copy of one that is in use, or that is one of this",
        address.map_or(String::new(), |address| format!(", at {address}")),
        number.map_or(String::new(), |number| format!(" (node {number})"))
    )]
    Twin { number: Option<u16>, address: Option<SocketAddr> },
    /// This home's node had stopped because of that.
    #[error(
        "another process served with this node's key{}{}: this one stopped for it, and does not start again by itself",
        address.map_or(String::new(), |address| format!(" at {address}")),
        number.map_or(String::new(), |number| format!(" (node {number})"))
    )]
    Copied { number: Option<u16>, address: Option<SocketAddr> },
    /// What a node said last, and whether it had stopped for a copy, is not known.
    #[error("what this node said of itself last, {}, can't be read: {}", path.display(), plain(source))]
    NodeRecord { path: PathBuf, source: io::Error },
    /// A node can't relay.
    #[error("the node cannot relay for others: {reason}")]
    Relay { reason: String },
    /// No node answers.
    #[error("no storage node answers: {reason}")]
    NoNode { reason: String },
    /// Not all nodes are well.
    #[error("the network is {health}")]
    Unhealthy { health: &'static str, advice: String },
    /// A node process did not come up.
    #[error("node {number} did not start: {reason}")]
    NodeStart { number: u16, reason: String },
    /// The local store can't be opened.
    #[error("the store {} cannot be opened: {reason}", path.display())]
    Store { path: PathBuf, reason: String },
    /// The volume can't be opened or made.
    #[error("the drive cannot be opened: {reason}")]
    Volume { reason: String },
    /// What only the owner of the network can do.
    #[error("only the home that made the network does that, and this one joined it")]
    NotOwner,
    /// Nobody has founded the network's volume.
    #[error("this network has no drive yet: {reason}")]
    NoVolume { reason: &'static str },
    /// A space is to be shown as it was, and no state of it was named.
    #[error("--of takes a space by a state of its own, and --at names none")]
    NoState,
    /// The nodes that keep the volume's root have none.
    #[error("the drive's root is gone: of {keepers}, where it is kept, enough answer, and none has it")]
    RootGone { keepers: String },
    /// Too few of the nodes that keep the volume's root answer.
    #[error("the drive's root cannot be read: {needed} of {keepers} must answer ({reason})")]
    RootAway { keepers: String, needed: usize, reason: String },
    /// By one clock a passport is good, and by another it is not.
    #[error("{reason}")]
    Clocks { reason: String },
    /// The nodes agree on an older root than this machine has seen.
    #[error(
        "the nodes hold version {found} of the drive, and this machine has seen version {seen} of it: they were \
         restored from an older copy, or they lie"
    )]
    RolledBack { seen: u64, found: u64 },
    /// The nodes agree on a newer root, from which this machine's own line was cut off.
    #[error(
        "the nodes hold version {found} of the drive, which does not follow version {seen} that this machine has seen: they \
         were restored from an older copy and written to since, or they lie"
    )]
    Forked { seen: u64, found: u64 },
    /// The last flush failed.
    #[error("{reason}")]
    NotStored { reason: String, advice: String },
    /// Nobody says how a drive ended.
    #[error("{} is unmounted, but whether everything in it is stored is not known: {reason}", path.display())]
    NotKnown { path: PathBuf, reason: &'static str },
    /// A name is no usable path within the drive.
    #[error("{name:?} cannot be a path within the drive: {reason}")]
    Name { name: Shown, reason: &'static str },
    /// There is no such value.
    #[error("there is nothing named {name:?} in the drive")]
    NoValue { name: Shown },
    /// A file operation inside the volume failed.
    #[error("{name:?}: {reason}")]
    Value { name: Shown, reason: String },
    /// Garbage is not deleted, or what is garbage is not known.
    #[error("{reason}")]
    Garbage { reason: String },
    /// For how long the nodes keep what is deleted is not known, or not changed.
    #[error("{reason}")]
    Retention { reason: String },
    /// What the drive was is not known, or it was not put back.
    #[error("{reason}")]
    Past { reason: String },
    /// A snapshot was not made, found or deleted.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// No snapshot is as old as was asked for.
    #[error("no snapshot was taken by {until} UTC{}", first.map_or(String::new(), |first| format!(": the first is of {first}")))]
    NoneSoOld { until: Civil, first: Option<Civil> },
    /// Something was not brought back.
    #[error(transparent)]
    Restore(RestoreError),
    /// What to bring back is not clear.
    #[error("{reason}")]
    NothingToRestore { reason: String, advice: &'static str },
    /// Something cannot be pinned, since it cannot be read.
    #[error("{what} cannot be pinned: {errno}")]
    NotPinned { what: Shown, errno: Errno },
    /// Something cannot be pinned, or was not.
    #[error("{reason}")]
    Pin { reason: String },
    /// A node that was named is none that is known here.
    #[error("no node of this network is known here as {name:?}")]
    NoSuchNode { name: String },
    /// Of a node's name, two begin so.
    #[error("the ids of several nodes begin with {name}: {}", .ids.join(", "))]
    SeveralNodes { name: String, ids: Vec<String> },
    /// Nobody has met a node that was named, which says nothing about whether there is one.
    #[error(
        "no node whose id begins with {name} was met within {within:?}: it is not reached, or there is none"
    )]
    NotMet { name: String, within: Duration },
    /// Other nodes can't be had to keep the volume's root.
    #[error("the drive's root stays with {keepers}: {reason}")]
    NotMoved { keepers: String, reason: String },
    /// There is one copy of everything.
    #[error(
        "the drive's root stays with {keeper}: a network of one copy has everything there, root and blocks"
    )]
    OneCopy { keeper: String },
    /// Who keeps the root now could not be written down.
    #[error("other nodes keep the drive's root now, and this machine could not write down which: {reason}")]
    KeepersNotKept { reason: String },
    /// The disk is full, here or on the nodes.
    #[error("no space left: {place}")]
    DiskFull { place: String },
    /// Whoever read a value has enough of it (`| head -c 100`): nothing is to be said, and not all was written.
    #[error("whoever reads has enough of it")]
    ReaderGone,
    /// Standard input or output failed.
    #[error("{what}: {}", plain(source))]
    Stream { what: &'static str, source: io::Error },
    /// The owner's key is elsewhere.
    #[error("{} has no owner.key: only the home that made the network says who belongs to it", path.display())]
    NotTheOwner { path: PathBuf },
    /// The owner's key was taken out of the home that made the network.
    #[error("the owner's key is away (in {}), and it takes that", file.display())]
    OwnerAway { file: PathBuf },
    /// An owner's key was given that is another network's.
    #[error("the owner's key that was given is not that of the network that {} belongs to", path.display())]
    OwnerOfAnother { path: PathBuf },
    /// A home has not the key of whom it is for.
    #[error("{} is missing: without it nobody reads the drive, nor is let in", path.display())]
    NoKey { path: PathBuf },
    /// A key is under a passphrase that nobody was asked for.
    #[error("{} is sealed under a passphrase", path.display())]
    Sealed { path: PathBuf },
    /// A passphrase is not the one.
    #[error("this passphrase does not open {}", path.display())]
    WrongPassphrase { path: PathBuf, lost: &'static str },
    /// A key is sealed, and what it is sealed under is missing.
    #[error("{} is missing, under whose key this home's keys are sealed", path.display())]
    NoPassphraseFile { path: PathBuf },
    /// A passphrase or the words were not had.
    #[error("{what} was not given: {reason}")]
    NotGiven { what: String, reason: String },
    /// The home has no key that a passphrase is for.
    #[error("{} has no key that would be put under a passphrase: a storage node's reads nothing", path.display())]
    NothingToSeal { path: PathBuf },
    /// What was typed is no owner's key.
    #[error("these are not the words of a key: {reason}")]
    Words { reason: String },
    /// Somebody who was asked for a word typed another.
    #[error("{what}: what was typed is not `{word}`")]
    NotConfirmed { what: &'static str, word: &'static str },
    /// The words would show where nobody sees them.
    #[error("the words are shown at a terminal only, where somebody sees them")]
    NotShown,
    /// What the words bring back is not with the nodes, or not what it is by now.
    #[error("the nodes do not keep what goes with the words: {reason}")]
    Keeping { reason: String },
    /// A home does not come back.
    #[error("nothing was recovered: {reason}")]
    NotRecovered { reason: String, advice: Option<&'static str> },
    /// Nobody is let in with this ticket.
    #[error("{reason}")]
    Ticket { reason: String, advice: Option<&'static str> },
    /// The ticket is for another network than the home.
    #[error("the ticket is for another network than the one that {} belongs to", path.display())]
    OtherNetwork { path: PathBuf },
    /// There are keys, and not what they belong to: making others would destroy what may be the only copies.
    #[error("{} has keys, and no network.json that says which network they are of", path.display())]
    LonelyKeys { path: PathBuf },
    /// The home is a member of the ticket's network.
    #[error("{} belongs to this network already", path.display())]
    AlreadyJoined { path: PathBuf },
    /// Whom to remove is not clear.
    #[error("{who:?}: {reason}")]
    NoMember { who: String, reason: String },
    /// An option for nodes was given for somebody who is none.
    #[error("{who}: {reason}")]
    NotForPeople { who: String, reason: &'static str },
    /// A node can't be done without.
    #[error("{who} cannot be done without: {reason}")]
    Needed { who: String, reason: String },
    /// Somebody is removed, and not everybody knows it.
    #[error("{reason}")]
    Removing { reason: String },
    /// Whom this home is for is no member any more.
    #[error("{who} removed from this network on {since} UTC: its owner has signed that")]
    Removed { who: &'static str, since: Civil },
    /// This home was away for too long.
    #[error("the passport of this home has expired, and no node that was reached has a newer one for it")]
    Expired,
    /// Members' passports are not renewed.
    #[error("the members' passports could not be renewed: {reason}")]
    Renewing { reason: String },
    /// Who reads and writes the drive, or a space in it, can't be changed now.
    #[error("who may read and write could not be changed: {reason}")]
    Sharing { reason: String },
    /// A part of the drive can't be shared so.
    #[error("{reason}")]
    Space { reason: String, advice: &'static str },
    /// A group is not what it was to be, or not everywhere.
    #[error("{reason}")]
    Group { reason: String, advice: &'static str },
    /// There is no such space any more.
    #[error("the space {path} was removed by its owner: nobody opens what was in it any more")]
    SpaceGone { path: Shown },
    /// Somebody who may only read was to change something.
    #[error("this user may read {of}, and change nothing in it")]
    Reader { of: String },
    /// What waits in a journal can't be listed or written out, or not all of it.
    #[error("{reason}")]
    Journal { reason: String },
    /// Our own doing.
    #[error("{0}")]
    Internal(String),
}

/// The exit status of who does not serve, or no longer, because a copy of its home does: nobody should start it again.
pub(crate) const COPIED: u8 = 3;

impl Failure {
    /// What a shell is told.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Twin { .. } | Failure::Copied { .. } => COPIED,
            Failure::ReaderGone => READER_GONE,
            _ => 1,
        }
    }

    /// A file error, told apart where the advice differs.
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return Failure::DiskFull { place: format!("{} could not be written", path.display()) };
        }
        Failure::File { path: path.into(), source }
    }

    pub(crate) fn damaged(path: &Path, reason: impl Display) -> Self {
        Failure::Damaged { path: path.into(), reason: reason.to_string() }
    }

    /// The step that most often helps; `None` where the message says it all.
    pub(crate) fn advice(&self) -> Option<String> {
        Some(match self {
            Failure::NoHome => "give --home DIR".into(),
            Failure::NoDirectory => "give --directory DIR".into(),
            Failure::NotAHome { .. } => {
                "with a ticket that you were sent, `storage-node join - ./drive` makes it one; `storage-node up ./drive` begins a network of your own; \
                 or give the --home that you used before"
                    .into()
            }
            Failure::NotANodesHome { .. } => {
                "a ticket makes one (`invite --role node` in the home of the network, `join - --home DIR` here); the nodes of `up` have \
                 theirs in nodes/1, nodes/2, ... of its home"
                    .into()
            }
            Failure::HomeOccupied { .. } => "give an empty or a new directory as --home".into(),
            Failure::NetworkHomeForNode { path } => format!("give a node's home, such as {}/nodes/1", path.display()),
            Failure::Locked { .. } => {
                "it is running already: use it, or stop that process first (Ctrl-C in its terminal, or kill it)".into()
            }
            Failure::KeysInUse { .. } => {
                "unmount the drive first (`storage-node umount DRIVE`; after `up` the nodes end with it), and say it again; then start it as before"
                    .into()
            }
            Failure::OtherNodeCount { remembered, .. } => format!(
                "leave out --nodes, or say --nodes {remembered}; more nodes join it by a ticket (`invite --role node` here, `join -` \
                 with another --home there); for another number of copies begin a new network with --home DIR"
            ),
            Failure::NoNodesHere { path, was_recovered: true } => format!(
                "storage-node mount --home {} DRIVE; to have a node here again, `invite --role node`, and `join - --home DIR` with another directory",
                path.display()
            ),
            Failure::NoNodesHere { path, .. } => {
                format!("storage-node mount --home {} DRIVE; or `run`, if it joined as a node", path.display())
            }
            Failure::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run as the user who owns it, or give another --home".into()
            }
            Failure::File { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                "make that file system writable, or give another place (--home DIR; for `mount`, --directory DIR)".into()
            }
            Failure::File { path, source } if source.kind() == io::ErrorKind::InvalidData => match path.file_name() {
                Some(name) if name == "revoked" => {
                    "restore it from a backup; or remove it, and start this while nodes run that have it: they tell who was removed".into()
                }
                _ => "restore it from a backup; nothing was changed".into(),
            },
            Failure::File { source, .. } if source.kind() == io::ErrorKind::NotFound => "check the path".into(),
            Failure::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                "give another name: what is there is not written over".into()
            }
            Failure::Damaged { .. } => "restore it from a backup; nothing was changed".into(),
            Failure::Newer { .. } => "use the newer storage-node that wrote it".into(),
            Failure::KeyReadable { path, .. } => format!("if nobody copied it: chmod 600 {}", path.display()),
            Failure::Untrusted { path, .. } => format!(
                "if nobody else had a hand in it, make it yours alone (chown, chmod go-w {}); else use another directory",
                path.display()
            ),
            Failure::Drive(MountError::NotPermitted { .. } | MountError::Io { .. }) => {
                "this user has to be able to read and write /dev/fuse, the kernel's device (`ls -l /dev/fuse`; `modprobe fuse`), and the \
                 directory has to be its own; for --allow-other, who is not root needs `user_allow_other` in /etc/fuse.conf"
                    .into()
            }
            Failure::Drive(MountError::FuseMissing | MountError::DeviceMissing) => {
                "or do without FUSE: `run` each node, and use `put` and `get`".into()
            }
            Failure::Mountpoint { .. } => "give an empty directory, or a name that does not exist yet".into(),
            Failure::NotMounted { .. } => "`findmnt -t fuse.hypha` lists the mounted drives".into(),
            Failure::NotFlushed { .. } => "leave it running until it ends by itself; `status` shows the nodes".into(),
            Failure::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "give a port above 1023, or let the program have lower ones: `sudo setcap cap_net_bind_service=+ep \
                 $(which storage-node)`"
                    .into()
            }
            Failure::Listen { .. } => "give another --listen ADDRESS, or stop what uses it (`ss -ltnp` shows it)".into(),
            Failure::Twin { .. } => {
                "use the drive there, or stop what runs there first: what is written to one of the two is not in the other. A copy of a home \
                 is a backup, for when the home is lost. If it is none of yours, the node's key was stolen: let a new node join, and `remove` \
                 this one. Node 1 is in the process of `up`, which does not go on without it"
                    .into()
            }
            Failure::Copied { .. } => {
                "stop the other one, if it still runs, and fetch what only that has: what was written to one of the two is not in the other; \
                 then start this one with --accept-copy (`up` or `run`), once. While the other runs, and is started again, it is that which \
                 stops; and this one does at its next start without --accept-copy. If the other is none of yours, the node's key was stolen: \
                 let a new node join, and `remove` this one"
                    .into()
            }
            Failure::NodeRecord { .. } => {
                "whether this node had stopped for a copy of its home stands there: if no other process has its key, start it with \
                 --accept-copy (`up` or `run`), once, which writes it anew"
                    .into()
            }
            Failure::Relay { .. } => "give the address with --listen, or do without --relay".into(),
            Failure::NoNode { .. } => {
                "start them with `storage-node up`, or give a running one with --node ADDRESS".into()
            }
            Failure::Unhealthy { advice, .. } => advice.clone(),
            Failure::NoState => "`past DIR` lists the states of the space DIR: `mount --of DIR --at STATE`".into(),
            Failure::NotOwner => "say where that home is with --home, or ask whoever invited you".into(),
            Failure::NoVolume { .. } => "run `storage-node up DRIVE` with the network's home once".into(),
            Failure::RootGone { .. } => {
                "nothing was changed: their stores are new or empty, so mount the disks that they were on, or restore \
                 the stores from a copy"
                    .into()
            }
            Failure::RootAway { .. } => {
                "nothing was changed: start those nodes (`status` shows which answer), and try again; if they are lost, `past` lists what \
                 the others keep, and `mount --at STATE DIR` shows that, to be copied elsewhere"
                    .into()
            }
            Failure::Clocks { .. } => {
                "compare the clocks (`date -u` on this machine and on those of the nodes), set the one that is wrong, and try again; if they agree, run `up` \
                 or `mount` with the home that invited this one: it renews passports"
                    .into()
            }
            Failure::RolledBack { .. } | Failure::Forked { .. } => {
                "nothing was changed: start the nodes that have the newer state, or restore a newer copy; to lose what \
                 was stored since and go on from what they hold, give `up` or `mount` --accept-rollback"
                    .into()
            }
            Failure::NotStored { advice, .. } => advice.clone(),
            Failure::NotKnown { .. } => {
                "start it again (`up`, or `mount` where it was joined): that start puts in what its journal has; then look at what was written last"
                    .into()
            }
            Failure::NotMet { .. } => {
                "give it longer with --seconds; where it runs, `status` and `netcheck` say whether it is up and what reaches it".into()
            }
            Failure::SeveralNodes { .. } => "give more of the id".into(),
            Failure::NoSuchNode { .. } => "`node list` shows their numbers and ids".into(),
            Failure::NotMoved { .. } => {
                "it takes a majority of those that keep the root, and one more node that does not keep it: if there is none, let another join \
                 first (`storage-node invite --role node` here, `storage-node join TICKET` there); `status` shows which are down"
                    .into()
            }
            Failure::OneCopy { .. } => {
                "stop it, move its directory (nodes/1 of the home) to the other machine or disk, and `storage-node run --home` it there"
                    .into()
            }
            Failure::KeepersNotKept { .. } => {
                "make room, or the place writable, and say it again: it would go on asking the nodes that kept the root before"
                    .into()
            }
            Failure::Retention { .. } => "`storage-node retention` says what the nodes have heard".into(),
            Failure::Past { .. } => "`storage-node past [DIR]` lists what the nodes keep".into(),
            Failure::Garbage { .. } => "`gc --dry-run` says how much there is".into(),
            Failure::Snapshot(SnapshotError::Taken { .. }) => {
                "give another name, or delete that one first: `storage-node snapshot --delete NAME`".into()
            }
            Failure::Snapshot(SnapshotError::Missing { .. }) | Failure::NoneSoOld { .. } => {
                "`storage-node snapshots` lists them; a time is taken as well, as 2026-11-26, \"2026-11-26 22:15\" or 3d".into()
            }
            Failure::Snapshot(SnapshotError::Name { .. }) => "give another name, such as before-the-move".into(),
            Failure::Name { .. } => {
                "say it from the drive's top, as `ls` shows it there (notes/today), or through the mounted drive (./drive/notes/today)"
                    .into()
            }
            Failure::Snapshot(SnapshotError::Unreachable) => "`storage-node status` shows which nodes answer".into(),
            Failure::Snapshot(SnapshotError::Volume(_)) => {
                "`storage-node status` shows which nodes answer, and `storage-node snapshots` whether it was done after all"
                    .into()
            }
            Failure::Restore(error) => return advice_of_restore(error),
            Failure::NothingToRestore { advice, .. } => (*advice).into(),
            Failure::NotPinned { .. } => {
                "names are paths within the drive, as `ls` shows them there, and upper case matters".into()
            }
            Failure::Pin { .. } => "`storage-node pins` lists what is pinned; `mount --cache SIZE` says how much room there is".into(),
            Failure::Ticket { advice, .. } => advice.as_ref()?.to_string(),
            Failure::NotTheOwner { .. } => {
                "run it there, or with --home DIR of a copy that has the owner's key; or with --owner FILE, if `owner export` wrote one"
                    .into()
            }
            Failure::OwnerAway { file } => format!(
                "say it with --owner {}, at a place where that is; `owner import` puts it into the home again",
                file.display()
            ),
            Failure::OwnerOfAnother { .. } => "give the file or the words of this network's owner, or its --home".into(),
            Failure::Sealed { .. } | Failure::NotGiven { .. } => {
                "run it at a terminal; or give a passphrase with --passphrase-fd N (--owner-passphrase-fd N for an owner's file), the \
                 words with --words-fd N; or run it as a service with a credential (LoadCredential=hypha.passphrase:FILE)"
                    .into()
            }
            Failure::WrongPassphrase { lost, .. } => format!("try again: nothing was changed. If it is lost, {lost}"),
            Failure::NoKey { .. } => {
                "put it back from a backup of the home; without one, `storage-node recover` makes the home of a network's owner anew from its 24 words, \
                 elsewhere (`--home DIR`), and whoever joined joins again with a new ticket"
                    .into()
            }
            Failure::NoPassphraseFile { .. } => "put it back from the backup that the key is from".into(),
            Failure::Words { .. } => "compare them with what is on the paper, word by word, and try again".into(),
            Failure::NotShown => "run it at a terminal, or with --show or --page FILE if nobody else sees what comes out".into(),
            Failure::Keeping { .. } => "see that the nodes run (`status`), and say it again".into(),
            Failure::NotRecovered { advice, .. } => (*advice)?.into(),
            Failure::OtherNetwork { .. } => "give an empty or a new directory as --home".into(),
            Failure::LonelyKeys { .. } => "put the network.json beside them that was there when they were copied (each node's home \
                                           has one, too), or give another directory as --home to begin a new network"
                .into(),
            Failure::AlreadyJoined { .. } => {
                "this home needs no ticket, and used nothing of this one: `mount DRIVE`, or `run` for a node; for one more member \
                 give another --home"
                    .into()
            }
            Failure::Needed { .. } => {
                "see with `status` that the other nodes run and have room, or let another one join, and say it again; a node \
                 in wrong hands is removed with --now: what only it has is lost then"
                    .into()
            }
            Failure::NotForPeople { .. } => "say it without --now, if that one is meant; `members` lists all".into(),
            Failure::NoMember { .. } => "`members` lists them".into(),
            Failure::Removing { .. } => {
                "it is on disk here, and `up` goes on with it; or see that the nodes run, and say it again".into()
            }
            Failure::Removed { .. } => {
                "what this machine has of it stays here, and `storage-node journal` says what no node took; `storage-node join TICKET` \
                 with a new ticket works in this home again"
                    .into()
            }
            Failure::Expired => {
                "run `up` or `mount` with the home that invited this one: it renews passports, and this one is let in again"
                    .into()
            }
            Failure::Space { advice, .. } | Failure::Group { advice, .. } => (*advice).into(),
            Failure::SpaceGone { .. } => "its owner's home brings it back (`rollback`), as long as the nodes have it".into(),
            Failure::Reader { .. } => {
                "to write you need the owner's word: for the drive a writer's ticket (`invite`), for a space `share DIR --write YOU`".into()
            }
            Failure::Sharing { .. } | Failure::Renewing { .. } => "see that the nodes run (`status`), and try again".into(),
            Failure::DiskFull { .. } => "free some space; what was acknowledged is safe, and reading goes on".into(),
            Failure::NoValue { .. } => "names are paths within the drive, and upper case matters".into(),
            Failure::Value { reason, .. } if reason.starts_with("it is a directory: `put`") => {
                "say the file's name in it, as in `storage-node put notes/today FILE`".into()
            }
            Failure::Stream { source, .. } if source.kind() == io::ErrorKind::IsADirectory => {
                "`put` takes one file: copy a directory into the mounted drive (`cp -a DIR ./drive/`)".into()
            }
            Failure::Store { .. } => "check that the disk is mounted and writable; the log above may say more".into(),
            _ => return None,
        })
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Failure {
        match error {
            RestoreError::Snapshot(error) => Failure::Snapshot(error),
            error => Failure::Restore(error),
        }
    }
}

fn advice_of_restore(error: &RestoreError) -> Option<String> {
    Some(match error {
        RestoreError::Missing { .. } => "`storage-node history` shows which snapshots have a file".into(),
        RestoreError::Occupied { .. } => {
            "give another --to; or none, and what is at the old place is kept beside it".into()
        }
        RestoreError::NoDirectory { path } => {
            format!(
                "restore {path:?}, which brings back all that was in it; or give --to a place that there is"
            )
        }
        RestoreError::TooMuch { .. } => {
            "restore its directories one by one; or copy it from .snapshots of a mounted drive, with `cp -a`"
                .into()
        }
        RestoreError::NotCopied => {
            "restore what is beside it, directory by directory; a space brings back its own: `restore` with a path in it".into()
        }
        RestoreError::Deleted { .. } => {
            "restore it from another snapshot, and compare; `storage-node snapshots` lists them".into()
        }
        _ => return None,
    })
}

/// An I/O error without Rust's "(os error 13)".
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_other_file_errors() {
        let full = Failure::file(Path::new("x"), io::Error::from_raw_os_error(28));
        assert!(matches!(full, Failure::DiskFull { .. }));
        assert!(full.advice().unwrap().contains("free some space"));
        let denied = Failure::file(Path::new("x"), io::Error::from_raw_os_error(13));
        assert_eq!(denied.to_string(), "x: permission denied");
    }
}
