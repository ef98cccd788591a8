//! Which files that a service writes are logs.

use hashlink::LruCache;
use ktrdr_ebpf_common::{WriteBody, limits::MAX_FILES, maps::FileId};

use super::{pattern, procfs::ProcFs};
use crate::event::shell::FileMeta;

/// The files looked at so far, and what makes a log.
pub(super) struct Files {
    patterns: Vec<String>,
    /// Told already: more of their writes may be under way while the kernel learns of it.
    told: LruCache<FileId, ()>,
}

impl Files {
    pub fn new(patterns: &[String]) -> Self {
        Self { patterns: patterns.to_vec(), told: LruCache::new(MAX_FILES as usize) }
    }

    /// What the file is, unless that was told before. One that is closed by now is no log: its next write, if there
    /// is one, is by another descriptor of the same file, and is not asked about again until it is forgotten.
    pub fn look(&mut self, proc: &ProcFs, pid: u32, write: &WriteBody) -> Option<FileMeta> {
        if self.told.insert(write.id, ()).is_some() {
            return None;
        }
        let path = proc.link(pid, &format!("fd/{}", write.fd)).unwrap_or_default();
        let FileId { inode, device, generation } = write.id;
        Some(FileMeta { inode, device, generation, log: self.is_log(&path), path })
    }

    fn is_log(&self, path: &str) -> bool {
        // Anonymous files (`/memfd:…`, `anon_inode:…`) have no path; a deleted one has this ending.
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        path.starts_with('/') && self.patterns.iter().any(|p| pattern::path(p, path))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeProc;
    use super::*;

    fn write(fd: u32, inode: u64) -> WriteBody {
        let id = FileId { inode, device: 1, generation: 0 };
        let reserved = [0; 7];
        WriteBody { py_context: 0, id, lost: 0, fd, len: 1, offset: 0, captured: 1, file: 3, reserved }
    }

    #[test]
    fn a_file_is_told_once_and_by_its_path() {
        let fake = FakeProc::new();
        fake.process(7, 1, &["api"])
            .link("fd/5", "/srv/app/logs/ktrdr.log")
            .link("fd/6", "/srv/app/data.parquet")
            .link("fd/8", "anon_inode:[eventfd].log")
            .link("fd/9", "/srv/app/old.log (deleted)");
        let mut files = Files::new(&["*.log".to_owned()]);
        let proc = fake.proc();
        let mut look = |fd, inode| files.look(&proc, 7, &write(fd, inode)).map(|f| (f.path, f.log));
        assert_eq!(look(5, 1), Some(("/srv/app/logs/ktrdr.log".into(), true)));
        assert_eq!(look(5, 1), None);
        assert_eq!(look(6, 2), Some(("/srv/app/data.parquet".into(), false)));
        assert_eq!(look(8, 3).map(|f| f.1), Some(false));
        assert_eq!(look(9, 4).map(|f| f.1), Some(true));
        assert_eq!(look(77, 5), Some((String::new(), false)), "closed meanwhile");
    }
}
