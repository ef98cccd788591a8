"""Runs the servers under the agent and compares every call's parent with the truth.

usage: run.py --agent PATH [--only SERVER/CASE,…] [--in-flight 1,10,100,500] [--total 400] [--record PREFIX] [--keep DIR]

Prints a table: for each server, case and number of requests in flight how many calls have the right parent, a wrong
one, one that was inferred (and said so) and is not right, or none; beside them what "the last request read on this
thread" would have given on the same recording. Exits with 1 if any edge called exact is wrong, or if fewer than 99.9 %
are right where a context exists.
"""

import argparse
import bisect
import collections
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
FASTAPI = ["async", "gather", "own-client", "aiohttp", "sync", "to-thread", "executor", "own-loop", "submit", "background", "detached", "stream"]
SERVERS = [
    ("fastapi", "asyncio", FASTAPI),
    ("fastapi", "uvloop", FASTAPI),
    ("aiohttp", "asyncio", ["async", "gather"]),
    ("aiohttp", "uvloop", ["async", "gather"]),
    ("streams", "asyncio", ["async", "gather", "executor", "background"]),
    ("streams", "uvloop", ["async", "gather", "executor", "background"]),
    ("threads", "none", ["threads", "pool"]),
    ("node", "none", ["async", "gather"]),
]


def without_evidence(server, case, row, late):
    """Why nothing that can be seen says which request such a call belongs to; it must not be linked wrongly all the same."""
    if server == "node/none":
        return "a runtime without contexts that can be seen: linked only while a single request is in flight"
    if late and server.endswith("/uvloop") and row == BEGUN:
        return "it, or a response, may have been written before writes were seen, and sent after"
    if row == BLIND:
        return "done before the agent was ready, or for a request of which nobody saw the beginning"
    if row == BEGUN and case not in ANSWERED_BY_THE_TASK:
        return "done by tasks that are older than the agent's sight, and do not answer"
    return None


def row_of(request, ts, server, ready):
    """The row that something done for a request at `ts` counts in: by the requests in flight, and by what could be seen."""
    in_flight = request.split("-")[0]
    if in_flight != str(UNDER_WAY):
        return in_flight
    # Times are as long as they are exact.
    if server is None or ts[: len(ready) - 1] <= ready[:-1]:
        return BLIND
    return in_flight if server["start_time"][: len(ready) - 1] > ready[:-1] else BEGUN


def ready_time(log):
    """When the agent said that it observes."""
    return next(line.split()[0] for line in log.read_text().splitlines() if "ready after" in line)


# Requests in flight when an agent comes late; no other row has as many.
UNDER_WAY = 33
# What is shown of a request that began before the agent was ready: all that was done for it afterwards; and before, which may
# have been under contexts that nobody could read. The same for requests of which nobody saw the beginning.
BEGUN, BLIND = f"{UNDER_WAY} begun", f"{UNDER_WAY} blind"
# Cases whose whole work is done by the task that answers. What others' tasks do that are older than the agent's sight is not known.
ANSWERED_BY_THE_TASK = ["async", "own-client", "aiohttp"]
CALL = re.compile(r"/x/([a-z-]+)/([a-z0-9-]+)/(\d+)$")
DEADLINE_S = 60


def wait_until(condition, what):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"causality: gave up waiting for {what}")
        time.sleep(0.02)


