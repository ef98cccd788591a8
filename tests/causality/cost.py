"""What following Python contexts costs a FastAPI service: without the agent, with the agent and causality off, and with
all of it.

usage: cost.py --agent PATH [--rounds 12] [--seconds 1.5] [--only plain]

The figure to trust is the CPU time of the *service's own process* per 10,000 requests: probes and hooks run in its
context, so all they cost is in it, and another program that takes a core away is not. Requests/s stand beside it. The
three take turns in many short slices, each first as often as the others, and are compared within a round; printed are
the median of the rounds' ratios and the range in which the true one lies with 95 % (bootstrap over the rounds). What
other programs do to the caches only ever adds, so the cheapest quarter of each mode's slices is compared as well, with
its own range. Rounds are what narrows the ranges: four times as many halve them.

What the service does by itself varies more than the agent costs where a request takes milliseconds. So its time in the
kernel is compared by itself, too, and told as a part of all its time without the agent: whatever the agent does in a
service it does there. The kernel samples that with its timer, so a slice has an error of its own, which the range has in it.

Below stands what a single copy costs and how many there are per request, which gives the same by multiplication. Exits
with 1 only if something could not be measured.
"""

import argparse
import json
import os
import pathlib
import random
import re
import signal
import statistics
import subprocess
import tempfile

from run import HERE, free_port, listening, observing_all, spawn, stop, wait_until

# Requests without calls, where the agent has most to do per unit of the server's own work, and with two httpx calls.
CASES = {"plain": "without calls", "async": "with two calls"}
WITHOUT, OFF, ON = "no agent", "causality off", "causality on"
MODES = (WITHOUT, OFF, ON)
CONNECTIONS = 16
# Bootstrap: enough for the second digit of a range.
DRAWS = 2_000
# A copy takes some 50 ns; a trap into the kernel adds a microsecond. Above this, somebody else's probe sits there.
BARE_NS = 400


class Agent:
    """With causality, without it, or none at all."""

    def __init__(self, args, mode, ports, directory):
        self.process, self.stats = None, directory / "stats.json"
        if mode == WITHOUT:
            return
        log = directory / "agent.log"
        env = dict(observing_all(), KTRDR_AGENT_PYTHON__CAUSALITY=str(mode == ON).lower())
        command = [args.agent, "run", "--console", "off", "--stats-out", str(self.stats)]
        for port in ports:
            command += ["--port", str(port)]
        self.process = subprocess.Popen(command, stderr=log.open("wb"), env=env)
        wait_until(lambda: b"ready" in log.read_bytes(), "the agent")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            stop(self.process, signal.SIGINT)

    def copies(self):
        """Context copies that its probe saw, once it has ended."""
        return json.loads(self.stats.read_text())["kernel"]["python_context_copies"]


def cpu_seconds(pid):
    """Time on a processor, in user and kernel mode, of all threads; in nanoseconds where the kernel counts them."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    try:
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
    except OSError:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kernel_seconds(pid):
    """Time in the kernel of all threads, ended ones included."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return int(fields[12]) / os.sysconf("SC_CLK_TCK")


def load(port, case, seconds):
    """Requests answered, and how many of them per second."""
    url = f"http://127.0.0.1:{port}/{case}/cost-0"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"cost: not every request was answered:\n{said}")
    answered = int(re.search(r"(\d+) requests in", said).group(1))
    return answered, float(re.search(r"Requests/sec:\s+([\d.]+)", said).group(1))


class Slice:
    def __init__(self, port, case, seconds, service, agent):
        pids = [service.pid] + ([agent.process.pid] if agent.process else [])
        before, in_kernel = [cpu_seconds(pid) for pid in pids], kernel_seconds(service.pid)
        self.requests, self.rate = load(port, case, seconds)
        self.kernel = (kernel_seconds(service.pid) - in_kernel) / self.requests * 10_000
        used = [cpu_seconds(pid) - b for pid, b in zip(pids, before)]
        self.service = used[0] / self.requests * 10_000
        self.agent = used[1] / self.requests * 10_000 if agent.process else 0.0


def median_change(rounds):
    """The median over the rounds of `after` against `before` (%)."""
    return statistics.median(100 * (after / before - 1) for before, after in rounds)


