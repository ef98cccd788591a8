//! Recorded trace files: a 16-byte preamble, then the records as they came.

use std::io::{self, Read, Write};

use ktrdr_ebpf_common::{ABI_VERSION, EventHeader};
use zerocopy::FromBytes;

/// First bytes of a recording.
pub const MAGIC: &[u8; 8] = b"KTRDRREC";

/// Longest record that is believed: the largest kernel record is under 17 KiB, shell records hold a command line.
const MAX_RECORD: usize = 1 << 20;

/// Why a trace file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The first bytes are not a trace file's.
    #[error("not a ktrdr-agent recording (write one with `ktrdr-agent record --out F`)")]
    NotARecording,
    /// There is nothing.
    #[error("empty: it was ended before anything was written")]
    Empty,
    /// Another record layout.
    #[error("recorded with record layout {found}, this agent reads {ABI_VERSION}")]
    Version {
        /// Layout version found.
        found: u16,
    },
    /// A record's length is out of bounds.
    #[error("damaged at byte {offset}: a record claims {len} bytes")]
    Damaged {
        /// Byte offset of the record in the (uncompressed) file.
        offset: u64,
        /// Length it claims.
        len: u32,
    },
    /// The file ends inside a record.
    #[error("cut off at byte {offset}, inside a record")]
    Truncated {
        /// Byte offset of the record in the (uncompressed) file.
        offset: u64,
    },
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes records.
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Starts a recording.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut preamble = [0; 16];
        preamble[..8].copy_from_slice(MAGIC);
        preamble[8..10].copy_from_slice(&ABI_VERSION.to_le_bytes());
        out.write_all(&preamble)?;
        Ok(Self { out })
    }

    /// Appends one record.
    pub fn record(&mut self, record: &[u8]) -> io::Result<()> {
        self.out.write_all(record)
    }

    /// Writes what is still in memory.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Flushes and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads records.
pub struct Reader<R: Read> {
    input: R,
    record: Vec<u8>,
    offset: u64,
}

impl<R: Read> Reader<R> {
    /// Opens a recording.
    pub fn new(mut input: R) -> Result<Self, FileError> {
        let mut preamble = [0; 16];
        if read_full(&mut input, &mut preamble)? == 0 {
            return Err(FileError::Empty);
        }
        if &preamble[..8] != MAGIC {
            return Err(FileError::NotARecording);
        }
        let found = u16::from_le_bytes([preamble[8], preamble[9]]);
        if found != ABI_VERSION {
            return Err(FileError::Version { found });
        }
        Ok(Self { input, record: Vec::new(), offset: 16 })
    }

    /// The next record; `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>, FileError> {
        const HEADER: usize = size_of::<EventHeader>();
        self.record.resize(HEADER, 0);
        match read_full(&mut self.input, &mut self.record)? {
            0 => return Ok(None),
            HEADER => {}
            _ => return Err(FileError::Truncated { offset: self.offset }),
        }
        let len = EventHeader::read_from_bytes(&self.record).map(|h| h.length()).unwrap_or(0);
        let size = len as usize;
        if !(HEADER..=MAX_RECORD).contains(&size) {
            return Err(FileError::Damaged { offset: self.offset, len });
        }
        self.record.resize(size, 0);
        if read_full(&mut self.input, &mut self.record[HEADER..])? != size - HEADER {
            return Err(FileError::Truncated { offset: self.offset });
        }
        self.offset += u64::from(len);
        Ok(Some(&self.record))
    }
}

/// Reads until the buffer is full or the input ends; returns the bytes read.
fn read_full(input: &mut impl Read, mut buf: &mut [u8]) -> io::Result<usize> {
    let mut total = 0;
    while !buf.is_empty() {
        match input.read(buf) {
            Ok(0) => break,
            Ok(n) => {
                total += n;
                buf = &mut buf[n..];
            }
            // A compressed one that was not ended.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::shell::tick;

    #[test]
    fn records_survive_a_round_trip() {
        let mut w = Writer::new(Vec::new()).unwrap();
        w.record(&tick(1)).unwrap();
        w.record(&tick(2)).unwrap();
        let bytes = w.finish().unwrap();
        let mut r = Reader::new(bytes.as_slice()).unwrap();
        assert_eq!(r.next_record().unwrap(), Some(tick(1).as_slice()));
        assert_eq!(r.next_record().unwrap(), Some(tick(2).as_slice()));
        assert_eq!(r.next_record().unwrap(), None);
    }

    #[test]
    fn damage_is_an_error_that_says_where() {
        assert!(matches!(Reader::new(&b"GIF89a"[..]), Err(FileError::NotARecording)));
        assert!(matches!(Reader::new(&b""[..]), Err(FileError::Empty)));
        let mut w = Writer::new(Vec::new()).unwrap();
        w.record(&tick(1)).unwrap();
        let mut bytes = w.finish().unwrap();
        bytes.pop();
        assert!(matches!(
            Reader::new(bytes.as_slice()).unwrap().next_record(),
            Err(FileError::Truncated { offset: 16 })
        ));
        bytes.push(0);
        bytes[16 + 16] = 3;
        assert!(matches!(
            Reader::new(bytes.as_slice()).unwrap().next_record(),
            Err(FileError::Damaged { offset: 16, len: 3 })
        ));
    }
}
