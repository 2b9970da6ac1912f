//! Routers that map ports when they are asked to: miniupnpd, which speaks PCP, NAT-PMP and UPnP, on a router of the lab.
//!
//! What it is not: a part of every lab. Where it is missing, stories that need it say so and are skipped.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Lab, loud};

/// Whether miniupnpd is here; says loudly if it is not.
pub(crate) fn is_here(story: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let is_here = places.into_iter().any(|directory| directory.join("miniupnpd").exists());
    if !is_here {
        loud(&format!("SKIPPED: {story}: miniupnpd is missing (apt install miniupnpd-nftables)"));
    }
    is_here
}

/// The daemon of a router, which ends when it is dropped.
pub(crate) struct MapsPorts {
    daemon: Child,
    files: PathBuf,
}

impl Lab {
    /// Has the router of that site map ports from now on, by all three protocols or by UPnP alone.
    pub(crate) fn map_ports(&self, number: usize, by_upnp_alone: bool) -> MapsPorts {
        let (router, files) =
            (format!("router{number}"), std::env::temp_dir().join(format!("{}-{number}", self.name)));
        fs::create_dir_all(&files).unwrap();
        // The chains that it writes into, and a way to the group where it hears searches.
        let chains = "table inet filter {
            chain miniupnpd {}
            chain prerouting_miniupnpd {}
            chain postrouting_miniupnpd {}
            chain prerouting { type nat hook prerouting priority -101; policy accept; jump prerouting_miniupnpd; }
            chain postrouting { type nat hook postrouting priority 99; policy accept; jump postrouting_miniupnpd; }
        }\n";
        self.exec(&router, "nft -f -", chains);
        self.ip(&router, "route replace 239.0.0.0/8 dev lan");
        let others = if by_upnp_alone { "no" } else { "yes" };
        let configuration = format!(
            "ext_ifname=wan\nlistening_ip=lan\nenable_natpmp={others}\nenable_upnp=yes\nsecure_mode=yes\nsystem_uptime=yes\n\
             uuid=00000000-0000-0000-0000-0000000000{number:02}\nlease_file={}\n\
             allow 1024-65535 192.168.0.0/16 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
            files.join("leases").display()
        );
        fs::write(files.join("conf"), configuration).unwrap();
        let pid = files.join("pid");
        // Those of its words that go to a pipe that nobody reads would stop it.
        let daemon = self
            .within(&router, "miniupnpd")
            .args(["-d", "-f"])
            .arg(files.join("conf"))
            .arg("-P")
            .arg(pid)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        MapsPorts { daemon, files }
    }

    /// What the router of that site maps, as its own table has it: a line for each port.
    pub(crate) fn ports_mapped(&self, number: usize) -> Vec<String> {
        let mut list: Command = self.within(&format!("router{number}"), "nft");
        let output = list.args(["list", "chain", "inet", "filter", "prerouting_miniupnpd"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let listed = String::from_utf8(output.stdout).unwrap();
        listed.lines().filter(|line| line.contains("dnat")).map(|line| line.trim().to_owned()).collect()
    }
}

impl Drop for MapsPorts {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(&self.files);
    }
}
