//! Who listens on a TCP port, read from /proc so that asking makes no connection.

use std::path::Path;

use anyhow::{Context, Result};

/// TCP_LISTEN as /proc/net/tcp prints it.
const LISTEN: &str = "0A";

pub fn listens(port: u16) -> Result<bool> {
    Ok(inode(port)?.is_some())
}

/// A description of the process that listens on `port`; none if nothing does.
pub fn listener(port: u16) -> Result<Option<String>> {
    let Some(inode) = inode(port)? else { return Ok(None) };
    Ok(Some(owner(inode).unwrap_or_else(|| "a process of another user or container".to_owned())))
}

fn inode(port: u16) -> Result<Option<u64>> {
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match std::fs::read_to_string(table) {
            Ok(text) => {
                if let Some(found) = listening_inode(&text, port) {
                    return Ok(Some(found));
                }
            }
            // Without IPv6 there is no second table.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {table}")),
        }
    }
    Ok(None)
}

/// The socket inode that listens on `port` in one of the kernel's tables (proc_net_tcp(5)).
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, hex_port) = fields.get(1)?.rsplit_once(':')?;
        let here = u16::from_str_radix(hex_port, 16) == Ok(port) && fields.get(3) == Some(&LISTEN);
        if here { fields.get(9)?.parse().ok() } else { None }
    })
}

fn owner(inode: u64) -> Option<String> {
    let target = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|pid| holds(*pid, &target)).map(describe).next()
}

fn holds(pid: u32, target: &str) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == Path::new(target)))
}

fn describe(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&line).replace('\0', " ");
    format!("pid {pid} ({})", words.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0\n   \
             1: 0100007F:1F40 0100007F:9000 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0\n";
        assert_eq!(listening_inode(table, 5001), Some(4242));
        assert_eq!(listening_inode(table, 8000), None);
    }

    #[test]
    fn our_own_listener_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let owner = listener(port).unwrap().unwrap();
        assert!(owner.contains(&format!("pid {}", std::process::id())), "{owner}");
        drop(socket);
        assert_eq!(listener(port).unwrap(), None);
    }
}