def cheapest_change(rounds):
    """The mean of the cheapest quarter of the slices against that of the others (%)."""
    quarter = lambda values: statistics.mean(sorted(values)[: max(1, len(rounds) // 4)])
    before, after = zip(*rounds)
    return 100 * (quarter(after) / quarter(before) - 1)


def kernel_change(rounds):
    """By how much the mean time in the kernel grew, of all time before (%); of (all before, kernel before, kernel after)."""
    total, before, after = (statistics.mean(column) for column in zip(*rounds))
    return 100 * (after - before) / total


def with_range(rounds, statistic):
    """A statistic of the rounds, and what it is in 95 % of what rounds drawn from these would say."""
    dice = random.Random(1)
    drawn = sorted(statistic(dice.choices(rounds, k=len(rounds))) for _ in range(DRAWS))
    low, high = drawn[DRAWS // 40], drawn[-1 - DRAWS // 40]
    return f"{statistic(rounds):+.1f} % ({low:+.1f} to {high:+.1f})"


def measure(args, service, port, backend, directory):
    cases = {case: name for case, name in CASES.items() if args.only in (None, case)}
    slices = {case: {mode: [] for mode in MODES} for case in cases}
    for case in cases:
        load(port, case, 1)
    for round_ in range(args.rounds):
        for mode in MODES[round_ % 3 :] + MODES[: round_ % 3]:
            with Agent(args, mode, (port, backend), directory) as agent:
                # What is new about the agent's being there (its first look at the processes) is no cost per request.
                load(port, "plain", 1)
                for case in cases:
                    slices[case][mode].append(Slice(port, case, args.seconds, service, agent))
    for case, by_mode in slices.items():
        print(f"FastAPI, requests {CASES[case]}")
        print(f"  {'':15}{'CPU of the service':>24}{'requests/s':>12}{'CPU of the agent':>22}")
        for mode, of_mode in by_mode.items():
            middle = lambda of: statistics.median(map(of, of_mode))
            print(
                f"  {mode:15}{middle(lambda s: s.service):>15.3f} s/10,000{middle(lambda s: s.rate):>12.0f}"
                f"{middle(lambda s: s.agent):>13.3f} s/10,000"
            )
        for what, mode in (("causality alone", OFF), ("all of the agent", WITHOUT)):
            rounds = lambda of: [(of(b), of(a)) for b, a in zip(by_mode[mode], by_mode[ON])]
            cpu = rounds(lambda s: s.service)
            print(f"  {what}: CPU of the service {with_range(cpu, median_change)}, of the cheapest quarter")
            print(f"    {with_range(cpu, cheapest_change)}; requests/s {with_range(rounds(lambda s: s.rate), median_change)}")
            kernel = [
                (without.service, before.kernel, after.kernel)
                for without, before, after in zip(by_mode[WITHOUT], by_mode[mode], by_mode[ON])
            ]
            print(f"    by the service's time in the kernel {with_range(kernel, kernel_change)}")


# A process that the agent knows by its socket; copies contexts on demand and tells the least time of one (ns).
COPIER = """
import contextvars, socket, sys, time
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for line in sys.stdin:
    least = 10**9
    for _ in range(40):
        begin = time.process_time_ns()
        for _ in range(5000):
            contextvars.copy_context()
        least = min(least, time.process_time_ns() - begin)
    print(least / 5000, flush=True)
"""


def single_copy(args, service_port, directory):
    """Copies per request without calls, and time of one without the agent and with it (ns)."""
    port = free_port()
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    copier = spawn("-c", COPIER, port, **pipes)

    def time_of_one():
        print(file=copier.stdin, flush=True)
        return float(copier.stdout.readline())

    try:
        wait_until(lambda: listening(port), "the copier")
        with Agent(args, ON, (port,), directory):
            probed = time_of_one()
        bare = time_of_one()
    finally:
        copier.stdin.close()
        stop(copier)
    # Of all processes with this interpreter: the service's, if no other is busy.
    with Agent(args, ON, (service_port,), directory) as agent:
        answered = load(service_port, "plain", args.seconds)[0]
    return agent.copies() / answered, bare, probed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", required=True)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--only", choices=CASES)
    args = parser.parse_args()
    started = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            port, backend = free_port(), free_port()
            directory = pathlib.Path(scratch)
            quiet = (directory / "service.log").open("wb")
            started.append(spawn(HERE / "backend.py", backend))
            started.append(spawn(HERE / "app.py", "fastapi", "asyncio", port, backend, "alone", stderr=quiet))
            for p in (backend, port):
                wait_until(lambda: listening(p), "a server")
            measure(args, started[1], port, backend, directory)
            copies, bare, probed = single_copy(args, port, directory)
            if bare > BARE_NS:
                print(f"a copy takes {bare:.0f} ns without the agent: another one probes it, and nothing above is of use")
            print(
                f"one copy of a context: {bare:.0f} ns, with the probe {probed:.0f} ns; {copies:.1f} copies per request "
                f"without calls, which makes {copies * (probed - bare) / 1000:.1f} µs"
            )
    finally:
        for process in reversed(started):
            stop(process)


if __name__ == "__main__":
    main()
