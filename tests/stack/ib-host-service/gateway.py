"""The connection to the IB gateway, held by a thread of its own that is fed through a queue.

Asked for by IB_GATEWAY=connect; by default the service makes its bars itself and connects nowhere.
"""

import logging
import os
import queue
import socket
import threading

log = logging.getLogger("ib.connection")

CLIENT_ID = int(os.environ.get("IB_CLIENT_ID", "1"))
PORT = int(os.environ.get("IB_GATEWAY_PORT", "4002"))
CONNECT_TIMEOUT = 15.0

_asked = queue.Queue()


def mode():
    return os.environ.get("IB_GATEWAY", "synthetic")


def require():
    """Returns once the gateway is known to accept connections; raises OSError if it does not."""
    if mode() != "connect":
        return
    answered = queue.Queue()
    _asked.put(answered)
    _start_once()
    error = answered.get()
    if error is not None:
        raise error


def _serve():
    while True:
        answered = _asked.get()
        try:
            socket.create_connection(("127.0.0.1", PORT), timeout=CONNECT_TIMEOUT).close()
            answered.put(None)
        except OSError as error:
            log.error("Connection to 127.0.0.1:%s failed: %s", PORT, error)
            answered.put(error)


_thread = threading.Thread(target=_serve, name=f"IbConnection-{CLIENT_ID}", daemon=True)
_lock = threading.Lock()


def _start_once():
    with _lock:
        if not _thread.is_alive():
            _thread.start()
