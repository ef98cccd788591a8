//! Protobuf's wire format, as far as OTLP needs it.
//!
//! A message describes its fields once, to a [`Sink`]; one sink measures, the other writes. Protobuf puts a message's
//! length before it, so that what is written has been measured before.
//!
//! Source: protobuf documentation, "Encoding". Fields that have their default value are left out, as proto3 does.

/// Takes fields.
pub trait Sink {
    /// Raw bytes.
    fn bytes(&mut self, bytes: &[u8]);
    /// A number in base 128.
    fn varint(&mut self, n: u64);

    /// A field's number and wire type. All of OTLP's numbers fit two bytes.
    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }
    /// A length-delimited field, even if it is empty.
    fn delimited(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, LEN);
        self.varint(bytes.len() as u64);
        self.bytes(bytes);
    }
    /// Text or bytes, left out if empty.
    fn text(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.delimited(field, bytes);
        }
    }
    /// An enumeration's number, left out if 0.
    fn number(&mut self, field: u32, n: u64) {
        if n != 0 {
            self.key(field, VARINT);
            self.varint(n);
        }
    }
    /// `fixed64`, left out if 0.
    fn fixed64(&mut self, field: u32, n: u64) {
        if n != 0 {
            self.key(field, I64);
            self.bytes(&n.to_le_bytes());
        }
    }
    /// `fixed32`, left out if 0.
    fn fixed32(&mut self, field: u32, n: u32) {
        if n != 0 {
            self.key(field, I32);
            self.bytes(&n.to_le_bytes());
        }
    }
    /// A message within this one, even if it is empty.
    fn message(&mut self, field: u32, message: &impl Message)
    where
        Self: Sized,
    {
        self.message_of(field, measure(message), message);
    }
    /// A message whose length is known already.
    fn message_of(&mut self, field: u32, len: usize, message: &impl Message)
    where
        Self: Sized,
    {
        self.key(field, LEN);
        self.varint(len as u64);
        message.put(self);
    }
}

/// Something with fields.
pub trait Message {
    /// Gives its fields to a sink, in the order of their numbers.
    fn put<S: Sink>(&self, sink: &mut S);
}

/// Wire type of integers.
pub const VARINT: u32 = 0;
/// Wire type of eight bytes.
pub const I64: u32 = 1;
/// Wire type of anything with a length.
pub const LEN: u32 = 2;
/// Wire type of four bytes.
pub const I32: u32 = 5;

/// How long a message is.
pub fn measure(message: &impl Message) -> usize {
    let mut length = Length(0);
    message.put(&mut length);
    length.0
}

/// Measures.
struct Length(usize);

impl Sink for Length {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
    fn varint(&mut self, n: u64) {
        // Seven bits a byte; ⌈bits / 7⌉ without a division, right for 1..=64 bits (as prost computes it).
        self.0 += ((64 - (n | 1).leading_zeros()) * 9 + 64) as usize / 64;
    }
    fn message_of(&mut self, field: u32, len: usize, _: &impl Message) {
        self.key(field, LEN);
        self.varint(len as u64);
        self.0 += len;
    }
}

impl Sink for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.push(n as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Number(u64);
    impl Message for Number {
        fn put<S: Sink>(&self, sink: &mut S) {
            sink.varint(self.0);
        }
    }

    #[test]
    fn numbers_are_measured_as_they_are_written() {
        for bit in 0..64 {
            for n in [1 << bit, (1_u64 << bit) - 1, u64::MAX >> bit] {
                let mut bytes = Vec::new();
                Number(n).put(&mut bytes);
                assert_eq!(measure(&Number(n)), bytes.len(), "{n}");
                assert_eq!(prost::decode_length_delimiter(&bytes[..]).ok(), usize::try_from(n).ok());
            }
        }
    }
}
