//! Which files are probed, and for whom.
//!
//! The kernel probes a file by its inode, for all processes that map it. Containers of one image each have a mount of their
//! own, and with it another device number in `maps`; below it is the same file, and a second probe there would run at
//! every copy of all of them. Device and inode numbers of containers that are gone are used again, for other files. So a file is
//! known by what no two have in common: [`FileId`].
//!
//! A probe holds on to the mount that its file was reached by, so it ends some time after its last process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::event::{MS, Ns};

/// After the last process of a file: a service that is started again, or one that ends and begins every few seconds, finds
/// its probe in place.
const KEPT_NS: Ns = 60_000 * MS;

/// A file, by whatever mount it is reached. Overlay file systems pass on what the file below says of itself: its number, and
/// when it was changed last, to the nanosecond, which no other file with this number can share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileId {
    /// The file at this path now.
    ///
    /// # Errors
    /// It is not there, or cannot be asked.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&path.metadata()?))
    }
}

impl From<&Metadata> for FileId {
    fn from(m: &Metadata) -> Self {
        Self {
            inode: m.ino(),
            size: m.size(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }
}

/// What the kernel side calls a probe that it attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub u64);

#[derive(Debug)]
struct Users {
    probe: ProbeId,
    processes: BTreeSet<u32>,
    /// Since when there are none.
    idle: Option<Ns>,
}

/// The files that are probed.
#[derive(Debug, Default)]
pub struct Probed(BTreeMap<FileId, Users>);

impl Probed {
    /// The process maps the file; `attach` probes it, if nobody did.
    ///
    /// # Errors
    /// Those of `attach`.
    pub fn uses<E>(
        &mut self,
        file: FileId,
        tgid: u32,
        attach: impl FnOnce() -> Result<ProbeId, E>,
    ) -> Result<(), E> {
        let users = match self.0.entry(file) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(Users { probe: attach()?, processes: BTreeSet::new(), idle: None })
            }
        };
        users.processes.insert(tgid);
        users.idle = None;
        Ok(())
    }

    /// The process ended, or runs another program.
    pub fn left(&mut self, tgid: u32, now: Ns) {
        for users in self.0.values_mut() {
            if users.processes.remove(&tgid) && users.processes.is_empty() {
                users.idle = Some(now);
            }
        }
    }

    /// The probes that nobody has needed for a while: they are no longer known here.
    pub fn unused(&mut self, now: Ns) -> Vec<ProbeId> {
        let over = |users: &Users| users.idle.is_some_and(|since| now.saturating_sub(since) >= KEPT_NS);
        let over: Vec<FileId> =
            self.0.iter().filter(|(_, users)| over(users)).map(|(file, _)| *file).collect();
        over.into_iter().filter_map(|file| self.0.remove(&file)).map(|users| users.probe).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(inode: u64) -> FileId {
        FileId { inode, size: 1, modified: (1, 2), changed: (3, 4) }
    }

    #[test]
    fn a_file_is_probed_once_and_until_its_last_process_is_gone_for_a_while() {
        let mut probed = Probed::default();
        let mut attached = 0;
        for tgid in [1, 2, 1] {
            let attach = || -> Result<ProbeId, ()> {
                attached += 1;
                Ok(ProbeId(7))
            };
            probed.uses(file(1), tgid, attach).unwrap();
        }
        assert_eq!(attached, 1);
        probed.left(1, 10);
        assert!(probed.unused(10 + 2 * KEPT_NS).is_empty(), "2 is there");
        probed.left(2, 20);
        assert!(probed.unused(20 + KEPT_NS - 1).is_empty());
        probed.uses(file(1), 3, || Err("probed already")).unwrap();
        assert!(probed.unused(20 + KEPT_NS).is_empty(), "3 came in time");
        probed.left(3, 30);
        assert_eq!(probed.unused(30 + KEPT_NS), [ProbeId(7)]);
        assert!(probed.unused(u64::MAX).is_empty());
        assert_eq!(probed.uses(file(1), 4, || Err("asked again")), Err("asked again"));
    }

    #[test]
    fn a_refused_probe_is_tried_again_for_the_next_process() {
        let mut probed = Probed::default();
        assert!(probed.uses(file(1), 1, || Err(())).is_err());
        assert!(probed.uses(file(1), 1, || Ok::<_, ()>(ProbeId(1))).is_ok());
    }

    #[test]
    fn the_same_number_is_another_file_once_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "a").unwrap();
        let before = FileId::of(&path).unwrap();
        std::fs::hard_link(&path, dir.path().join("g")).unwrap();
        assert_eq!(FileId::of(&path).unwrap(), FileId::of(&dir.path().join("g")).unwrap());
        std::fs::write(&path, "bc").unwrap();
        assert_ne!(FileId::of(&path).unwrap(), before);
        assert!(FileId::of(&dir.path().join("none")).is_err());
    }
}
