//! One network of some machines on a switch, without a router: nothing outside is reached.

use super::Lab;

impl Lab {
    /// The machines `host0` and on, at 10.PART.0.1 and on.
    pub(crate) fn of_one_network(name: &str, hosts: usize, part: u8) -> Lab {
        let mut lab = Lab { name: format!("hy{}{name}", std::process::id()), namespaces: Vec::new() };
        lab.namespace("switch", false);
        lab.ip("switch", "link add lan type bridge");
        lab.ip("switch", "link set lan up");
        for number in 0..hosts {
            let (host, port) = (format!("host{number}"), format!("to-{number}"));
            lab.namespace(&host, false);
            lab.cable("switch", &port, &host, "eth0");
            lab.ip("switch", &format!("link set {port} master lan"));
            lab.ip(&host, &format!("addr add {} dev eth0", address(number, part)));
        }
        lab
    }

    /// The same machines get other addresses, all of them.
    pub(crate) fn renumber(&self, hosts: usize, part: u8) {
        for number in 0..hosts {
            let host = format!("host{number}");
            self.ip(&host, "addr flush dev eth0");
            self.ip(&host, &format!("addr add {} dev eth0", address(number, part)));
        }
    }
}

fn address(number: usize, part: u8) -> String {
    format!("10.{part}.0.{}/24", number + 1)
}
