//! Places of fields in the running kernel's structures, from its BTF
//! (<https://docs.kernel.org/bpf/btf.html>, `include/uapi/linux/btf.h`).
//!
//! Read in place: some fifteen of 160,000 types are wanted, and parsing them all into values takes 100 MB for a moment.

use std::{collections::HashMap, fs};

use super::KernelError;

/// Where kernels publish their BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The running kernel's types.
pub struct KernelTypes {
    data: Vec<u8>,
    /// Position in `data` of each type; type 0 is `void` and has none.
    types: Vec<usize>,
    /// Position of the string section.
    strings: usize,
    /// Structs with members, typedefs and functions: kind and name to type.
    named: HashMap<(Kind, u32), u32>,
}

/// `BTF_KIND_*` and what each puts behind its 12-byte description.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind(u32);

impl Kind {
    const STRUCT: Kind = Kind(4);
    const UNION: Kind = Kind(5);
    const TYPEDEF: Kind = Kind(8);
    const VOLATILE: Kind = Kind(9);
    const CONST: Kind = Kind(10);
    const RESTRICT: Kind = Kind(11);
    const FUNC: Kind = Kind(12);
    const FUNC_PROTO: Kind = Kind(13);
    const TYPE_TAG: Kind = Kind(18);
    const PTR: Kind = Kind(2);

    /// Bytes behind the description; `None` for a kind newer than this code.
    fn extra(self, vlen: usize) -> Option<usize> {
        Some(match self.0 {
            // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
            2 | 7..=12 | 16 | 18 => 0,
            // integer, variable, declaration tag
            1 | 14 | 17 => 4,
            3 => 12,
            // struct, union, data section, 64-bit enumeration
            4 | 5 | 15 | 19 => vlen * 12,
            // enumeration, function prototype
            6 | 13 => vlen * 8,
            _ => return None,
        })
    }
}

/// `struct btf_type`.
#[derive(Clone, Copy)]
struct Type {
    position: usize,
    name: u32,
    kind: Kind,
    vlen: usize,
    kind_flag: bool,
    /// Size, or the type referred to.
    size_or_type: u32,
}

const MAGIC: u16 = 0xeb9f;
const DESCRIPTION: usize = 12;
const MEMBER: usize = 12;
/// Typedefs and qualifiers are followed so far at most; real chains have a handful of links.
const MAX_CHAIN: usize = 32;

impl KernelTypes {
    /// Reads [`VMLINUX`].
    pub fn load() -> Result<Self, KernelError> {
        let data = fs::read(VMLINUX).map_err(|error| KernelError::Btf(error.to_string()))?;
        Self::parse(data).ok_or_else(|| KernelError::Btf("it is damaged or of an unknown version".into()))
    }

    fn parse(data: Vec<u8>) -> Option<Self> {
        let word = |at| read_u32(&data, at);
        if u16::from_ne_bytes(data.get(..2)?.try_into().ok()?) != MAGIC || data.get(2) != Some(&1) {
            return None;
        }
        let [header, type_at, type_len, string_at] =
            [word(4)?, word(8)?, word(12)?, word(16)?].map(|v| v as usize);
        let mut position = header.checked_add(type_at)?;
        let end = position.checked_add(type_len)?;
        let mut types = vec![0];
        let mut named = HashMap::new();
        while position < end {
            let t = read_type(&data, position)?;
            let wanted = match t.kind {
                // A forward declaration may have the same name.
                Kind::STRUCT => t.vlen != 0,
                Kind::TYPEDEF | Kind::FUNC => true,
                _ => false,
            };
            if wanted && t.name != 0 {
                named.entry((t.kind, t.name)).or_insert(types.len() as u32);
            }
            types.push(position);
            position = position.checked_add(DESCRIPTION + t.kind.extra(t.vlen)?)?;
        }
        let strings = header.checked_add(string_at)?;
        (strings < data.len()).then_some(KernelTypes { data, types, strings, named })
    }

    /// Offset in bytes of a field, e.g. `("sock", "__sk_common.skc_family")`. Anonymous members are looked into, so
    /// a field that moved into an anonymous struct or union is still found. `None`: no such field, or a bit field.
    pub fn offset(&self, strukt: &str, path: &str) -> Option<u32> {
        let mut current = Some(self.find(Kind::STRUCT, strukt)?);
        let mut offset = 0;
        for name in path.split('.') {
            let (at, inner) = self.member(current?, name)?;
            offset += at;
            // The last part need not be a struct.
            current = inner;
        }
        Some(offset)
    }

