//! Connections that wait for their next request. Pure: takes the time as a value, and knows no socket.
//!
//! The one used last is given out first, so that the others grow old and are closed when the load has gone.
//!
//! What it is not: a limit on connections in use; that is for the caller to set (a [`crate::sync::Semaphore`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How many connections are kept for reuse, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections to one server.
    pub idle_per_server: usize,
    /// Idle connections in all.
    pub idle_total: usize,
    /// How long one stays idle before it is closed.
    pub idle_age: Duration,
    /// How old one may grow before it is used no more: so that a server's move is noticed under steady load.
    pub age: Duration,
}

impl Default for PoolLimits {
    /// 16 and 128 connections; idle for 50 s, below the 60 to 75 s after which nginx and most others close theirs; 10
    /// minutes old.
    fn default() -> PoolLimits {
        PoolLimits {
            idle_per_server: 16,
            idle_total: 128,
            idle_age: Duration::from_secs(50),
            age: Duration::from_secs(600),
        }
    }
}

struct Idle<T> {
    connection: T,
    since: Instant,
    born: Instant,
}

/// Idle connections, by what they lead to.
pub(super) struct Pool<K, T> {
    limits: PoolLimits,
    /// Of each server the one that has waited longest first. In order: what is closed first among equals, and in a
    /// simulated world all are equal, must be the same in every run.
    servers: BTreeMap<K, Vec<Idle<T>>>,
}

impl<K: Ord + Clone, T> Pool<K, T> {
    pub(super) fn new(limits: PoolLimits) -> Pool<K, T> {
        Pool { limits, servers: BTreeMap::new() }
    }

    /// Takes the connection to `key` that was used last, and when it was opened.
    pub(super) fn take(&mut self, key: &K, now: Instant) -> Option<(T, Instant)> {
        self.expire(now);
        let idle = self.servers.get_mut(key)?.pop()?;
        if self.servers.get(key).is_some_and(Vec::is_empty) {
            self.servers.remove(key);
        }
        Some((idle.connection, idle.born))
    }

    /// Keeps a connection, opened at `born`, for the next request; closes it, or another, when there are too many.
    pub(super) fn put(&mut self, key: K, connection: T, born: Instant, now: Instant) {
        self.expire(now);
        if self.limits.idle_per_server == 0 || self.limits.idle_total == 0 || born + self.limits.age <= now {
            return;
        }
        let server = self.servers.entry(key).or_default();
        if server.len() >= self.limits.idle_per_server {
            server.remove(0);
        }
        server.push(Idle { connection, since: now, born });
        while self.len() > self.limits.idle_total {
            let oldest = self.servers.iter().min_by_key(|(_, idle)| idle.first().map(|idle| idle.since));
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            self.remove_first(&key);
        }
    }

    /// Closes what has waited for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let PoolLimits { idle_age, age, .. } = self.limits;
        self.servers.retain(|_, idle| {
            idle.retain(|idle| now < idle.since + idle_age && now < idle.born + age);
            !idle.is_empty()
        });
    }

    /// When [`Pool::expire`] has something to do next.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let PoolLimits { idle_age, age, .. } = self.limits;
        self.servers.values().flatten().map(|idle| (idle.since + idle_age).min(idle.born + age)).min()
    }

    pub(super) fn len(&self) -> usize {
        self.servers.values().map(Vec::len).sum()
    }

    fn remove_first(&mut self, key: &K) {
        if let Some(idle) = self.servers.get_mut(key) {
            idle.remove(0);
            if idle.is_empty() {
                self.servers.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(idle_per_server: usize, idle_total: usize) -> Pool<&'static str, u32> {
        Pool::new(PoolLimits { idle_per_server, idle_total, ..PoolLimits::default() })
    }

    fn take(pool: &mut Pool<&'static str, u32>, key: &'static str, now: Instant) -> Option<u32> {
        pool.take(&key, now).map(|(connection, _)| connection)
    }

    #[test]
    fn the_connection_used_last_is_given_out_first_and_only_once() {
        let now = Instant::now();
        let mut pool = pool(10, 10);
        for connection in 0..3 {
            pool.put("a", connection, now, now);
        }
        pool.put("b", 9, now, now);
        assert_eq!([0; 4].map(|_| take(&mut pool, "a", now)), [Some(2), Some(1), Some(0), None]);
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn the_oldest_gives_way_when_there_are_too_many() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut pool = pool(2, 3);
        pool.put("a", 1, start, at(0));
        pool.put("a", 2, start, at(1));
        pool.put("a", 3, start, at(2));
        assert_eq!(pool.len(), 2, "of one server's");
        pool.put("b", 4, start, at(3));
        pool.put("c", 5, start, at(4));
        assert_eq!(pool.len(), 3, "of all");
        assert_eq!(take(&mut pool, "a", at(5)), Some(3));
        assert_eq!(take(&mut pool, "a", at(5)), None, "2 was the oldest");
        let mut none = super::Pool::new(PoolLimits { idle_per_server: 0, ..PoolLimits::default() });
        none.put("a", 1, start, start);
        assert_eq!(none.len(), 0);
    }

    #[test]
    fn a_connection_is_not_given_out_after_its_age_idle_or_in_all() {
        let start = Instant::now();
        let limits = PoolLimits::default();
        let mut pool = pool(10, 10);
        pool.put("a", 1, start, start);
        assert_eq!(pool.next_expiry(), Some(start + limits.idle_age));
        assert_eq!(take(&mut pool, "a", start + limits.idle_age), None);
        // Busy all the time, and yet replaced in the end.
        pool.put("a", 2, start, start + limits.age - Duration::from_secs(1));
        assert_eq!(pool.next_expiry(), Some(start + limits.age));
        assert_eq!(take(&mut pool, "a", start + limits.age), None);
        pool.put("a", 3, start, start + limits.age);
        assert_eq!(pool.len(), 0);
    }
}
