//! Services defined once: the trait, the client and the schema agree, and a released schema stays as it is.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::rpc::{CallContext, CallError, CallOptions, Method, Never, Service, pair};

reactor::service! {
    /// Keeps named blobs, and counts.
    pub trait Shelf = "shelf" version 1, client ShelfClient {
        /// Keeps a blob under a name.
        fn put(&self, name: String, blob: Payload) -> Result<usize, String> = 0x10 as Put, idempotent;
        /// Gives it back, with how often it was asked for.
        fn get(&self, name: String) -> Result<(u32, Payload), String> = 0x11 as Get;
        /// Nothing in, nothing out.
        fn ping(&self) -> Result<(), Never> = 0x12 as Ping, inline, idempotent;
        /// Three arguments and a pair as the answer.
        fn mix(&self, a: u8, b: Vec<Vec<u8>>, c: Option<(u8, u8)>) -> Result<(usize, bool), Never> = 0x13 as Mix;
        /// Panics where it is told to.
        fn panic(&self, inline: bool) -> Result<(), Never> = 0x14 as Panic, inline;
        /// How long the caller waits, in milliseconds.
        fn patience(&self) -> Result<u64, Never> = 0x15 as Patience;
    }
}

#[derive(Default)]
struct Keeper {
    blob: std::cell::RefCell<Option<(String, Bytes)>>,
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
    assert!(Ping::INLINE && Ping::IDEMPOTENT);
    assert!(!Get::INLINE && !Get::IDEMPOTENT);
    assert!(Put::IDEMPOTENT && !Put::INLINE);
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
