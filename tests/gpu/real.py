"""On a real NVIDIA GPU: does the agent say of a load what `nvidia-smi` says of it?

Starts an HTTP server that multiplies matrices with PyTorch for as long as a request asks, the agent, and `nvidia-smi`; makes
one request; then compares the span's GPU attributes with nvidia-smi's readings during the request. Exit status 0 = they agree,
1 = they do not, 2 = it cannot run here.
"""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SERVER = """
import http.server, os, time, torch
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        end = time.monotonic() + float(self.path.rsplit("/", 1)[-1])
        a = torch.randn(8192, 8192, device="cuda:0")
        while time.monotonic() < end:
            a = (a @ a).tanh()
            torch.cuda.synchronize()
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
torch.zeros(1, device="cuda:0")
print(server.server_port, os.getpid(), flush=True)
server.serve_forever()
"""

QUERY = "timestamp,uuid,utilization.gpu,memory.used"


def need(condition, what):
    if not condition:
        print(f"cannot run here: {what}")
        sys.exit(2)


def wait_until(what, look, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"waited in vain: {what}")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--agent", default="target/release/ktrdr-agent")
    options.add_argument("--seconds", type=float, default=20)
    options.add_argument("--record", help="keep the recording here, as a fixture")
    said = options.parse_args()
    need(os.geteuid() == 0, "observing needs root")
    need(shutil.which("nvidia-smi"), "there is no nvidia-smi")
    need(subprocess.run([sys.executable, "-c", "import torch; torch.zeros(1, device='cuda')"]).returncode == 0,
         "PyTorch finds no CUDA device")
    directory = pathlib.Path(tempfile.mkdtemp())
    spans, log, smi_out = directory / "spans.jsonl", directory / "agent.log", directory / "smi.csv"
    running = []
    try:
        server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
        running.append(server)
        port = int(server.stdout.readline().split()[0])
        command = [said.agent, "record", "--out", said.record or str(directory / "gpu.ktrdr.gz"),
                   "--port", str(port), "--spans-out", str(spans)]
        agent = subprocess.Popen(command, stderr=log.open("w"), stdout=subprocess.DEVNULL)
        running.append(agent)
        wait_until("the agent observes", lambda: "observing" in log.read_text())
        smi = subprocess.Popen(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits", "-lms", "200", "-i", "0"],
                               stdout=smi_out.open("w"))
        running.append(smi)
        wait_until("nvidia-smi's first line", lambda: smi_out.read_text().strip())
        before = len(smi_out.read_text().splitlines())
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=said.seconds * 3)
        connection.request("GET", f"/{said.seconds}")
        connection.getresponse().read()
        theirs = [line.split(", ") for line in smi_out.read_text().splitlines()[before:] if line.count(",") == 3]
        span = wait_until("the server's span", lambda: next(
            (s for s in map(json.loads, spans.read_text().splitlines()) if s["kind"] == "server"), None))
        agent.send_signal(signal.SIGINT)
        agent.wait(timeout=10)
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=10)
    compare(span["attributes"], theirs)


def compare(ours, theirs):
    """Both average over windows of the driver's own, so means may differ by some percent."""
    mean = statistics.mean(float(row[2]) for row in theirs)
    memory = max(float(row[3]) for row in theirs) * 1024 * 1024
    rows = [
        ("device", ours.get("hw.id"), theirs[0][1], ours.get("hw.id") == theirs[0][1]),
        ("mean utilisation, %", ours.get("gpu.utilization_percent"), mean,
         abs(ours.get("gpu.utilization_percent", -100) - mean) <= 10),
        ("highest memory, bytes", ours.get("ktrdr.gpu.memory.usage.max"), memory,
         abs(ours.get("ktrdr.gpu.memory.usage.max", 0) - memory) <= 0.05 * memory),
        ("samples", ours.get("ktrdr.gpu.samples"), len(theirs), ours.get("ktrdr.gpu.samples", 0) >= len(theirs) / 3),
    ]
    for name, mine, other, agrees in rows:
        print(f"{name:24} agent {mine}   nvidia-smi {other}   {'agrees' if agrees else 'DIFFERS'}")
    sys.exit(0 if all(row[3] for row in rows) else 1)


if __name__ == "__main__":
    main()
