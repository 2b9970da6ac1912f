//! Three replicas behind one client, one of which is slow now and then: how long calls take without and with hedging.
//!
//! A call goes to one replica; if that has not answered within 20 ms, a copy goes to another. The first answer wins, and the
//! slow replica is told that nobody waits any more, so that it ends its work. The price is a copy for each slow call, and a
//! budget sees to it that there are never many.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use reactor::rpc::{
    Balanced, CallContext, CallError, Caller, Connection, Never, RetryPolicy, Retrying, Service, pair,
};

reactor::service! {
    /// Looks up what is stored.
    pub trait Lookup = "lookup" version 1, client LookupClient {
        /// The name of a number. Looking twice does no harm, so the method is idempotent, and may be hedged.
        fn name(&self, number: u64) -> Result<String, Never> = 1 as Name, idempotent;
    }
}

/// A replica that takes a millisecond, and half a second for every twentieth call if it is the slow one.
struct Replica {
    is_slow: bool,
    asked: Cell<u32>,
    called_off: Cell<u32>,
}

/// Notes that a lookup ended before it was done.
struct CallOff<'a>(&'a Cell<u32>);

impl Drop for CallOff<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Lookup for Replica {
    fn name(&self, _call: &CallContext, number: u64) -> Result<String, Never> {
        self.asked.set(self.asked.get() + 1);
        let is_stuck = self.is_slow && self.asked.get().is_multiple_of(20);
        // If the caller gives up, we are ended in the middle of this.
        let call_off = CallOff(&self.called_off);
        reactor::sleep(Duration::from_millis(if is_stuck { 500 } else { 1 }));
        std::mem::forget(call_off);
        Ok(format!("number {number}"))
    }
}

/// How long each of 200 calls took, the longest last.
fn measure(client: &LookupClient<impl Caller>) -> Result<Vec<Duration>, CallError<Never>> {
    let mut times = Vec::new();
    for number in 0..200 {
        let began = reactor::now();
        client.name(number)?;
        times.push(reactor::now() - began);
    }
    times.sort_unstable();
    Ok(times)
}

fn main() -> Result<(), CallError<Never>> {
    reactor::run(|| {
        let replicas: Vec<Rc<Replica>> = (0..3)
            .map(|number| {
                Rc::new(Replica { is_slow: number == 0, asked: Cell::new(0), called_off: Cell::new(0) })
            })
            .collect();
        // Over a network each would be a `Reconnecting` client of an address.
        let (peers, _servers): (Vec<Connection>, Vec<Connection>) = replicas
            .iter()
            .map(|replica| {
                let mut service = Service::new();
                replica.clone().serve_on(&mut service);
                pair(Service::none(), Rc::new(service))
            })
            .unzip();
        let balanced = Balanced::new(peers);
        let hedging =
            Retrying::new(balanced.clone(), RetryPolicy::default().hedged(Duration::from_millis(20), 2));
        let show = |name: &str, times: &[Duration]| {
            println!("{name}: median {:.1?}, longest {:.1?}", times[times.len() / 2], times[times.len() - 1]);
        };
        show("one replica a call", &measure(&LookupClient::new(balanced))?);
        show("hedged after 20 ms", &measure(&LookupClient::new(hedging.clone()))?);
        println!(
            "copies sent: {}, lookups that the slow replica was told to end: {}",
            hedging.extra_count(),
            replicas[0].called_off.get()
        );
        Ok(())
    })
}
