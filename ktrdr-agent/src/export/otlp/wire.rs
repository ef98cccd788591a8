//! Protobuf's wire format, as far as OTLP needs it.
//!
//! Protobuf puts a message's length before it. So a request is written from its end to its beginning: what a message holds
//! is there when its length is needed, and nothing has to be measured before it is written.
//!
//! Source: protobuf documentation, "Encoding". Fields that have their default value are left out, as proto3 does.

use bytes::Bytes;

/// Something with fields.
pub trait Message {
    /// Writes its fields, the last one first.
    fn put(&self, out: &mut Backwards);
}

/// Wire type of integers.
pub const VARINT: u32 = 0;
/// Wire type of eight bytes.
pub const I64: u32 = 1;
/// Wire type of anything with a length.
pub const LEN: u32 = 2;
/// Wire type of four bytes.
pub const I32: u32 = 5;

/// Takes fields, each one before those that it had before.
pub struct Backwards {
    room: Vec<u8>,
    /// Where in it begins what has been written.
    at: usize,
}

impl Backwards {
    /// Nothing yet, with room for so many bytes; there will be more where that is too little.
    pub fn with_room(bytes: usize) -> Self {
        Self { room: vec![0; bytes], at: bytes }
    }

    /// What was written.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.room).slice(self.at..)
    }

    fn len(&self) -> usize {
        self.room.len() - self.at
    }

    /// Raw bytes.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.at < bytes.len() {
            self.grow(bytes.len());
        }
        let end = self.at;
        self.at -= bytes.len();
        self.room[self.at..end].copy_from_slice(bytes);
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let written = &self.room[self.at..];
        let size = 2 * (written.len() + more);
        let mut room = vec![0; size];
        self.at = size - written.len();
        room[self.at..].copy_from_slice(written);
        self.room = room;
    }

    /// A number in base 128.
    #[inline]
    pub fn varint(&mut self, n: u64) {
        if n < 0x80 {
            self.bytes(&[n as u8]);
        } else {
            self.long(n);
        }
    }

    fn long(&mut self, mut n: u64) {
        // Seven bits a byte.
        let mut digits = [0; 10];
        let mut len = 0;
        while n >= 0x80 {
            digits[len] = n as u8 | 0x80;
            n >>= 7;
            len += 1;
        }
        digits[len] = n as u8;
        self.bytes(&digits[..=len]);
    }

    /// A field's number and wire type. All of OTLP's numbers fit two bytes.
    #[inline]
    pub fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }
    /// A length-delimited field, even if it is empty.
    #[inline]
    pub fn delimited(&mut self, field: u32, bytes: &[u8]) {
        self.bytes(bytes);
        self.varint(bytes.len() as u64);
        self.key(field, LEN);
    }
    /// Text or bytes, left out if empty.
    #[inline]
    pub fn text(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.delimited(field, bytes);
        }
    }
    /// An enumeration's number, left out if 0.
    pub fn number(&mut self, field: u32, n: u64) {
        if n != 0 {
            self.varint(n);
            self.key(field, VARINT);
        }
    }
    /// `fixed64`, left out if 0.
    pub fn fixed64(&mut self, field: u32, n: u64) {
        if n != 0 {
            self.bytes(&n.to_le_bytes());
            self.key(field, I64);
        }
    }
    /// `fixed32`, left out if 0.
    pub fn fixed32(&mut self, field: u32, n: u32) {
        if n != 0 {
            self.bytes(&n.to_le_bytes());
            self.key(field, I32);
        }
    }
    /// A message within this one, even if it is empty.
    #[inline]
    pub fn message(&mut self, field: u32, message: &impl Message) {
        let behind = self.len();
        message.put(self);
        self.varint((self.len() - behind) as u64);
        self.key(field, LEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_protobuf() {
        for bit in 0..64 {
            for n in [1 << bit, (1_u64 << bit) - 1, u64::MAX >> bit] {
                let mut out = Backwards::with_room(0);
                out.varint(n);
                let mut want = Vec::new();
                prost::encoding::encode_varint(n, &mut want);
                assert_eq!(out.finish(), want, "{n}");
            }
        }
    }

    #[test]
    fn room_is_made_where_it_is_needed() {
        let mut out = Backwards::with_room(3);
        (0..100_u8).for_each(|n| out.bytes(&[n, 1]));
        let want: Vec<u8> = (0..100).rev().flat_map(|n| [n, 1]).collect();
        assert_eq!(out.finish(), want);
    }
}
