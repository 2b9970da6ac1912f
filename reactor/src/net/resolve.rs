//! Names to addresses: the system's resolver, off the thread, behind a small cache.
//!
//! `getaddrinfo` is what every program on the machine uses, with all its sources (hosts file, DNS, mDNS). It blocks, so
//! it runs on threads of the offload pool that are there for names, and it tells no time to live, so [`ADDRESSES_TTL`] is ours. IPv6 and IPv4 are asked for apart,
//! for the one answer not to wait for the other. Those who ask for one name at once share one look-up.
//!
//! [`Cache`] is pure; [`Resolver`] is the flow above it. What it is not: a DNS client, and it never sorts: within a
//! family the system's order (RFC 6724) stands.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::Destination;
use super::destination::check_name;
use crate::cell::RefCell;
use crate::clock::now;
use crate::offload::{Kind, offload_as};
use crate::sim;
use crate::sync::{Semaphore, Signal};

/// How long an answer is good for. `getaddrinfo` tells no time to live; half a minute is what the records of services
/// that move by DNS are mostly given, and spares a busy client nearly all look-ups.
pub const ADDRESSES_TTL: Duration = Duration::from_secs(30);

/// How long "there is no such name" is believed: long enough for a loop of retries, short for one who just added it.
pub const NO_SUCH_NAME_TTL: Duration = Duration::from_secs(5);

/// How long a failure of the resolver itself is passed on without asking again.
const FAILURE_TTL: Duration = Duration::from_secs(1);

/// Answers kept, a family of a name each; names can come from outside (a crawler's links).
const CACHE_LEN_MAX: usize = 1024;

/// Addresses kept of an answer: more are never tried.
const ADDRESSES_MAX: usize = 32;

/// Look-ups under way at once, in one reactor: half of the threads that the process has for names.
const LOOKUPS_MAX: usize = 8;

/// Which kind of address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V6,
    V4,
}

/// What a look-up told: addresses with port 0, none if the name has none, or why nobody could tell.
pub(crate) type Answer = Result<Rc<[SocketAddr]>, Failure>;

/// The resolver failed: as `io::Error`, but for many who wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(Rc<str>);

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        io::Error::other(&*failure.0)
    }
}

type Key = (Rc<str>, Family);

/// Answers that are still good. Pure: takes the time as a value.
pub(crate) struct Cache {
    /// In order: which of several that expire together gives way must be the same in every run of a world.
    entries: BTreeMap<Key, Entry>,
    len_max: usize,
}

struct Entry {
    answer: Answer,
    expires: Instant,
}

impl Cache {
    fn new(len_max: usize) -> Cache {
        Cache { entries: BTreeMap::new(), len_max }
    }

    fn get(&self, key: &Key, now: Instant) -> Option<Answer> {
        self.entries.get(key).filter(|entry| now < entry.expires).map(|entry| entry.answer.clone())
    }

    fn on_answer(&mut self, key: Key, answer: Answer, now: Instant) {
        if self.entries.len() >= self.len_max && !self.entries.contains_key(&key) {
            self.entries.retain(|_, entry| now < entry.expires);
            // A scan of a thousand entries, beside a look-up that took a system call at the least.
            while self.entries.len() >= self.len_max {
                let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.expires);
                let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
                self.entries.remove(&oldest);
            }
        }
        let ttl = match &answer {
            Ok(addresses) if !addresses.is_empty() => ADDRESSES_TTL,
            Ok(_) => NO_SUCH_NAME_TTL,
            Err(_) => FAILURE_TTL,
        };
        self.entries.insert(key, Entry { answer, expires: now + ttl });
    }
}

/// The system's answer, or a test's; runs on a thread of the offload pool.
pub(crate) type Lookup = fn(&str, Family) -> Result<Vec<SocketAddr>, String>;

/// The cache, and the look-ups that are under way.
pub(crate) struct Resolver {
    cache: RefCell<Cache>,
    pending: RefCell<HashMap<Key, Rc<Pending>>>,
    places: Semaphore,
    lookup: Lookup,
}

#[derive(Default)]
struct Pending {
    answer: OnceCell<Answer>,
    done: Signal,
}

thread_local! {
    static SYSTEM: Rc<Resolver> = Rc::new(Resolver::new(ask_the_system));
}

/// The resolver that all of the process's connections share.
pub(crate) fn system() -> Rc<Resolver> {
    if let Some(process) = sim::here() {
        return process.resolver().clone();
    }
    SYSTEM.with(Rc::clone)
}

