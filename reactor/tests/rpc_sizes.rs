//! Sizes of requests and replies by connection, by method and by call: what is longer is refused before it is held, and
//! with an error that says which of the two it was.

use std::cell::Cell;
use std::io::IoSlice;
use std::rc::Rc;

use bytes::Bytes;
use reactor::net::{Duplex, Pipe, pipe};
use reactor::rpc::frame::{Header, PREFACE, Priority};
use reactor::rpc::{
    CallContext, CallError, CallOptions, Config, Connection, Never, Payload, Pool, REPLY_SIZE_BYTES_DEFAULT,
    Service, StreamReceiver,
};

reactor::service! {
    trait Store = "store" version 1, client StoreClient {
        /// Of the sizes that the connection allows.
        fn plain(&self, load: Payload) -> Result<u64, Never> = 1 as Plain;
        /// Takes more than the connection allows others.
        fn large(&self, load: Payload) -> Result<u64, Never> = 2 as Large, requests_up_to(200_000);
        /// Takes less.
        fn small(&self, load: Payload) -> Result<u64, Never> = 3 as Small, requests_up_to(100);
        /// Gives what is asked for.
        fn give(&self, size: usize) -> Result<((), Payload), Never> = 4 as Give;
        /// The same, and allows itself more.
        fn give_much(&self, size: usize) -> Result<((), Payload), Never> = 5 as GiveMuch, replies_up_to(1 << 20);
        /// Takes a short opening only.
        fn listen(&self, text: String, items: StreamReceiver<u8>) -> Result<(), Never>
            = 6 as Listen, requests_up_to(100);
    }
}

/// The same to a caller that knows nothing of the small method's bound.
mod careless {
    use reactor::rpc::Never;
    reactor::service! {
        pub trait Store = "store" version 1, client CarelessClient {
            fn small(&self, load: Payload) -> Result<u64, Never> = 3 as CarelessSmall;
            fn listen(&self, text: String, items: StreamReceiver<u8>) -> Result<(), Never> = 6 as CarelessListen;
        }
    }
}

#[derive(Default)]
struct Shop {
    begun: Rc<Cell<u32>>,
}

impl Shop {
    fn take(&self, load: &Payload) -> Result<u64, Never> {
        self.begun.set(self.begun.get() + 1);
        Ok(load.len() as u64)
    }
}

impl Store for Shop {
    fn plain(&self, _: &CallContext, load: Payload) -> Result<u64, Never> {
        self.take(&load)
    }
    fn large(&self, _: &CallContext, load: Payload) -> Result<u64, Never> {
        self.take(&load)
    }
    fn small(&self, _: &CallContext, load: Payload) -> Result<u64, Never> {
        self.take(&load)
    }
    fn give(&self, _: &CallContext, size: usize) -> Result<((), Payload), Never> {
        Ok(((), Bytes::from(vec![1; size])))
    }
    fn give_much(&self, _: &CallContext, size: usize) -> Result<((), Payload), Never> {
        Ok(((), Bytes::from(vec![1; size])))
    }
    fn listen(&self, _: &CallContext, _: String, _: StreamReceiver<u8>) -> Result<(), Never> {
        self.begun.set(self.begun.get() + 1);
        Ok(())
    }
}

struct Ends {
    near: Connection,
    _far: Connection,
    begun: Rc<Cell<u32>>,
}

/// A shop that takes requests of 10,000 bytes where its methods don't say, what its peers hold together, and how many calls
/// it has begun.
fn shop_on(stream: Pipe) -> (Connection, Pool, Rc<Cell<u32>>) {
    let shop = Rc::new(Shop::default());
    let (begun, pool) = (shop.begun.clone(), Pool::new(1 << 30));
    let mut service = Service::new();
    shop.serve_on(&mut service);
    let config = Config { request_bytes_max: 10_000, pool: pool.clone(), ..Config::default() };
    (Connection::start(stream, Rc::new(service), config), pool, begun)
}

fn ends() -> Ends {
    let (near, far) = pipe(1 << 20);
    let (far, _, begun) = shop_on(far);
    let near = Connection::start(near, Service::none(), Config::default());
    Ends { near, _far: far, begun }
}

fn load(size: usize) -> Payload {
    Payload::from(vec![7; size])
}

#[test]
fn a_method_takes_more_or_less_than_its_connection_and_what_is_longer_is_not_done() {
    reactor::run(|| {
        let Ends { near, _far, begun, .. } = ends();
        let store = StoreClient::new(near.clone());
        // Nothing is encoded as one byte.
        assert_eq!(store.plain(load(9_999)), Ok(9_999));
        assert_eq!(store.plain(load(10_000)), Err(CallError::RequestTooLarge));
        assert_eq!(store.large(load(199_999)), Ok(199_999));
        assert_eq!(store.large(load(200_000)), Err(CallError::RequestTooLarge));
        assert_eq!(store.small(load(99)), Ok(99));
        assert_eq!(store.small(load(100)), Err(CallError::RequestTooLarge));
        assert_eq!(begun.get(), 3);
        // Who does not know is told by the callee, over many parts too; and the next call is as good as ever.
        let careless = careless::CarelessClient::new(near);
        for size in [100, 5_000, 300_000] {
            assert_eq!(careless.small(load(size)), Err(CallError::RequestTooLarge), "{size}");
        }
        let refused = careless.listen("x".repeat(100)).unwrap().finish();
        assert_eq!(refused, Err(CallError::RequestTooLarge));
        assert_eq!(begun.get(), 3);
        assert_eq!(store.small(load(50)), Ok(50));
        store.listen("short".into()).unwrap().finish().unwrap();
        assert_eq!(begun.get(), 5);
    });
}

#[test]
fn a_reply_is_as_long_as_its_method_says_and_as_its_caller_takes() {
    reactor::run(|| {
        let ends = ends();
        let store = StoreClient::new(ends.near.clone());
        assert!(store.give(REPLY_SIZE_BYTES_DEFAULT - 1).is_ok());
        assert_eq!(store.give(REPLY_SIZE_BYTES_DEFAULT), Err(CallError::TooLarge));
        assert!(store.give_much(500_000).is_ok());
        // One call takes less than its method gives; small bounds are as exact as large ones.
        for bound in [100, 300_000] {
            let bounded = store.with(CallOptions::default().replies_up_to(bound));
            assert_eq!(bounded.give_much(bound - 1).map(|(_, load)| load.len()), Ok(bound - 1));
            assert_eq!(bounded.give_much(bound), Err(CallError::TooLarge));
        }
        assert!(store.give_much(500_000).is_ok(), "the connection goes on");
    });
}

#[test]
fn a_request_that_is_too_long_is_refused_before_anything_of_it_is_held() {
    reactor::run(|| {
        let (near, peer) = pipe(1 << 16);
        let (victim, pool, _) = shop_on(near);
        peer.write_slices(&mut [IoSlice::new(&PREFACE)]).unwrap();
        // Headers that claim 4 MiB each, and the first part of each: as many as may be under way.
        for call in 0..4 {
            let header = Header::Request {
                call,
                method: 1,
                timeout_ms: 60_000,
                metadata_size: 0,
                message_size: 0,
                payload_size: 4 << 20,
                priority: Priority::Normal,
            };
            let said = [&header.encode()[..], &vec![0; 64 << 10]].concat();
            peer.write_slices(&mut [IoSlice::new(&said)]).unwrap();
            reactor::yield_now();
            assert_eq!(victim.calls_in_flight(), (0, 0));
            assert_eq!(pool.taken_bytes(), 0, "it is charged, so it is held");
        }
        assert!(!victim.is_closed());
    });
}
