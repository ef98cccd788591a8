//! Open files: what a descriptor stands for.

use ktrdr_ebpf_common::{file, maps::FileId};

use crate::{
    constants::*,
    error::Error,
    memory::{Object, Probed},
};

/// `S_IFMT` of `inode->i_mode`, and its values.
const FILE_TYPE: u16 = 0o170_000;
const FIFO: u16 = 0o010_000;
const CHARACTER: u16 = 0o020_000;
const REGULAR: u16 = 0o100_000;
const SOCKET: u16 = 0o140_000;
/// Major number of `/dev/null`, `/dev/zero` and their like (Documentation/admin-guide/devices.txt).
const MEMORY_DEVICES: u32 = 1;
const MINOR_BITS: u32 = 20;

/// A `struct file`.
#[derive(Clone, Copy)]
pub struct File(pub Probed);

impl File {
    /// Its address: the same for all descriptors that are duplicates of each other.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0.address() as u64
    }

    /// Its inode.
    #[inline(always)]
    pub fn inode(self) -> Result<Inode, Error> {
        self.0.follow(&FILE_INODE).map(Inode)
    }
}

/// A `struct inode`.
#[derive(Clone, Copy)]
pub struct Inode(Probed);

impl Inode {
    #[inline(always)]
    fn file_type(self) -> Result<u16, Error> {
        Ok(self.0.load::<u16>(&INODE_MODE)? & FILE_TYPE)
    }

    /// By its inode: only sockfs has open files of type socket. Comparing `f_op` with the address of
    /// `socket_file_ops` would save a read, but finding that address takes a fifth of a second, and many kernels do
    /// not list data symbols.
    #[inline(always)]
    pub fn is_socket(self) -> Result<bool, Error> {
        Ok(self.file_type()? == SOCKET)
    }

    /// One of [`file`], 0 for what keeps nothing or is no such file.
    #[inline(always)]
    pub fn kind(self) -> Result<u8, Error> {
        Ok(match self.file_type()? {
            FIFO => file::PIPE,
            REGULAR => file::REGULAR,
            CHARACTER if self.0.load::<u32>(&INODE_RDEV)? >> MINOR_BITS != MEMORY_DEVICES => file::TERMINAL,
            _ => 0,
        })
    }

    /// Its identity.
    #[inline(always)]
    pub fn id(self) -> Result<FileId, Error> {
        Ok(FileId {
            inode: self.0.load(&INODE_INO)?,
            device: self.0.follow(&INODE_SB)?.load(&SB_DEV)?,
            generation: self.0.load(&INODE_GENERATION)?,
        })
    }

    /// The very same inode.
    #[inline(always)]
    pub fn is(self, other: Inode) -> bool {
        self.0.address() == other.0.address()
    }
}