def listening(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def connections(port):
    """Established connections to this port of the loopback interface."""
    rows = (line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(int(row[1].split(":")[1], 16) == port and row[3] == "01" for row in rows)


def stop(process, how=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def spawn(*args, **kw):
    return subprocess.Popen([sys.executable, *map(str, args)], **kw)


def observing_all():
    """The environment of an agent that leaves nothing out, whatever it takes. Options of its own go over that."""
    return dict(os.environ, KTRDR_AGENT_BUDGET__CPU="off")


def observe(args, kind, loop, cases, directory):
    """Runs one server with all its cases under the agent; its spans."""
    app_port, backend_port = free_port(), free_port()
    spans = directory / f"{kind}-{loop}.jsonl"
    log = directory / f"{kind}-{loop}.log"
    ports = ["--port", str(app_port), "--port", str(backend_port)]
    books = directory / f"{kind}-{loop}-books.json"
    command = [args.agent, "run", "--console", "off", "--spans-out", str(spans), "--stats-out", str(books), *ports]
    recording = f"{args.record}-{kind}-{loop}.rec" if args.record else None
    if recording:
        command = [args.agent, "record", "--out", recording, *ports]
    started = []
    app_command = (args.python or sys.executable, HERE / "app.py", kind, loop, app_port, backend_port)
    if kind == "node":
        app_command = ("node", HERE / "node_app.js", app_port, backend_port)

    def app():
        # Its thousands of log lines are the agent's to read, not ours.
        said = (directory / f"{kind}-{loop}-app.log").open("wb")
        started.append(subprocess.Popen([str(a) for a in app_command], stderr=said))
        wait_until(lambda: listening(app_port), "the server")

    def agent():
        started.append(subprocess.Popen(command, stderr=log.open("wb"), env=observing_all()))
        wait_until(lambda: b"ready" in log.read_bytes(), "the agent")

    try:
        started.append(spawn(HERE / "backend.py", backend_port))
        wait_until(lambda: listening(backend_port), "the backend")
        if args.attach_late:
            app()
            # Under load: what is under way when the agent comes has no parent, and must get no wrong one.
            load = spawn(HERE / "load.py", app_port, cases[0], UNDER_WAY, 20 * UNDER_WAY, "on", stdin=subprocess.PIPE)
            started.append(load)
            wait_until(lambda: connections(app_port) >= UNDER_WAY, "the load")
            agent()
            load.stdin.close()
            wait_until(lambda: load.poll() is not None, "the end of the load")
        else:
            agent()
            app()
        for case in cases:
            for n in args.in_flight:
                total = max(args.total, 2 * n)
                subprocess.run([sys.executable, HERE / "load.py", str(app_port), case, str(n), str(total)], check=True)
        # The background work of the last requests.
        time.sleep(0.5)
    finally:
        # The agent last but one: it has to see the end of what it observes, and nothing may outlive us.
        for process in reversed(started):
            stop(process, signal.SIGINT if "ktrdr-agent" in str(process.args[0]) else signal.SIGTERM)
    print("\n".join("  " + l for l in log.read_text().splitlines() if "python causality" in l), file=sys.stderr)
    if recording:
        replay = [args.agent, "replay", recording, "--console", "off", "--spans-out", str(spans)]
        subprocess.run(replay, check=True, stderr=subprocess.DEVNULL)
    else:
        # Beside the table: where records without a trace come from.
        print(f"  {kind}/{loop} {json.loads(books.read_text())['logs']}", file=sys.stderr)
    return [json.loads(line) for line in spans.open()]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def score_logs(lines, ready):
    """Log records of requests against their trace: the message names the request it was written for."""
    servers = [s for s in lines if "log" not in s and s["kind"] == "server"]
    path_of = {s["span_id"]: s["attributes"].get("url.path") for s in servers}
    by_path = {s["attributes"].get("url.path"): s for s in servers}
    # Of the server that was observed: logs are read of every process, also of another such server on this machine.
    pids = {s["resource"]["process.pid"] for s in servers}
    results = collections.defaultdict(collections.Counter)
    for record in (s for s in lines if "log" in s):
        found = re.fullmatch(r"request (/[a-z-]+/([a-z0-9-]+))", record["log"]["body"])
        if not found or record["resource"].get("process.pid") not in pids:
            continue
        path, request = found.groups()
        row = row_of(request, record["log"]["time"], by_path.get(path), ready)
        result = results[(path.split("/")[1], row)]
        result["records"] += 1
        named = path_of.get(record.get("span_id")) if record.get("span_id") else None
        result["right" if named == path else "unlinked" if named is None else "wrong"] += 1
    return results


def score(spans, ready):
    """(case, in flight) → counts."""
    # Of a request whose beginning was not seen the path is not known.
    paths = ((s, s["attributes"].get("url.path")) for s in spans if s["kind"] == "server")
    servers = [s for s, path in paths if path and not path.startswith("/x/")]
    by_path = {s["attributes"]["url.path"]: s for s in servers}
    case_of = {s["span_id"]: path for path, s in by_path.items()}
    threads = collections.defaultdict(list)
    for s in sorted(servers, key=lambda s: s["start_time"]):
        threads[s["attributes"]["thread.id"]].append((s["start_time"], s["attributes"]["url.path"]))
    pids = {s["resource"]["process.pid"] for s in servers}
    results = collections.defaultdict(collections.Counter)
    for c in spans:
        if c["kind"] != "client" or c["resource"].get("process.pid") not in pids:
            continue
        found = CALL.search(c["attributes"].get("url.full", ""))
        if not found:
            continue
        case, request, _ = found.groups()
        truth = None if request == "none" else f"/{case}/{request}"
        key = (case, row_of(request, c["start_time"], by_path.get(truth), ready) if truth else "-")
        result = results[key]
        result["calls"] += 1
        named = case_of.get(c.get("parent_span_id")) or next(
            (case_of[l["span_id"]] for l in c["links"] if l["span_id"] in case_of), None
        )
        if named == truth:
            result["right"] += 1
        elif named is None:
            result["unlinked"] += 1
        elif c["attributes"].get("ktrdr.link.certainty") == "inferred":
            result["misguessed"] += 1
        else:
            result["wrong"] += 1
        reads = threads.get(c["attributes"]["thread.id"], [])
        at = bisect.bisect_right(reads, (c["start_time"], "~")) - 1
        result["thread rule"] += (reads[at][1] if at >= 0 else None) == truth
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--in-flight", default="1,10,100,500", type=lambda s: [int(n) for n in s.split(",")])
    parser.add_argument("--total", type=int, default=400)
    parser.add_argument("--record", help="keep the records in PREFIX-SERVER-LOOP.rec, and judge their replay")
    parser.add_argument("--keep")
    parser.add_argument("--again", action="store_true", help="judge what --keep kept, without running anything")
    parser.add_argument("--python", help="interpreter of the observed server")
    parser.add_argument("--attach-late", action="store_true", help="start the agent after the server, under load")
    args = parser.parse_args()
    failed, notes = False, {}
    print(
        f"{'server':18}{'case':13}{'in flight':>9}{'calls':>8}{'right':>9}{'wrong':>7}{'guessed wrong':>15}{'none':>7}"
        f"{'thread rule':>13}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(args.keep or scratch)
        directory.mkdir(exist_ok=True)
        for kind, loop, cases in SERVERS:
            cases = [c for c in cases if any(o in f"{kind}/{loop}/{c}" for o in args.only.split(","))]
            if not cases:
                continue
            old = directory / f"{kind}-{loop}.jsonl"
            spans = [json.loads(l) for l in old.open()] if args.again else observe(args, kind, loop, cases, directory)
            ready = ready_time(directory / f"{kind}-{loop}.log")
            logs = score_logs(spans, ready)
            results = score([s for s in spans if "log" not in s], ready)
            if args.attach_late and not any(n == str(UNDER_WAY) for _, n in results):
                failed = True
                print(f"{kind + '/' + loop:18}no request came while the agent was ready and the load went on  ✗")
            if not results:
                failed = True
                print(f"{kind + '/' + loop:18}not one call was seen  ✗")
            for (case, n), r in results.items():
                calls = r["calls"]
                right = r["right"] / calls
                why = without_evidence(f"{kind}/{loop}", case, n, args.attach_late)
                bad = r["wrong"] > 0 or (why is None and right < 0.999)
                failed |= bad
                if why:
                    notes.setdefault(why, []).append(f"{kind}/{loop} {case}")
                print(
                    f"{kind + '/' + loop:18}{case:13}{n:>9}{calls:>8}{right:>9.2%}{r['wrong']:>7}{r['misguessed']:>15}{r['unlinked']:>7}"
                    f"{r['thread rule'] / calls:>13.2%}{'  ✗' if bad else ''}",
                    flush=True,
                )
            for (case, n), r in logs.items():
                right = r["right"] / r["records"]
                why = without_evidence(f"{kind}/{loop}", case, n, args.attach_late)
                bad = r["wrong"] > 0 or (why is None and right < 0.999)
                failed |= bad
                if why:
                    notes.setdefault(why, []).append(f"{kind}/{loop} {case} logs")
                print(
                    f"{kind + '/' + loop:18}{case + ' logs':13}{n:>9}{r['records']:>8}{right:>9.2%}{r['wrong']:>7}"
                    f"{'':>15}{r['unlinked']:>7}{'':>13}{'  ✗' if bad else ''}",
                    flush=True,
                )
    for why, where in notes.items():
        print(f"nothing but that none is wrong is demanded of {', '.join(dict.fromkeys(where))}: {why}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
