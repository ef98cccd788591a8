//! Landlock: a thread takes file system and network away from itself (Linux 5.13 and later).

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError,
};

/// What a confined thread may still reach over TCP. None may listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Whoever it sends to.
    Receiver,
    /// Nobody: it answers on a socket that is open, or writes to a file that is.
    Nothing,
}

/// Rights that are known here. An older kernel enforces those it knows.
const KNOWN: ABI = ABI::V5;

/// Takes from this thread, and those it will start: writing, making, removing and executing files, listening, and
/// connecting where `reach` says so. Files that are open stay as they are.
pub(super) fn restrict(reach: Reach) -> Result<(), RulesetError> {
    let network = match reach {
        Reach::Receiver => AccessNet::BindTcp.into(),
        Reach::Nothing => AccessNet::from_all(KNOWN),
    };
    // What is named here and allowed by no rule is refused.
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(KNOWN) | AccessFs::Execute)?
        .handle_access(network)?
        .create()?
        .restrict_self()
        .map(drop)
}

/// Version of the kernel's Landlock; `None` = not there, or not switched on (`lsm=` at boot).
pub(super) fn version() -> Option<u32> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no structure and only answers.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0usize, VERSION)
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}
