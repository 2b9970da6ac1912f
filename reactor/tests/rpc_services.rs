//! Services defined once: the trait, the client and the schema agree, and a released schema stays as it is.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::rpc::{
    CallContext, CallError, CallInfo, CallOptions, Config, Connection, Method, Never, Reply, Service, pair,
};

reactor::service! {
    /// Keeps named blobs, and counts.
    pub trait Shelf = "shelf" version 1, client ShelfClient {
        /// Keeps a blob under a name.
        fn put(&self, name: String, blob: Payload) -> Result<usize, String> = 0x10 as Put, idempotent;
        /// Gives it back, with how often it was asked for.
        fn get(&self, name: String) -> Result<(u32, Payload), String>
            = 0x11 as Get, replies_up_to(1 << 20);
        /// Nothing in, nothing out.
        fn ping(&self) -> Result<(), Never> = 0x12 as Ping, inline, idempotent;
        /// Three arguments and a pair as the answer.
        fn mix(&self, a: u8, b: Vec<Vec<u8>>, c: Option<(u8, u8)>) -> Result<(usize, bool), Never>
            = 0x13 as Mix;
        /// Panics where it is told to.
        fn panic(&self, inline: bool) -> Result<(), Never> = 0x14 as Panic, inline;
        /// How long the caller waits, in milliseconds.
        fn patience(&self) -> Result<u64, Never> = 0x15 as Patience;
    }
}

#[derive(Default)]
struct Keeper {
    blob: reactor::cell::RefCell<Option<(String, Bytes)>>,
    asked: Cell<u32>,
}

impl Shelf for Keeper {
    fn put(&self, _: &CallContext, name: String, blob: Bytes) -> Result<usize, String> {
        let size = blob.len();
        *self.blob.borrow_mut() = Some((name, blob));
        Ok(size)
    }

    fn get(&self, _: &CallContext, name: String) -> Result<(u32, Bytes), String> {
        self.asked.set(self.asked.get() + 1);
        match &*self.blob.borrow() {
            Some((kept, blob)) if *kept == name => Ok((self.asked.get(), blob.clone())),
            _ => Err(format!("no {name}")),
        }
    }

    fn ping(&self, _: &CallContext) -> Result<(), Never> {
        Ok(())
    }

    fn mix(
        &self,
        _: &CallContext,
        a: u8,
        b: Vec<Vec<u8>>,
        c: Option<(u8, u8)>,
    ) -> Result<(usize, bool), Never> {
        Ok((usize::from(a) + b.len(), c == Some((1, 2))))
    }

    fn panic(&self, _: &CallContext, _: bool) -> Result<(), Never> {
        panic!("this panic is part of a test");
    }

    fn patience(&self, call: &CallContext) -> Result<u64, Never> {
        Ok(call.time_left().as_millis() as u64)
    }
}

fn shelf() -> ShelfClient {
    let mut service = Service::new();
    Rc::new(Keeper::default()).serve_on(&mut service);
    let (near, far) = pair(Service::none(), Rc::new(service));
    // It lives as long as the other end.
    reactor::spawn(move || far.wait_closed());
    ShelfClient::new(near)
}

#[test]
fn the_client_has_the_traits_methods_and_payloads_travel_beside() {
    reactor::run(|| {
        let shelf = shelf();
        let blob = Bytes::from(vec![7; 100_000]);
        assert_eq!(shelf.put("a".into(), blob.clone()), Ok(100_000));
        assert_eq!(shelf.get("a".into()), Ok((1, blob)));
        assert_eq!(shelf.get("b".into()), Err(CallError::Remote("no b".into())));
        assert_eq!(shelf.ping(), Ok(()));
        assert_eq!(shelf.mix(1, vec![vec![], vec![1]], Some((1, 2))), Ok((3, true)));
    });
}

#[test]
fn options_of_a_client_hold_for_its_calls_and_the_callee_learns_the_deadline() {
    reactor::run(|| {
        let hasty = shelf().with(CallOptions::timeout(Duration::from_secs(3)));
        assert!((2_000..=3_001).contains(&hasty.patience().unwrap()));
    });
}

#[test]
fn a_panic_in_a_handler_that_runs_inline_is_an_error_at_the_caller_and_the_connection_lives_on() {
    reactor::run(|| {
        let shelf = shelf();
        assert_eq!(shelf.panic(true), Err(CallError::Panicked));
        assert_eq!(shelf.ping(), Ok(()));
    });
}

#[test]
fn flags_behind_a_method_are_constants_of_its_marker() {
    let flags = |inline, idempotent| (inline, idempotent);
    assert_eq!(flags(Ping::INLINE, Ping::IDEMPOTENT), (true, true));
    assert_eq!(flags(Get::INLINE, Get::IDEMPOTENT), (false, false));
    assert_eq!(flags(Put::INLINE, Put::IDEMPOTENT), (false, true));
    assert_eq!((Put::ID, Put::NAME), (0x10, "shelf.put"));
}

#[test]
fn one_argument_is_encoded_as_itself_and_several_as_a_tuple() {
    fn is<A: 'static, B: 'static>() -> bool {
        std::any::TypeId::of::<A>() == std::any::TypeId::of::<B>()
    }
    assert!(is::<<Put as Method>::Request, String>());
    assert!(is::<<Ping as Method>::Request, ()>());
    assert!(is::<<Mix as Method>::Request, (u8, Vec<Vec<u8>>, Option<(u8, u8)>)>());
    assert!(is::<<Get as Method>::Response, u32>());
}

