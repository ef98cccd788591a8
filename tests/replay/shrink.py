"""Cuts a recording down to what some ports and their processes did, for the golden replays.

    shrink.py IN.gz OUT.gz PORT…

The layout is that of ktrdr-ebpf-common/src/records.rs. Kept are connections with one of the ports at either end, the
life of the processes that use them and what is known about those, and of the ticks one per 50 ms.
"""

import gzip
import json
import struct
import sys

DATA, STATE, EXEC, FORK, EXIT, PY_COPY, CONNECT_ERROR, WRITE, READ, PY_SUBMIT, PY_TAKE, PY_WRITE = range(1, 13)
TICK, FACT = 0x8000, 0x8001
HEADER = struct.Struct("<QIIIHH")
TUPLE_FLAG = 1

source, target, ports = sys.argv[1], sys.argv[2], {int(p) for p in sys.argv[3:]}
raw = gzip.open(source).read()
preamble, at, records = raw[:16], 16, []
while at < len(raw):
    ts, tgid, tid, length, kind, flags = HEADER.unpack_from(raw, at)
    records.append((ts, tgid, kind, flags, raw[at : at + length]))
    at += length


def tuple_ports(record, offset):
    return set(struct.unpack_from("<HH", record, offset + 32))


conns, processes = set(), set()
for ts, tgid, kind, flags, record in records:
    if kind == DATA and flags & TUPLE_FLAG and tuple_ports(record, 24 + 32) & ports:
        conns.add(struct.unpack_from("<Q", record, 24)[0])
        processes.add(tgid)
    elif kind == STATE and tuple_ports(record, 24 + 28) & ports:
        conns.add(struct.unpack_from("<Q", record, 24)[0])
        new = record[24 + 25]
        if new in (2, 10):  # SYN_SENT and LISTEN happen in the caller
            processes.add(tgid)
    elif kind == CONNECT_ERROR and struct.unpack_from("<H", record, 24 + 12)[0] in ports:
        processes.add(tgid)


def kept(ts, tgid, kind, record):
    global last_tick
    match kind:
        case _ if kind in (DATA, STATE):
            return struct.unpack_from("<Q", record, 24)[0] in conns
        case _ if kind in (EXEC, EXIT, PY_COPY, CONNECT_ERROR, WRITE, READ, PY_SUBMIT, PY_TAKE, PY_WRITE):
            return tgid in processes
        case _ if kind == FORK:
            return tgid in processes or struct.unpack_from("<I", record, 24)[0] in processes
        case _ if kind == TICK:
            if ts - last_tick < 50_000_000:
                return False
            last_tick = ts
            return True
        case _:
            fact = json.loads(record[24:])
            match fact["fact"]:
                case "process":
                    return fact["tgid"] in processes
                case "python":
                    return fact["tgid"] in processes
                case "listener":
                    return fact["port"] in ports
            return True


last_tick = 0
with gzip.GzipFile(target, "wb", compresslevel=9, mtime=0) as out:
    out.write(preamble)
    for ts, tgid, kind, flags, record in records:
        if kept(ts, tgid, kind, record):
            out.write(record)
