"""The connection to the IB gateway: the real client library on a thread of its own that is fed through a queue.

The thread looks into its queue between the library's own work, as KTRDR's does; the caller blocks meanwhile, and
with it the event loop that serves the HTTP requests.
"""

import asyncio
import logging
import os
import queue
import threading

import ib_async

log = logging.getLogger("ib.connection")

CLIENT_ID = int(os.environ.get("IB_CLIENT_ID", "1"))
PORT = int(os.environ.get("IB_GATEWAY_PORT", "4002"))
CONNECT_TIMEOUT = float(os.environ.get("IB_CONNECT_TIMEOUT", "15"))
# How long a gateway that refuses is tried again; the caller knows nothing of it.
CONNECT_PATIENCE = float(os.environ.get("IB_CONNECT_PATIENCE", "120"))
REQUEST_TIMEOUT = float(os.environ.get("IB_REQUEST_TIMEOUT", "60"))
RETRY = 0.5
LOOK = 0.02


class GatewayError(Exception):
    """The gateway said no, or nothing."""


class Connection(threading.Thread):
    def __init__(self):
        super().__init__(name=f"IbConnection-{CLIENT_ID}", daemon=True)
        self.asked = queue.Queue()
        self.errors = {}

    def ask(self, request):
        """Runs `await request(ib)` on the thread and gives its result, or raises its exception."""
        answered = queue.Queue()
        self.asked.put((request, answered))
        result = answered.get()
        if isinstance(result, Exception):
            raise result
        return result

    def run(self):
        asyncio.run(self.serve())

    async def serve(self):
        ib = ib_async.IB()
        ib.RaiseRequestErrors = True
        while True:
            try:
                request, answered = self.asked.get_nowait()
            except queue.Empty:
                await asyncio.sleep(LOOK)
                continue
            try:
                if not ib.isConnected():
                    await self.connect(ib)
                answered.put(await request(ib))
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller waits for it
                log.error("Request failed: %s", error)
                answered.put(error)

    async def connect(self, ib):
        patience = asyncio.get_running_loop().time() + CONNECT_PATIENCE
        while True:
            try:
                await ib.connectAsync("127.0.0.1", PORT, clientId=CLIENT_ID, timeout=CONNECT_TIMEOUT)
                return
            except OSError as error:
                log.error("Connection to 127.0.0.1:%s failed: %s", PORT, error)
                if asyncio.get_running_loop().time() >= patience:
                    raise
                await asyncio.sleep(RETRY)


_connection = Connection()
_lock = threading.Lock()


def ask(request):
    with _lock:
        if not _connection.is_alive():
            _connection.start()
    return _connection.ask(request)