#[test]
fn the_released_schema_stays_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/shelf.txt");
    ShelfClient::schema().compare_with_released(path).unwrap();
}

#[test]
fn a_changed_method_is_found_against_the_released_schema() {
    let mut changed = ShelfClient::schema();
    changed.methods[1].response = "(u64, Payload)";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/shelf.txt");
    let found = changed.incompatibilities(&std::fs::read_to_string(path).unwrap());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("0x0011 get"), "{found:?}");
}

/// What an interceptor saw.
type Log = Rc<reactor::cell::RefCell<Vec<String>>>;

fn note(log: &Log, who: &'static str) -> impl Fn(&CallInfo<'_>, &mut dyn FnMut() -> Reply) -> Reply + use<> {
    let log = log.clone();
    move |call, next| {
        log.borrow_mut().push(format!("{who} before {}", call.name));
        let reply = next();
        let sizes = (call.request_bytes, reply.size_bytes());
        log.borrow_mut().push(format!("{who} after {sizes:?}"));
        reply
    }
}

#[test]
fn interceptors_stand_around_calls_on_both_sides_in_their_order() {
    reactor::run(|| {
        let log = Log::default();
        let mut service = Service::new();
        Rc::new(Keeper::default()).serve_on(&mut service);
        service.around(note(&log, "outer")).around(note(&log, "inner"));
        let (near, far) = reactor::net::pipe(1 << 16);
        let _far = Connection::start(far, Rc::new(service), Config::default());
        let config = Config::default().around(note(&log, "client"));
        let shelf = ShelfClient::new(Connection::start(near, Service::none(), config));
        assert_eq!(shelf.put("a".into(), Bytes::from_static(b"12345")), Ok(5));
        let expected = [
            "client before shelf.put",
            "outer before shelf.put",
            "inner before shelf.put",
            "inner after (7, 1)",
            "outer after (7, 1)",
            "client after (7, 1)",
        ];
        assert_eq!(*log.borrow(), expected);
    });
}

#[test]
fn an_interceptor_denies_and_nothing_is_done() {
    reactor::run(|| {
        let keeper = Rc::new(Keeper::default());
        let mut service = Service::new();
        keeper.clone().serve_on(&mut service);
        service.around(|call: &CallInfo<'_>, next: &mut dyn FnMut() -> Reply| match call.peer {
            None if call.name == "shelf.get" => Reply::Denied("say who you are".to_owned()),
            _ => next(),
        });
        let (near, _far) = pair(Service::none(), Rc::new(service));
        let shelf = ShelfClient::new(near);
        // Who denies must be known to: so it is only after the hellos that the reason travels.
        assert_eq!(shelf.ping(), Ok(()));
        reactor::sleep(Duration::from_millis(5));
        assert_eq!(shelf.get("a".into()), Err(CallError::Denied("say who you are".to_owned())));
        assert_eq!(keeper.asked.get(), 0);
        assert_eq!(shelf.put("a".into(), Bytes::new()), Ok(0));
    });
}

#[test]
fn an_interceptor_may_repeat_a_call() {
    reactor::run(|| {
        let mut service = Service::new();
        let keeper = Rc::new(Keeper::default());
        keeper.clone().serve_on(&mut service);
        let (near, far) = reactor::net::pipe(1 << 16);
        let _far = Connection::start(far, Rc::new(service), Config::default());
        let config = Config::default().around(|_: &CallInfo<'_>, next: &mut dyn FnMut() -> Reply| {
            let first = next();
            if matches!(first, Reply::Error(_)) { next() } else { first }
        });
        let shelf = ShelfClient::new(Connection::start(near, Service::none(), config));
        assert!(shelf.get("a".into()).is_err());
        assert_eq!(keeper.asked.get(), 2);
    });
}

reactor::service! {
    /// Asks a shelf in its turn.
    trait Relay = "relay" version 1, client RelayClient {
        /// How long the shelf is given, asked directly, from a scope, and by a coroutine on its own.
        fn patience(&self) -> Result<(u64, u64, u64), String> = 1 as RelayPatience;
    }
}

impl Relay for ShelfClient {
    fn patience(&self, _: &CallContext) -> Result<(u64, u64, u64), String> {
        let ask = |shelf: &ShelfClient| shelf.patience().map_err(|error| error.to_string());
        let direct = ask(self)?;
        let scoped =
            reactor::scope(|s| s.spawn(|| ask(self)).join()).map_err(|error| error.to_string())??;
        let own = self.clone();
        let alone = reactor::spawn(move || own.patience()).join().map_err(|error| error.to_string())?;
        Ok((direct, scoped, alone.map_err(|error| error.to_string())?))
    }
}

#[test]
fn a_deadline_travels_and_bounds_the_calls_that_its_handler_makes() {
    reactor::run(|| {
        let mut service = Service::new();
        Rc::new(shelf()).serve_on(&mut service);
        let (near, _far) = pair(Service::none(), Rc::new(service));
        let relay = RelayClient::new(near).with(CallOptions::timeout(Duration::from_secs(2)));
        let (direct, scoped, alone) = relay.patience().unwrap();
        assert!((1_000..=2_001).contains(&direct), "{direct} ms of two seconds");
        assert!((1_000..=2_001).contains(&scoped), "{scoped} ms of two seconds");
        assert!((9_000..=10_001).contains(&alone), "a coroutine on its own works for nobody: {alone} ms");
    });
}
