//! A member that was away until its passport had expired comes in at any node that has its new one, and is given that there;
//! nobody else comes in by it.

mod common;

use std::time::{Duration, SystemTime};

use common::*;
use overlay::admission::Refusal;
use overlay::{Bootstrap, Config, JoinError, Passport, PassportError, Revocations, Rights};

const SOON: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

fn passport(network: &Network, config: &Config, rights: Rights, expires: SystemTime) -> Passport {
    Passport::issue(&network.owner, config.identity.public_key(), rights, Some(expires))
}

#[test]
fn who_was_away_for_too_long_comes_in_by_the_passport_that_the_nodes_have_for_it() {
    reactor::run(|| {
        let network = Network::new();
        let (_first, kept) = scratch_file("renewals");
        let (_second, own) = scratch_file("renewals");
        let first = network.storage(&[]);
        let again = |listen| Config {
            identity: first.identity.clone(),
            passport: first.passport.clone(),
            renewals_file: Some(kept.clone()),
            listen: Some(listen),
            ..network.storage(&[])
        };
        let node = start(again(loopback()));
        let (at, over, later) = (address(&node), SystemTime::now() - 2 * HOUR, SystemTime::now() + 48 * HOUR);

        let client = network.client(&[]);
        let old = passport(&network, &client, Rights::CLIENT, over);
        let new = passport(&network, &client, Rights::CLIENT, later);
        let member = || Config {
            identity: client.identity.clone(),
            passport: old.clone(),
            renewals_file: Some(own.clone()),
            ..network.client(&[])
        };
        let guest = start(member());
        let refused = guest.join(&[Bootstrap::Address(at)]);
        let expired = Refusal::Passport(PassportError::Expired { link: 0 });
        assert!(matches!(&refused, Err(JoinError::Refused(why)) if *why == expired), "{refused:?}");

        // The owner renews it while nobody else is there; a node that comes later learns it from the first.
        node.renew(vec![new.clone()]).unwrap();
        node.stop();
        let node = start(again(at));
        let second = start(network.storage(&[at]));
        eventually("the second node lets it in", SOON, || {
            guest.join(&[Bootstrap::Address(address(&second))]).is_ok()
        });
        eventually("it has its own", SOON, || guest.passport() == new && own.exists());
        guest.stop();
        let guest = start(member());
        assert_eq!(guest.passport(), new, "it remembers it");
        assert!(guest.join(&[Bootstrap::Address(at)]).is_ok());

        // Nodes are members too.
        let late = network.storage(&[at]);
        let (old, new) =
            (passport(&network, &late, Rights::NODE, over), passport(&network, &late, Rights::NODE, later));
        let late = start(Config { passport: old, ..late });
        assert_eq!(live_count(&late), 0);
        second.renew(vec![new.clone()]).unwrap();
        eventually("the late node is in, and has its passport", SOON, || {
            live_count(&late) == 2 && late.passport() == new
        });

        // Who was removed does not come back by a passport that ends later.
        let longer = passport(&network, &client, Rights::CLIENT, later + HOUR);
        let list = Revocations::default().with(&network.owner, [longer.holder()], SystemTime::now()).unwrap();
        node.revoke(list).unwrap();
        node.renew(vec![longer]).unwrap();
        eventually("it is cut off", SOON, || node.peers().get(&client.identity.public_key()).is_none());
        guest.stop();
        // Also if nobody has told it yet, so that it would not refuse itself.
        let unaware = start(Config { renewals_file: None, ..member() });
        let refused = unaware.join(&[Bootstrap::Address(at)]);
        let revoked = Refusal::Passport(PassportError::Revoked { link: 0 });
        assert!(matches!(&refused, Err(JoinError::Refused(why)) if *why == revoked), "{refused:?}");
        assert!(node.peers().get(&client.identity.public_key()).is_none());
    });
}
