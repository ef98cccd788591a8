"""Makes a golden recording of a raw one: only the observed server, what it calls and who loads it; nothing of the host.

usage: trim.py IN.rec OUT.rec.gz
"""

import gzip
import json
import struct
import sys

HEADER = struct.Struct("<QIIIHH")
JSON = 0x8001
TICK = 0x8000
OURS = ("app.py", "node_app.js", "backend.py", "load.py")


def records(data):
    at = 16
    while at < len(data):
        header = HEADER.unpack_from(data, at)
        yield header, data[at : at + header[3]]
        at += header[3]


def main():
    data = open(sys.argv[1], "rb").read()
    processes = {}
    for (_, _, _, _, kind, _), record in records(data):
        if kind == JSON:
            fact = json.loads(record[HEADER.size :])
            if fact["fact"] == "process" and any(a.endswith(OURS) for a in fact["command"]):
                processes[fact["tgid"]] = next(a.rsplit("/", 1)[-1] for a in fact["command"] if a.endswith(OURS))
    out, last_tick = bytearray(data[:16]), 0
    for (ts, tgid, tid, _, kind, flags), record in records(data):
        if kind == JSON:
            fact = json.loads(record[HEADER.size :])
            which = fact["fact"]
            if which == "start":
                fact["host"] = []
            elif which == "process":
                name = processes.get(fact["tgid"])
                if not name:
                    continue
                fact.update(ppid=1, exe="/usr/bin/python3", command=["python3", name], cwd="/", attributes=[])
            elif which in ("python", "listener"):
                if fact["tgid"] not in processes:
                    continue
            elif which not in ("clock", "lost", "end"):
                continue
            body = json.dumps(fact, separators=(",", ":")).encode()
            record = HEADER.pack(ts, tgid, tid, HEADER.size + len(body), kind, flags) + body
        elif kind == TICK:
            # Ten a second are enough for its timers.
            if ts - last_tick < 100_000_000:
                continue
            last_tick = ts
        elif tgid not in processes:
            continue
        out += record
    with open(sys.argv[2], "wb") as f, gzip.GzipFile(fileobj=f, mode="wb", mtime=0, filename="") as z:
        z.write(out)


main()
