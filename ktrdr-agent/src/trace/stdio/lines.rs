//! One direction of a conversation on pipes: transfers in, lines out. A message is a line (MCP's stdio transport); bytes
//! that were not captured cut the line they belong to, and the next line is looked for behind them.

use crate::event::Write;

/// Bytes of a line that are kept. What names a message and its parameters stands first, results may be of any size.
pub const MAX_LINE: usize = 64 * 1024;

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its bytes, without its end; not all of them if it is `cut`.
    pub bytes: &'a [u8],
    /// Bytes of it that are missing or lie beyond [`MAX_LINE`].
    pub cut: bool,
}

/// State of one direction.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    /// Bytes of the line under way were left out.
    cut: bool,
    /// Bytes are missing: where a line begins is not known.
    adrift: bool,
    /// End of the last part in its transfer, and the transfer's length.
    last: (u32, u32),
    lost: u64,
}

impl Lines {
    /// Takes a transfer, or a part of one.
    pub fn take(&mut self, w: &Write<'_>, each: &mut dyn FnMut(Line<'_>)) {
        let (end, len) = self.last;
        let begins = w.offset == 0;
        let missing = if begins { end < len } else { w.offset != end };
        if missing || w.lost != self.lost {
            self.gap(each);
        }
        self.lost = w.lost;
        let captured = u32::try_from(w.payload.len()).unwrap_or(u32::MAX);
        self.last = (w.offset.saturating_add(captured), w.len);
        let mut rest = w.payload;
        if self.adrift {
            if begins && matches!(rest.first(), Some(b'{' | b'[')) {
                // A message begins a transfer; inside a line that would be a wonder.
            } else if let Some(at) = memchr::memchr(b'\n', rest) {
                rest = &rest[at + 1..];
            } else {
                return;
            }
            self.adrift = false;
        }
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let (line, behind) = rest.split_at(at);
            if self.held.is_empty() && !self.cut {
                emit(&line[..line.len().min(MAX_LINE)], line.len() > MAX_LINE, each);
            } else {
                self.hold(line);
                self.flush(each);
            }
            rest = &behind[1..];
        }
        self.hold(rest);
    }

    /// Bytes are missing here.
    fn gap(&mut self, each: &mut dyn FnMut(Line<'_>)) {
        self.cut = true;
        self.flush(each);
        self.adrift = true;
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = MAX_LINE - self.held.len();
        self.cut |= bytes.len() > room;
        self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn flush(&mut self, each: &mut dyn FnMut(Line<'_>)) {
        let cut = std::mem::take(&mut self.cut);
        emit(&self.held, cut, each);
        self.held.clear();
        // One long line in a while needs no room for ever.
        self.held.shrink_to(MAX_LINE / 16);
    }
}

fn emit(line: &[u8], cut: bool, each: &mut dyn FnMut(Line<'_>)) {
    if !line.trim_ascii().is_empty() {
        each(Line { bytes: line.trim_ascii(), cut });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{FileId, FileKind};

    pub(super) fn part(payload: &[u8], offset: u32, len: u32, lost: u64) -> Write<'_> {
        Write {
            py_context: 0,
            id: FileId::default(),
            kind: FileKind::Pipe,
            fd: 0,
            len,
            offset,
            payload,
            lost,
        }
    }

    fn whole(payload: &[u8]) -> Write<'_> {
        part(payload, 0, u32::try_from(payload.len()).unwrap(), 0)
    }

    fn lines(parts: &[Write<'_>]) -> Vec<(String, bool)> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for p in parts {
            lines.take(p, &mut |l| out.push((String::from_utf8_lossy(l.bytes).into_owned(), l.cut)));
            assert!(lines.held.len() <= MAX_LINE);
        }
        out
    }

    #[test]
    fn lines_cross_transfers() {
        let got = lines(&[whole(b"{\"a\""), whole(b":1}\r\n{2}\n\n{3"), whole(b"}\n{4}")]);
        assert_eq!(got, ["{\"a\":1}", "{2}", "{3}"].map(|l| (l.to_owned(), false)));
    }

    #[test]
    fn missing_bytes_cut_one_line_and_no_more() {
        // The end of a transfer was not captured.
        let got = lines(&[part(b"{1}\n{2", 0, 100, 0), whole(b"x}\n{3}\n")]);
        assert_eq!(got, [("{1}".into(), false), ("{2".into(), true), ("{3}".into(), false)]);
        // A part is missing, then a transfer.
        let got = lines(&[part(b"{1", 0, 9, 0), part(b"2}\n{3}\n", 5, 12, 0), part(b"{4}\n", 0, 4, 7)]);
        assert_eq!(got, [("{1".into(), true), ("{3}".into(), false), ("{4}".into(), false)]);
    }

    #[test]
    fn long_lines_keep_their_beginning() {
        let long = vec![b'a'; 10 << 20];
        let mut parts: Vec<Write<'_>> = long.chunks(16 * 1024).map(whole).collect();
        parts.push(whole(b"\n{2}\n"));
        let got = lines(&parts);
        assert_eq!((got[0].0.len(), got[0].1), (MAX_LINE, true));
        assert_eq!(got[1], ("{2}".into(), false));
        let joined = [long.as_slice(), b"\n{2}\n"].concat();
        assert_eq!(lines(&[whole(&joined)]), got);
    }

    proptest::proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            text in "[{}a-c\n]{0,60}",
            cuts in proptest::collection::vec(0usize..60, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<Write<'_>> =
                cuts.windows(2).map(|w| whole(&text.as_bytes()[w[0]..w[1]])).collect();
            proptest::prop_assert_eq!(lines(&parts), lines(&[whole(text.as_bytes())]));
        }

        #[test]
        fn a_hole_makes_no_line_that_was_not_there(
            list in proptest::collection::vec("\\{[a-c]{1,8}\\}", 1..12),
            hole in 0usize..100,
            len in 1usize..30,
        ) {
            let text = list.iter().map(|l| format!("{l}\n")).collect::<String>();
            let hole = hole.min(text.len() - 1);
            let end = (hole + len).min(text.len());
            let total = u32::try_from(text.len()).unwrap();
            let behind = u32::try_from(end).unwrap();
            let got = lines(&[
                part(&text.as_bytes()[..hole], 0, total, 0),
                part(&text.as_bytes()[end..], behind, total, 0),
            ]);
            for (line, cut) in got {
                let known = list.iter().any(|l| if cut { l.starts_with(&line) } else { *l == line });
                proptest::prop_assert!(known, "{} is new", line);
            }
        }
    }
}
