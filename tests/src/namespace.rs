//! Network namespaces, as containers have them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::process::{output, run};

/// A network namespace, gone with this value.
pub struct Namespace {
    name: String,
    /// Device and addresses at this end and at the other one.
    link: Option<Link>,
}

struct Link {
    device: String,
    outside: String,
    inside: String,
}

impl Namespace {
    /// One that this process calls `name`, with its loopback interface up.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn new(name: &str) -> Self {
        let name = format!("ktrdr-{name}-{}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        let ns = Self { name, link: None };
        run(ns.command("ip").args(["link", "set", "lo", "up"]));
        ns
    }

    /// The same with a link to the namespace of this process, by two addresses that are nobody else's: the `number`th such.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn linked(name: &str, number: u8) -> Self {
        let mut ns = Self::new(name);
        let id = std::process::id();
        // 30 devices' names fit in 15 characters; 198.18.0.0/15 is for tests between networks (RFC 2544).
        let device = format!("kt{number}-{id}");
        let net = format!("198.18.{}.{}", id % 250, number * 4);
        let host =
            |last: u8| format!("{}.{}", net.rsplit_once('.').map_or("", |(n, _)| n), number * 4 + last);
        let link = Link { device: device.clone(), outside: host(1), inside: host(2) };
        run(Command::new("ip")
            .args(["link", "add", &device, "type", "veth", "peer", "name", "eth0", "netns", &ns.name]));
        run(Command::new("ip").args(["addr", "add", &format!("{}/30", link.outside), "dev", &device]));
        run(Command::new("ip").args(["link", "set", &device, "up"]));
        run(ns.command("ip").args(["addr", "add", &format!("{}/30", link.inside), "dev", "eth0"]));
        run(ns.command("ip").args(["link", "set", "eth0", "up"]));
        ns.link = Some(link);
        ns
    }

    /// The address that this process has for those inside.
    ///
    /// # Panics
    /// It is not linked.
    pub fn outside(&self) -> &str {
        &self.link.as_ref().expect("linked").outside
    }

    /// The address that those inside have for this process.
    ///
    /// # Panics
    /// It is not linked.
    pub fn inside(&self) -> &str {
        &self.link.as_ref().expect("linked").inside
    }

    /// A command inside.
    pub fn command(&self, program: &str) -> Command {
        let mut c = Command::new("ip");
        c.args(["netns", "exec", &self.name, program]);
        c
    }

    /// Rules of nftables inside.
    ///
    /// # Panics
    /// They are refused.
    pub fn rules(&self, text: &str) {
        let mut nft =
            self.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft starts");
        let written = nft.stdin.take().expect("piped").write_all(text.as_bytes());
        let ended = nft.wait().expect("nft ends");
        assert!(written.is_ok() && ended.success(), "nft refused {text}");
    }

    /// `command` inside.
    pub fn enter(&self, command: &Command) -> Command {
        let mut c = self.command(&command.get_program().to_string_lossy());
        c.args(command.get_args());
        c
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            let _ = output(Command::new("ip").args(["link", "del", &link.device]));
        }
        let _ = output(Command::new("ip").args(["netns", "del", &self.name]));
    }
}
