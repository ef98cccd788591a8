//! The reader's end of the ring.

use ktrdr_agent::kernel::Hook;

use crate::{
    observer::{Observer, conn_of, options},
    steering::Pair,
};

#[test]
fn what_is_unread_is_known() {
    const MESSAGES: u64 = 50;
    const BYTES: u64 = 200;
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let mut pair = Pair::new();
    let (client_port, server_port) = pair.ports();
    observer.until("the client", |records| conn_of(records, client_port, server_port));
    // What others on this host send in the meantime only adds.
    let before = observer.kernel.unread();
    for _ in 0..MESSAGES {
        pair.send(&[b'x'; BYTES as usize]);
    }
    let unread = observer.kernel.unread() - before;
    assert!(unread >= 2 * MESSAGES * BYTES, "{unread} bytes of {MESSAGES} messages at both ends");

    observer.kernel.detach().wait();
    observer.agree();
    assert_eq!(observer.kernel.unread(), 0);
}
