//! The capabilities the agent needs, one by one, with what is lost without each.
//!
//! The list is the shortest on a kernel from 5.11 on; `tests/tests/e2e/privileges.rs` takes each away in turn and sees
//! the loss. Kernels before 5.11 count maps against RLIMIT_MEMLOCK: there the limit has to be raised from outside
//! (`LimitMEMLOCK=infinity`), or CAP_SYS_RESOURCE added.

use caps::Capability;

/// A capability and its reason.
#[derive(Debug)]
pub struct Need {
    /// Which.
    pub capability: Capability,
    /// What the agent does with it.
    pub use_: &'static str,
    /// What is lost without it.
    pub lost: &'static str,
    /// Nothing can be observed without it.
    pub required: bool,
}

/// All of them.
pub const NEEDS: [Need; 4] = [
    Need {
        capability: Capability::CAP_BPF,
        use_: "loads the kernel programs and makes their maps",
        lost: "nothing can be observed",
        required: true,
    },
    Need {
        capability: Capability::CAP_PERFMON,
        use_: "attaches the programs to tracepoints and Python interpreters",
        lost: "nothing can be observed",
        required: true,
    },
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        use_: "reads /proc of other users' processes",
        lost: "other users' services are named less well, listeners have no owner, calls inside Python are linked by \
               thread only",
        required: false,
    },
    Need {
        capability: Capability::CAP_DAC_READ_SEARCH,
        use_: "reads container names and interpreters in private directories",
        lost: "containers have no names, Python contexts of interpreters in private directories are not seen",
        required: false,
    },
];

/// Those of [`NEEDS`] that are not among `held`.
fn missing(held: &[Capability]) -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| !has(held, need.capability)).collect()
}

/// CAP_SYS_ADMIN is what CAP_BPF and CAP_PERFMON were split from, and still counts for both.
pub fn has(held: &[Capability], wanted: Capability) -> bool {
    let split = matches!(wanted, Capability::CAP_BPF | Capability::CAP_PERFMON);
    held.contains(&wanted) || (split && held.contains(&Capability::CAP_SYS_ADMIN))
}

/// One clear sentence instead of the kernel's EPERM; what is lost without the lesser ones.
///
/// # Errors
/// A capability is missing without which nothing can be observed.
pub fn require() -> anyhow::Result<()> {
    let missing = missing(&super::held());
    let names = |required: bool| {
        let names = missing.iter().filter(|need| need.required == required);
        names.map(|need| need.capability.to_string()).collect::<Vec<_>>()
    };
    let required = names(true);
    if !required.is_empty() {
        anyhow::bail!(
            "observing needs {}: run `sudo ktrdr-agent run`, or give the agent's user the capabilities that \
             `ktrdr-agent check` lists",
            required.join(" and ")
        );
    }
    for need in missing {
        tracing::warn!("{} is missing: {}", need.capability, need.lost);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_has_counts() {
        let all: Vec<_> = NEEDS.iter().map(|need| need.capability).collect();
        assert!(missing(&all).is_empty());
        let left: Vec<_> = missing(&[Capability::CAP_SYS_ADMIN]).iter().map(|need| need.capability).collect();
        assert_eq!(left, [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH]);
        assert_eq!(missing(&[]).len(), NEEDS.len());
    }
}
