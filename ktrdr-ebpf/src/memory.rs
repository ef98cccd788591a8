//! Kernel objects, read either through pointers whose type the verifier knows or by probing.

use aya_ebpf::helpers::bpf_probe_read_kernel;

use crate::{constants::Constant, error::Error};

/// A kernel object whose fields are read at offsets from BTF.
pub trait Object: Copy {
    /// The verifier knows the pointer's type, so helpers that want a typed pointer take it.
    const TYPED: bool;
    /// Address of the object.
    fn address(self) -> *const u8;
    /// Its address as a plain number, which a typed pointer is not: the verifier refuses to calculate with one.
    fn number(self) -> Result<u64, Error>;
    /// The object at an address.
    fn at(address: *const u8) -> Self;
    /// Reads the field at an offset in bytes.
    fn load_at<T: Copy>(self, offset: u32) -> Result<T, Error>;

    /// Reads a field.
    #[inline(always)]
    fn load<T: Copy>(self, offset: &'static Constant<u32>) -> Result<T, Error> {
        self.load_at(offset.get())
    }

    /// Follows a pointer field.
    #[inline(always)]
    fn follow(self, offset: &'static Constant<u32>) -> Result<Self, Error> {
        self.load::<*const u8>(offset).map(Self::at)
    }
}

/// A pointer the verifier follows by type (an argument of a BTF tracepoint and what it leads to): plain loads, which
/// the kernel guards against faults (they read 0).
#[derive(Clone, Copy)]
pub struct Direct(*const u8);

impl Object for Direct {
    const TYPED: bool = true;

    #[inline(always)]
    fn address(self) -> *const u8 {
        self.0
    }

    #[inline(always)]
    fn number(self) -> Result<u64, Error> {
        // What a helper reads is a number to the verifier.
        Probed(core::ptr::from_ref(&self.0).cast()).load_at(0)
    }

    #[inline(always)]
    fn at(address: *const u8) -> Self {
        Direct(address)
    }

    #[inline(always)]
    fn load_at<T: Copy>(self, offset: u32) -> Result<T, Error> {
        // SAFETY: the verifier refuses the program unless the field exists at this offset with this size; the JIT
        // turns a fault into a zero.
        Ok(unsafe { core::ptr::read_volatile(self.0.add(offset as usize).cast::<T>()) })
    }
}

/// Any kernel address: read by helper call.
#[derive(Clone, Copy)]
pub struct Probed(*const u8);

impl Object for Probed {
    const TYPED: bool = false;

    #[inline(always)]
    fn address(self) -> *const u8 {
        self.0
    }

    #[inline(always)]
    fn number(self) -> Result<u64, Error> {
        Ok(self.0 as u64)
    }

    #[inline(always)]
    fn at(address: *const u8) -> Self {
        Probed(address)
    }

    #[inline(always)]
    fn load_at<T: Copy>(self, offset: u32) -> Result<T, Error> {
        // SAFETY: the helper checks the address and reports a fault.
        unsafe { bpf_probe_read_kernel(self.0.wrapping_add(offset as usize).cast::<T>()) }
            .map_err(|_| Error::KernelRead)
    }
}
