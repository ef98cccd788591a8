//! Identities, derived and not drawn: the same input gives the same ids, and both ends of an exchange, on one host
//! or two, derive the same exchange id from what both see.

use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use super::model::{SpanId, TraceId, Value};
use crate::protocol::Role;

/// Names one exchange, or one command: client address, server address and the TCP sequence number of the request's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u128);

impl ExchangeId {
    /// Hashes what both ends see. Loopback addresses exist once per network namespace and host, so there the
    /// namespace and the host's seed take part.
    pub fn new(seed: u64, client: SocketAddr, server: SocketAddr, netns: u32, seq: u32) -> Self {
        let mut b = [0u8; 56];
        let ip = |a: IpAddr| match a {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        b[..16].copy_from_slice(&ip(client.ip()));
        b[16..32].copy_from_slice(&ip(server.ip()));
        b[32..34].copy_from_slice(&client.port().to_le_bytes());
        b[34..36].copy_from_slice(&server.port().to_le_bytes());
        b[36..40].copy_from_slice(&seq.to_le_bytes());
        if server.ip().is_loopback() {
            b[40..44].copy_from_slice(&netns.to_le_bytes());
            b[44..52].copy_from_slice(&seed.to_le_bytes());
        }
        Self(xxh3_128(&b))
    }

    /// For a message on a pipe, which has no addresses: who read it and when, its line, and its id.
    pub fn of_line(tgid: u32, ts: u64, line: u64, id: u64) -> Self {
        let mut b = [0u8; 28];
        b[..4].copy_from_slice(&tgid.to_le_bytes());
        b[4..12].copy_from_slice(&ts.to_le_bytes());
        b[12..20].copy_from_slice(&line.to_le_bytes());
        b[20..].copy_from_slice(&id.to_le_bytes());
        Self(xxh3_128(&b))
    }

    /// Of a command: its process and when it executed its program.
    pub fn of_command(seed: u64, tgid: u32, exec: u64) -> Self {
        let mut b = [0u8; 28];
        b[..8].copy_from_slice(b"command\0");
        b[8..12].copy_from_slice(&tgid.to_le_bytes());
        b[12..20].copy_from_slice(&exec.to_le_bytes());
        b[20..].copy_from_slice(&seed.to_le_bytes());
        Self(xxh3_128(&b))
    }

    /// The span id of one end.
    pub fn span_id(self, seed: u64, role: Role) -> SpanId {
        let mut b = [0u8; 17];
        b[..16].copy_from_slice(&self.0.to_le_bytes());
        b[16] = match role {
            Role::Client => 1,
            Role::Server => 2,
        };
        // An id of zero is invalid (W3C Trace Context §3.2.2.4); one hash in 2^64 is.
        SpanId(xxh3_64_with_seed(&b, seed).max(1).to_be_bytes())
    }

    /// The trace id, should one end be the root.
    pub fn trace_id(self, seed: u64, role: Role) -> TraceId {
        let mut b = [0u8; 25];
        b[..16].copy_from_slice(&self.0.to_le_bytes());
        b[16] = match role {
            Role::Client => 1,
            Role::Server => 2,
        };
        b[17..].copy_from_slice(&seed.to_le_bytes());
        TraceId(xxh3_128(&b).max(1).to_be_bytes())
    }
}

/// Where both directions of a connection stood when a request began: the sequence number of its first byte, and of
/// the next byte the other way. Both are chosen at random per connection (RFC 9293 §3.4.1, RFC 6528), and address
/// translation leaves them alone, so both ends see the same 64 bits where they see other addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Positions(u64);

impl Positions {
    /// Request first.
    pub fn new(request: u32, response: u32) -> Self {
        Self(u64::from(request) << 32 | u64::from(response))
    }

    /// 16 hexadecimal digits.
    pub fn to_hex(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// Ids of an operation's own span, and of its trace should the call that created it be unknown.
pub fn operation(seed: u64, id: &str) -> (TraceId, SpanId) {
    let trace = xxh3_128(&[id.as_bytes(), &seed.to_le_bytes()].concat());
    (TraceId(trace.max(1).to_be_bytes()), SpanId(xxh3_64_with_seed(id.as_bytes(), seed).max(1).to_be_bytes()))
}

/// As an attribute: 32 hexadecimal digits.
impl From<ExchangeId> for Value {
    fn from(id: ExchangeId) -> Self {
        Value::Id(id.0.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hosts_agree_off_loopback_and_differ_on_it() {
        let (c, s) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:8000".parse().unwrap());
        assert_eq!(ExchangeId::new(1, c, s, 7, 42), ExchangeId::new(2, c, s, 8, 42));
        assert_ne!(ExchangeId::new(1, c, s, 7, 42), ExchangeId::new(1, c, s, 7, 43));
        let (c, s) = ("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:8000".parse().unwrap());
        assert_ne!(ExchangeId::new(1, c, s, 7, 42), ExchangeId::new(2, c, s, 7, 42));
        assert_ne!(ExchangeId::new(1, c, s, 7, 42), ExchangeId::new(1, c, s, 8, 42));
    }

    #[test]
    fn it_is_told_with_all_digits() {
        let told = Value::from(ExchangeId(0x0123_4567_89ab_cdef));
        assert_eq!(told.text().as_deref(), Some("00000000000000000123456789abcdef"));
    }

    #[test]
    fn the_two_ends_have_different_ids() {
        let (c, s) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:8000".parse().unwrap());
        let x = ExchangeId::new(1, c, s, 7, 42);
        assert_ne!(x.span_id(1, Role::Client), x.span_id(1, Role::Server));
        assert_ne!(x.trace_id(1, Role::Client), x.trace_id(1, Role::Server));
    }
}
