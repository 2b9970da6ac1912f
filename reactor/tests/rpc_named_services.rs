//! Services that share one connection by name: each has its own methods, numbers and interceptors, what stands around the
//! connection's own service stands around all of them, and a name that is not there is an error of its own.

use std::rc::Rc;

use reactor::cell::RefCell;
use reactor::rpc::{
    CallContext, CallError, CallInfo, CallOptions, Connection, Named, Never, Reply, Retrying, Service,
    ServiceName, StreamSender, pair,
};

reactor::service! {
    trait Talker = "talker" version 1, client TalkerClient {
        fn say(&self) -> Result<String, Never> = 1 as Say;
        fn count(&self, numbers: StreamSender<u32>) -> Result<String, Never> = 2 as Count;
    }
}

reactor::service! {
    trait Adder = "adder" version 1, client AdderClient {
        // The same number as another service's method.
        fn add(&self, a: u64, b: u64) -> Result<u64, Never> = 1 as Add, inline;
    }
}

struct Speaks(&'static str);

impl Talker for Speaks {
    fn say(&self, call: &CallContext) -> Result<String, Never> {
        Ok(format!("{} as {:?}", self.0, call.service()))
    }
    fn count(&self, _: &CallContext, numbers: StreamSender<u32>) -> Result<String, Never> {
        (0..3).for_each(|number| _ = numbers.send(&number));
        Ok(self.0.to_owned())
    }
}

struct Sums;

impl Adder for Sums {
    fn add(&self, _: &CallContext, a: u64, b: u64) -> Result<u64, Never> {
        Ok(a + b)
    }
}

fn talker(says: &'static str) -> Service {
    let mut service = Service::new();
    Rc::new(Speaks(says)).serve_on(&mut service);
    service
}

fn name(name: &'static str) -> ServiceName {
    ServiceName::from_static(name)
}

fn connect(service: Service) -> (Connection, Connection) {
    pair(Service::none(), Rc::new(service))
}

#[test]
fn services_share_a_connection_by_name_and_an_unknown_name_is_told() {
    reactor::run(|| {
        let mut service = talker("own");
        service.share(name("other"), Rc::new(talker("other")));
        Rc::new(Sums).share_on(&mut service);
        let (near, _far) = connect(service);
        assert_eq!(TalkerClient::new(near.clone()).say(), Ok("own as \"\"".to_owned()));
        let other = TalkerClient::new(Named::new(near.clone(), name("other")));
        assert_eq!(other.say(), Ok("other as \"other\"".to_owned()));
        let call = other.count().unwrap();
        assert_eq!(call.items().collect::<Result<Vec<_>, _>>(), Ok(vec![0, 1, 2]));
        assert_eq!(call.finish(), Ok("other".to_owned()));
        assert_eq!(AdderClient::by_name(near.clone()).add(2, 3), Ok(5));
        // A name goes through whatever carries calls.
        let far_away = AdderClient::by_name(Retrying::new(near.clone(), Default::default()));
        assert_eq!(far_away.add(4, 5), Ok(9));
        let nobody = TalkerClient::new(Named::new(near.clone(), name("nobody")));
        assert_eq!(nobody.say(), Err(CallError::UnknownService));
        assert_eq!(nobody.count().unwrap().finish(), Err(CallError::UnknownService));
        let wrong = TalkerClient::new(Named::new(near, name("adder")));
        assert_eq!(wrong.count().unwrap().finish(), Err(CallError::UnknownMethod));
    });
}

#[test]
fn who_guards_the_connection_guards_every_service_on_it() {
    reactor::run(|| {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let note = |place: &'static str| {
            let seen = seen.clone();
            move |call: &CallInfo<'_>, next: &mut dyn FnMut() -> Reply| {
                seen.borrow_mut().push(format!("{place}: {} of {:?}", call.name, call.service));
                match call.metadata.get("token") {
                    None if place == "gate" => Reply::Denied("no token".to_owned()),
                    _ => next(),
                }
            }
        };
        let mut inner = talker("inner");
        inner.around(note("inner"));
        let mut service = talker("own");
        service.share(name("inner"), Rc::new(inner));
        service.around(note("gate"));
        let (near, _far) = connect(service);
        let inner = TalkerClient::new(Named::new(near.clone(), name("inner")));
        assert_eq!(inner.say(), Err(CallError::Denied("no token".to_owned())));
        let token = reactor::rpc::Metadata::new().with("token", "x").unwrap();
        let options = CallOptions::default().metadata(token);
        assert!(inner.with(options.clone()).say().is_ok());
        assert!(TalkerClient::new(near).with(options).say().is_ok());
        let expected = [
            "gate: talker.say of \"inner\"",
            "gate: talker.say of \"inner\"",
            "inner: talker.say of \"inner\"",
            "gate: talker.say of \"\"",
        ];
        assert_eq!(*seen.borrow(), expected);
    });
}

#[test]
#[should_panic(expected = "share the name")]
fn two_services_of_one_name_are_a_bug() {
    let mut service = talker("own");
    service.share(name("a"), Rc::new(talker("a"))).share(name("a"), Rc::new(talker("b")));
}
