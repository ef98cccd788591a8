//! Places of fields in the running kernel's structures, from its BTF.

use btf_rs::{Btf, BtfType, Struct, Type};

use super::KernelError;

/// Where kernels publish their BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The running kernel's types.
pub struct KernelTypes(Btf);

impl KernelTypes {
    /// Reads [`VMLINUX`].
    pub fn load() -> Result<Self, KernelError> {
        Btf::from_file(VMLINUX).map(KernelTypes).map_err(|error| KernelError::Btf(error.to_string()))
    }

    /// Offset in bytes of a field, e.g. `("sock", "__sk_common.skc_family")`. Anonymous members are looked into, so
    /// a field that moved into an anonymous struct or union is still found. `None`: no such field, or a bit field.
    pub fn offset(&self, strukt: &str, path: &str) -> Option<u32> {
        let mut current = self.named_struct(strukt)?;
        let mut offset = 0;
        for name in path.split('.') {
            let (at, inner) = self.member(&current, name)?;
            offset += at;
            // The last part need not be a struct; an empty one ends the walk if it was not.
            current = inner;
        }
        Some(offset)
    }

    /// Number of arguments of a tracepoint, without the leading context pointer. `None`: no such tracepoint.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let typedefs = self.0.resolve_types_by_name(&format!("btf_trace_{name}")).ok()?;
        let typedef = typedefs.into_iter().find(|t| matches!(t, Type::Typedef(_)))?;
        let mut chain = self.0.chained_type_iter(typedef.as_btf_type()?);
        chain.find_map(|t| match t {
            Type::FuncProto(proto) => Some(proto.parameters.len().saturating_sub(1)),
            _ => None,
        })
    }

    /// Whether the kernel has a tracepoint of this name.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.tracepoint_arguments(name).is_some()
    }

    /// Whether the kernel has a function of this name.
    pub fn has_function(&self, name: &str) -> bool {
        self.0.resolve_types_by_name(name).is_ok_and(|types| types.iter().any(|t| matches!(t, Type::Func(_))))
    }

    fn named_struct(&self, name: &str) -> Option<Struct> {
        let types = self.0.resolve_types_by_name(name).ok()?;
        // A forward declaration may have the same name.
        types.into_iter().find_map(|t| match t {
            Type::Struct(s) if !s.members.is_empty() => Some(s),
            _ => None,
        })
    }

    /// Offset of a member and, if it is a struct or union, what is in it.
    fn member(&self, strukt: &Struct, name: &str) -> Option<(u32, Struct)> {
        for member in &strukt.members {
            let member_name = self.0.resolve_name(member).unwrap_or_default();
            let at = member.bit_offset() / 8;
            if member_name == name {
                if member.bitfield_size().is_some_and(|bits| bits != 0) {
                    return None;
                }
                return Some((at, self.inner(member).unwrap_or_else(|| empty(strukt))));
            }
            if member_name.is_empty()
                && let Some(inner) = self.inner(member)
                && let Some((below, found)) = self.member(&inner, name)
            {
                return Some((at + below, found));
            }
        }
        None
    }

    /// The struct or union a member is, through typedefs and qualifiers; not through pointers.
    fn inner(&self, member: &dyn BtfType) -> Option<Struct> {
        for t in self.0.chained_type_iter(member) {
            match t {
                Type::Struct(s) | Type::Union(s) => return Some(s),
                Type::Typedef(_)
                | Type::Volatile(_)
                | Type::Const(_)
                | Type::Restrict(_)
                | Type::TypeTag(_) => {}
                _ => return None,
            }
        }
        None
    }
}

fn empty(like: &Struct) -> Struct {
    let mut empty = like.clone();
    empty.members.clear();
    empty
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
    fn tracepoints_have_their_arguments() {
        let types = types();
        assert_eq!(types.tracepoint_arguments("inet_sock_set_state"), Some(3));
        assert_eq!(types.tracepoint_arguments("sys_exit"), Some(2));
    }
}
