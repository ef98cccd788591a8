"""Makes the recording `gpu`: a service whose process is on a GPU, as the stand-in for NVIDIA's library tells it.

    gpu.py AGENT OUT.gz        (as root)

Every request but the quick ones lasts as long as it takes the agent to sample what the library says meanwhile: it is read
from the agent's metrics when that is so.
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
GIB = 1 << 30
TOTAL = 16 * GIB
agent, out = sys.argv[1], sys.argv[2]
work = pathlib.Path(tempfile.mkdtemp())


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, true):
    deadline = time.monotonic() + 30
    while not true():
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.02)


def page():
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def shows(name, device, value):
    line = re.search(rf'^{name}{{[^}}]*hw_id="GPU-standin-{device}"[^}}]*}} (\S+)$', page(), re.M)
    return line is not None and float(line[1]) == value


def say(util, gib, extra=""):
    """Device 0 is the service's; device 1 is there and idle."""
    text = f"count 2\nutil 0 {util} 10\nmemory 0 {int(gib * GIB)} {TOTAL}\nutil 1 0 0\nmemory 1 {GIB} {TOTAL}\n"
    new = work / "new"
    new.write_text(text + f"proc 0 {server.pid} {GIB} {util}\n{extra}")
    new.rename(work / "standin.so.script")


class Call:
    """A request of which the end is held back."""

    def __init__(self, path):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.send(f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nha")

    def send(self, text):
        self.socket.sendall(text.encode())

    def end(self):
        self.send("lf")
        self.socket.recv(65536)
        self.socket.close()


subprocess.run(
    ["cc", "-shared", "-fPIC", "-O1", "-o", work / "standin.so", ROOT / "tests/gpu/standin.c"], check=True
)
port, metrics = free_port(), free_port()
server = subprocess.Popen(
    [sys.executable, "-m", "uvicorn", "--app-dir", ROOT / "tests/programs", "asgi_app:app", "--loop", "asyncio",
     "--http", "h11", "--port", str(port), "--log-level", "warning"]
)
say(20, 2)
until("the server", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
recorder = subprocess.Popen(
    # It serves metrics only if it makes spans.
    [agent, "record", "--console", "off", "--spans-out", work / "spans", "--out", out, "--port", str(port)],
    env={**os.environ, "KTRDR_AGENT_GPU__LIBRARY": str(work / "standin.so"), "KTRDR_AGENT_GPU__BUSY_PERIOD": "100ms",
         "KTRDR_AGENT_GPU__IDLE_PERIOD": "100ms", "KTRDR_AGENT_METRICS__LISTEN": f"127.0.0.1:{metrics}",
         "KTRDR_AGENT_GPU__RETRY": "1s", "KTRDR_AGENT_CAPTURE__STDIO": "false"},
)
try:
    until("a sample", lambda: shows("hw_gpu_memory_usage_bytes", 0, 2 * GIB))

    # Two levels of use within one call.
    call = Call("/c/1/1/echo")
    say(80, 5)
    until("80 %", lambda: shows("hw_gpu_utilization_ratio", 0, 0.8))
    say(40, 3)
    until("40 %", lambda: shows("hw_gpu_utilization_ratio", 0, 0.4))
    call.end()
    # Shorter than the gap between two samples.
    for n in range(3):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/c/2/{n}/bytes/1") as answer:
            answer.read()
    # The device is lost and comes back within one call.
    call = Call("/c/3/1/echo")
    say(40, 3, "lost 0\n")
    until("the loss", lambda: 'hw_state="failed"} 1' in page())
    say(60, 4)
    until("60 %", lambda: shows("hw_gpu_utilization_ratio", 0, 0.6))
    call.end()
    # Full to 99 % when the service fails without a reason, and the driver reports an error.
    call = Call("/c/4/1/status/500")
    say(90, 15.84, "xid 0 31 1\n")
    until("90 %", lambda: shows("hw_gpu_utilization_ratio", 0, 0.9))
    until("the event", lambda: 'error_type="xid_31"' in page())
    call.end()
finally:
    recorder.send_signal(signal.SIGINT)
    recorder.wait()
    server.terminate()
print(f"shrink.py {out} gpu.rec.gz {port}")
