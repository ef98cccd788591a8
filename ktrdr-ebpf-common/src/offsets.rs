//! Places of kernel fields, as constants of the kernel programs, filled in from the running kernel's BTF.
//!
//! One table for both sides: the kernel crate makes a read-only global of each line, the agent resolves the path
//! and sets it. Verifier and JIT see plain numbers, because the section is frozen before the programs load.

/// Calls `$callback!` with every constant: `NAME = "struct", "path.to.field", required|optional;`.
/// `optional` fields exist only with a kernel option (IPv6); absent ones are set to 0 and never reached.
#[macro_export]
macro_rules! for_each_offset {
    ($callback:ident) => {
        $callback! {
            SK_FAMILY = "sock", "__sk_common.skc_family", required;
            SK_STATE = "sock", "__sk_common.skc_state", required;
            SK_DADDR = "sock", "__sk_common.skc_daddr", required;
            SK_RCV_SADDR = "sock", "__sk_common.skc_rcv_saddr", required;
            SK_DPORT = "sock", "__sk_common.skc_dport", required;
            SK_NUM = "sock", "__sk_common.skc_num", required;
            SK_NET = "sock", "__sk_common.skc_net.net", required;
            SK_V6_DADDR = "sock", "__sk_common.skc_v6_daddr", optional;
            SK_V6_RCV_SADDR = "sock", "__sk_common.skc_v6_rcv_saddr", optional;
            SK_COOKIE = "sock", "__sk_common.skc_cookie", required;
            SK_FLAGS = "sock", "__sk_common.skc_flags", required;
            SK_PROTOCOL = "sock", "sk_protocol", required;
            SK_ERR = "sock", "sk_err", required;
            SK_SHUTDOWN = "sock", "sk_shutdown", required;
            SK_SOCKET = "sock", "sk_socket", required;
            INET_SPORT = "inet_sock", "inet_sport", required;
            TCP_COPIED_SEQ = "tcp_sock", "copied_seq", required;
            TCP_WRITE_SEQ = "tcp_sock", "write_seq", required;
            TCP_RCV_NXT = "tcp_sock", "rcv_nxt", required;
            SOCKET_FILE = "socket", "file", required;
            SOCKET_SK = "socket", "sk", required;
            NET_INUM = "net", "ns.inum", required;
            TASK_FILES = "task_struct", "files", required;
            FILES_FDT = "files_struct", "fdt", required;
            FDT_MAX_FDS = "fdtable", "max_fds", required;
            FDT_FD = "fdtable", "fd", required;
            FILE_INODE = "file", "f_inode", required;
            FILE_PRIVATE = "file", "private_data", required;
            INODE_MODE = "inode", "i_mode", required;
            INODE_INO = "inode", "i_ino", required;
            INODE_SB = "inode", "i_sb", required;
            INODE_RDEV = "inode", "i_rdev", required;
            INODE_GENERATION = "inode", "i_generation", required;
            SB_DEV = "super_block", "s_dev", required;
            TASK_MM = "task_struct", "mm", required;
            MM_ARG_START = "mm_struct", "arg_start", required;
            MM_ARG_END = "mm_struct", "arg_end", required;
            TASK_TGID = "task_struct", "tgid", required;
            TASK_PID = "task_struct", "pid", required;
            TASK_NVCSW = "task_struct", "nvcsw", required;
            TASK_NIVCSW = "task_struct", "nivcsw", required;
            TASK_PARENT = "task_struct", "real_parent", required;
            TASK_LEADER = "task_struct", "group_leader", required;
            TASK_COMM = "task_struct", "comm", required;
            TASK_EXIT_CODE = "task_struct", "exit_code", required;
            TASK_SIGNAL = "task_struct", "signal", required;
            SIGNAL_LIVE = "signal_struct", "live", required;
            SIGNAL_FLAGS = "signal_struct", "flags", required;
            SIGNAL_EXIT_CODE = "signal_struct", "group_exit_code", required;
            TASK_NSPROXY = "task_struct", "nsproxy", required;
            NSPROXY_NET = "nsproxy", "net_ns", required;
        }
    };
}
