//! A connection is recognised by its first bytes, and by nobody else.

use super::{Act, each, recordings};
use crate::protocol::{PROTOCOLS, Side, Sniff};

/// First bytes of other protocols, by the name that would speak them.
const FOREIGN: &[(&str, &[u8])] = &[
    ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x5c\x1f"),
    ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0"),
    ("ib", b"API\0\0\0\0\x09v157..178"),
    ("ib", b"\0\0\0\x1a178\x0020251113 12:00:00 UTC\0"),
    ("redis", b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"),
    ("redis", b"GET a\r\n"),
    ("redis", b"+OK\r\n"),
    ("postgres", b"\0\0\0\x08\x04\xd2\x16\x2f"),
    ("postgres", b"\0\0\0\x25\0\x03\0\0user\0ktrdr\0database\0ktrdr\0\0"),
    ("postgres", b"Q\0\0\0\x0dselect 1\0"),
    ("mysql", b"\x4a\0\0\0\x0a8.0.36\0"),
    ("ssh", b"SSH-2.0-OpenSSH_9.6\r\n"),
    ("memcached", b"get a\r\n"),
    ("smtp", b"220 mail.example ESMTP\r\n"),
];

#[test]
fn recordings_are_recognised_from_any_beginning() {
    each(|protocol, _, recording| {
        for side in [Side::Request, Side::Response] {
            // The first transfer; with those after it as long as there are fewer bytes than the engine keeps.
            let mut first: Vec<u8> = Vec::new();
            for act in &recording.acts {
                match act {
                    Act::Bytes(s, bytes) if *s == side && first.len() < 64 => first.extend(bytes),
                    _ => {}
                }
            }
            if first.is_empty() {
                continue;
            }
            // Empty lines may come before a message but do not identify one.
            let blank = first.iter().take_while(|b| b.is_ascii_whitespace()).count();
            let mut sure = false;
            for end in 1..=first.len() - blank {
                let found = protocol.sniff(&first[blank..blank + end]);
                let right = if sure { found == Sniff::Yes(side) } else { found != Sniff::No };
                assert!(right, "{}: {found:?} after {end} bytes", recording.name);
                sure |= found == Sniff::Yes(side);
            }
            assert!(sure, "{}: {side:?} is not recognised", recording.name);
        }
    });
}

#[test]
fn each_protocol_rejects_the_others() {
    for protocol in PROTOCOLS {
        for (name, bytes) in FOREIGN.iter().filter(|(name, _)| *name != protocol.name()) {
            for found in [protocol.sniff(bytes), protocol.opens(bytes)] {
                assert_eq!(found, Sniff::No, "{} takes {name} for its own", protocol.name());
            }
        }
        for other in PROTOCOLS.iter().filter(|other| other.name() != protocol.name()) {
            for recording in recordings(*other) {
                let first = recording.acts.iter().find_map(|act| match act {
                    Act::Bytes(_, bytes) => Some(bytes),
                    Act::End(_) => None,
                });
                let first = first.expect("a recording has bytes");
                for found in [protocol.sniff(first), protocol.opens(first)] {
                    assert_eq!(found, Sniff::No, "{} takes {} for its own", protocol.name(), recording.name);
                }
            }
        }
    }
}