/// The addresses of `host`, IPv6 first, each with `port`. A numeric host is its own address.
///
/// Answers are kept for [`ADDRESSES_TTL`] (at most 1,024 of them), "no such name" for [`NO_SUCH_NAME_TTL`].
///
/// # Errors
///
/// `NotFound` when the name has no address; `InvalidInput` when it can't be a name; another when the resolver failed.
///
/// # Suspends
///
/// While the system's resolver works, on another thread; at most 8 look-ups run at once.
///
/// # Examples
///
/// ```
/// reactor::run(|| {
///     let addresses = reactor::net::resolve("localhost", 80).unwrap();
///     assert!(addresses.iter().all(|address| address.ip().is_loopback()));
/// });
/// ```
pub fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    check_name(host)?;
    let resolver = system();
    let answers = crate::scope(|s| {
        let v4 = s.spawn(|| resolver.lookup(host, Family::V4));
        let v6 = resolver.lookup(host, Family::V6);
        [v6, v4.join().expect("nobody terminates it")]
    });
    let mut addresses = Vec::new();
    let mut failure = None;
    for answer in answers {
        match answer {
            Ok(found) => addresses.extend(with_port(&found, port)),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        _ if !addresses.is_empty() => Ok(addresses),
        Some(failure) => Err(failure.into()),
        None => Err(no_such_name(host)),
    }
}

/// The same addresses at `port`; a link-local one keeps its interface.
pub(super) fn with_port(addresses: &[SocketAddr], port: u16) -> impl Iterator<Item = SocketAddr> + '_ {
    addresses.iter().map(move |address| {
        let mut address = *address;
        address.set_port(port);
        address
    })
}

impl Destination<'_> {
    /// All its addresses. Suspends while a name is looked up.
    pub(super) fn resolve(self) -> io::Result<SmallVec<[SocketAddr; 1]>> {
        match self {
            Destination::Addresses(addresses) => Ok(addresses),
            Destination::Name(name, port) => Ok(resolve(&name, port)?.into()),
        }
    }
}

pub(super) fn no_such_name(host: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("no address is known for the name {host}"))
}

impl Resolver {
    pub(crate) fn new(lookup: Lookup) -> Resolver {
        Resolver {
            cache: RefCell::new(Cache::new(CACHE_LEN_MAX)),
            pending: RefCell::default(),
            places: Semaphore::new(LOOKUPS_MAX),
            lookup,
        }
    }

    /// The addresses of `host` in one family, from the cache if it has them. Suspends while they are looked up.
    pub(crate) fn lookup(self: &Rc<Self>, host: &str, family: Family) -> Answer {
        // Names are compared without regard to case (RFC 4343).
        let key: Key = (host.to_ascii_lowercase().into(), family);
        loop {
            if let Some(answer) = self.cache.borrow().get(&key, now()) {
                return answer;
            }
            let under_way = self.pending.borrow().get(&key).cloned();
            let pending = under_way.unwrap_or_else(|| self.start(&key));
            if pending.answer.get().is_none() {
                pending.done.wait();
            }
            match pending.answer.get() {
                Some(answer) => return answer.clone(),
                // The run that looked it up has ended before its time: ask anew.
                None => continue,
            }
        }
    }

    /// Looks up in a coroutine of its own, so that the termination of one who asks does not disturb the others.
    fn start(self: &Rc<Self>, key: &Key) -> Rc<Pending> {
        struct UnderWay(Rc<Resolver>, Key, Rc<Pending>);
        impl Drop for UnderWay {
            fn drop(&mut self) {
                self.0.pending.borrow_mut().remove(&self.1);
                self.2.done.notify_all();
            }
        }
        let pending = Rc::new(Pending::default());
        self.pending.borrow_mut().insert(key.clone(), pending.clone());
        let under_way = UnderWay(self.clone(), key.clone(), pending.clone());
        crate::spawn(move || {
            let UnderWay(resolver, key, pending) = &under_way;
            let _place = resolver.places.acquire();
            let (lookup, name, family) = (resolver.lookup, key.0.to_string(), key.1);
            let answer = match offload_as(Kind::Names, move || lookup(&name, family)) {
                Ok(mut addresses) => {
                    addresses.truncate(ADDRESSES_MAX);
                    Ok(addresses.into())
                }
                Err(reason) => Err(Failure(reason.into())),
            };
            resolver.cache.borrow_mut().on_answer(key.clone(), answer.clone(), now());
            let _ = pending.answer.set(answer);
        });
        pending
    }
}