    /// Number of arguments of a tracepoint, without the leading context pointer. `None`: no such tracepoint.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let typedef = self.find(Kind::TYPEDEF, &format!("btf_trace_{name}"))?;
        let pointer = self.type_of(typedef.size_or_type).filter(|t| t.kind == Kind::PTR)?;
        let prototype = self.type_of(pointer.size_or_type).filter(|t| t.kind == Kind::FUNC_PROTO)?;
        prototype.vlen.checked_sub(1)
    }

    /// Whether the kernel has a tracepoint of this name.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.tracepoint_arguments(name).is_some()
    }

    /// Whether the kernel has a function of this name.
    pub fn has_function(&self, name: &str) -> bool {
        self.find(Kind::FUNC, name).is_some()
    }

    fn find(&self, kind: Kind, name: &str) -> Option<Type> {
        // BTF keeps each string once, so a name is its place.
        let needle = [b"\0", name.as_bytes(), b"\0"].concat();
        let place = memchr::memmem::find(self.data.get(self.strings..)?, &needle)? as u32 + 1;
        self.type_of(*self.named.get(&(kind, place))?)
    }

    fn type_of(&self, id: u32) -> Option<Type> {
        match self.types.get(id as usize) {
            Some(0) | None => None,
            Some(&position) => read_type(&self.data, position),
        }
    }

    /// Offset of a member and, if it is a struct or union, what is in it.
    fn member(&self, strukt: Type, wanted: &str) -> Option<(u32, Option<Type>)> {
        for index in 0..strukt.vlen {
            let at = strukt.position + DESCRIPTION + index * MEMBER;
            let (name, id, place) =
                (read_u32(&self.data, at)?, read_u32(&self.data, at + 4)?, read_u32(&self.data, at + 8)?);
            // With the flag, the upper 8 bits are the width of a bit field, 0 for all others.
            let (bits, place) = if strukt.kind_flag { (place >> 24, place & 0xff_ffff) } else { (0, place) };
            if self.is_name(name, wanted) {
                return (bits == 0 && place % 8 == 0).then(|| (place / 8, self.inner(id)));
            }
            if self.is_name(name, "")
                && let Some(inner) = self.inner(id)
                && let Some((below, found)) = self.member(inner, wanted)
            {
                return Some((place / 8 + below, found));
            }
        }
        None
    }

    /// The struct or union a type is, through typedefs and qualifiers; not through pointers.
    fn inner(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_CHAIN {
            let t = self.type_of(id)?;
            match t.kind {
                Kind::STRUCT | Kind::UNION => return Some(t),
                Kind::TYPEDEF | Kind::VOLATILE | Kind::CONST | Kind::RESTRICT | Kind::TYPE_TAG => {
                    id = t.size_or_type
                }
                _ => return None,
            }
        }
        None
    }

    fn is_name(&self, place: u32, name: &str) -> bool {
        let rest = self.data.get(self.strings + place as usize..).unwrap_or_default();
        rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn read_type(data: &[u8], position: usize) -> Option<Type> {
    let info = read_u32(data, position + 4)?;
    Some(Type {
        position,
        name: read_u32(data, position)?,
        kind: Kind(info >> 24 & 0x1f),
        vlen: (info & 0xffff) as usize,
        kind_flag: info >> 31 != 0,
        size_or_type: read_u32(data, position + 8)?,
    })
}

fn read_u32(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> KernelTypes {
        KernelTypes::load().unwrap()
    }

    #[test]
    fn every_constant_resolves_on_this_kernel() {
        let types = types();
        macro_rules! check {
            ($($name:ident = $strukt:literal, $path:literal, $need:ident;)+) => {
                $(assert!(types.offset($strukt, $path).is_some(), "{}.{}", $strukt, $path);)+
            };
        }
        ktrdr_ebpf_common::for_each_offset!(check);
    }

    /// `sock_common` begins with the address pair in every kernel (`include/net/sock.h`: hashing depends on it).
    #[test]
    fn walks_anonymous_unions_and_nested_structs() {
        let types = types();
        assert_eq!(types.offset("sock", "__sk_common.skc_daddr"), Some(0));
        assert_eq!(types.offset("sock", "__sk_common.skc_rcv_saddr"), Some(4));
        assert_eq!(types.offset("sock", "__sk_common.skc_dport"), Some(12));
        assert_eq!(types.offset("sock", "__sk_common.skc_family"), Some(16));
        // `mm_struct` keeps its fields in an anonymous struct.
        assert!(types.offset("mm_struct", "arg_end") > types.offset("mm_struct", "arg_start"));
        assert!(types.offset("net", "ns.inum") > types.offset("net", "ns"));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let types = types();
        assert_eq!(types.offset("sock", "sk_no_such_field"), None);
        assert_eq!(types.offset("no_such_struct", "x"), None);
        assert_eq!(types.offset("sock", "sk_protocol.deeper"), None);
        // A bit field has no byte offset.
        assert_eq!(types.offset("sock", "__sk_common.skc_reuseport"), None);
        assert!(!types.has_tracepoint("no_such_tracepoint"));
        assert!(!types.has_function("no_such_function"));
    }

    #[test]
    fn damaged_data_is_an_error() {
        let good = fs::read(VMLINUX).unwrap();
        assert!(KernelTypes::parse(good.clone()).is_some());
        assert!(KernelTypes::parse(Vec::new()).is_none());
        assert!(KernelTypes::parse(good[..good.len() / 2].to_vec()).is_none());
        let mut other_magic = good.clone();
        other_magic[0] ^= 1;
        assert!(KernelTypes::parse(other_magic).is_none());
        // Garbage for types must end, in whatever way.
        let mut garbage = good;
        garbage[24..4096].fill(0xa5);
        let _ = KernelTypes::parse(garbage);
    }

    #[test]
    fn tracepoints_have_their_arguments() {
        let types = types();
        assert_eq!(types.tracepoint_arguments("inet_sock_set_state"), Some(3));
        assert_eq!(types.tracepoint_arguments("sys_exit"), Some(2));
    }
}