#[cfg(feature = "dns")]
fn ask_the_system(host: &str, family: Family) -> Result<Vec<SocketAddr>, String> {
    use dns_lookup::{AddrInfoHints, LookupErrorKind, getaddrinfo};
    let address = match family {
        Family::V6 => libc::AF_INET6,
        Family::V4 => libc::AF_INET,
    };
    let hints = AddrInfoHints { address, socktype: libc::SOCK_STREAM, ..AddrInfoHints::default() };
    match getaddrinfo(Some(host), None, Some(hints)) {
        Ok(found) => {
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in found.flatten().map(|info| info.sockaddr) {
                // One per protocol, and a hosts file may repeat itself.
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            Ok(addresses)
        }
        Err(error) if matches!(error.kind(), LookupErrorKind::NoName | LookupErrorKind::NoData) => Ok(vec![]),
        Err(error) => Err(format!("looking up {host}: {}", io::Error::from(error))),
    }
}

#[cfg(not(feature = "dns"))]
fn ask_the_system(host: &str, _: Family) -> Result<Vec<SocketAddr>, String> {
    Err(format!("{host} is a name, and this program was built without the reactor's feature `dns`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::sync::{Mutex, MutexGuard};

    fn key(name: &str) -> Key {
        (name.into(), Family::V4)
    }

    fn addresses(last: u8) -> Answer {
        Ok(Rc::from([SocketAddr::from(([10, 0, 0, last], 0))]))
    }

    #[test]
    fn an_answer_is_kept_for_its_time_and_no_longer() {
        let start = Instant::now();
        let mut cache = Cache::new(10);
        cache.on_answer(key("a"), addresses(1), start);
        cache.on_answer(key("nobody"), Ok(Rc::from([])), start);
        cache.on_answer(key("broken"), Err(Failure("no server".into())), start);
        let last = Duration::from_nanos(1);
        assert_eq!(cache.get(&key("a"), start + ADDRESSES_TTL - last), Some(addresses(1)));
        assert_eq!(cache.get(&key("a"), start + ADDRESSES_TTL), None);
        assert!(cache.get(&key("nobody"), start + NO_SUCH_NAME_TTL - last).is_some());
        assert!(
            cache.get(&key("nobody"), start + NO_SUCH_NAME_TTL).is_none(),
            "negative answers are kept less long"
        );
        assert!(cache.get(&key("broken"), start + FAILURE_TTL).is_none());
        assert_eq!(cache.get(&("a".into(), Family::V6), start), None, "families are apart");
    }

    #[test]
    fn a_full_cache_gives_up_what_would_expire_first() {
        let start = Instant::now();
        let mut cache = Cache::new(3);
        for (at, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            cache.on_answer(key(name), addresses(1), start + Duration::from_secs(at as u64));
            assert!(cache.entries.len() <= 3);
        }
        let known = |name| cache.get(&key(name), start).is_some();
        assert_eq!(["a", "b", "c", "d", "e"].map(known), [false, false, true, true, true]);
    }

    static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
    static GATE: Mutex<()> = Mutex::new(());

    fn counted(_: &str, _: Family) -> Result<Vec<SocketAddr>, String> {
        LOOKUPS.fetch_add(1, Relaxed);
        let _open: MutexGuard<'_, ()> = GATE.lock().unwrap();
        Ok(vec![SocketAddr::from(([10, 0, 0, 7], 0))])
    }

    #[test]
    fn those_who_ask_at_once_share_one_lookup_and_a_terminated_one_disturbs_nobody() {
        crate::run(|| {
            let resolver = Rc::new(Resolver::new(counted));
            let closed = GATE.lock().unwrap();
            let ask = |name: &'static str| {
                let resolver = resolver.clone();
                crate::spawn(move || resolver.lookup(name, Family::V4))
            };
            let first = ask("shared");
            let others: Vec<_> = (0..20).map(|_| ask("SHARED")).collect();
            first.terminate();
            drop(closed);
            for other in others {
                assert_eq!(other.join().unwrap(), addresses(7));
            }
            assert!(first.join().is_err());
            assert_eq!(resolver.lookup("shared", Family::V4), addresses(7), "from the cache now");
            assert_eq!(LOOKUPS.load(Relaxed), 1);
            assert!(resolver.pending.borrow().is_empty());
        });
    }

    #[test]
    fn a_name_that_nobody_has_is_not_found() {
        crate::run(|| {
            // RFC 6761 reserves the domain: no server may know it, and a machine without one knows no better.
            let error = resolve("no-such-host.invalid", 80).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Other), "{error}");
            assert_eq!(resolve("two words", 80).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(resolve("::1", 80).unwrap(), ["[::1]:80".parse().unwrap()]);
        });
    }
}
