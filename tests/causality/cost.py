"""What following Python contexts costs: requests/s of the FastAPI server without the agent, with the agent and causality
off, and with all of it, in turns.

usage: cost.py --agent PATH [--rounds 5] [--seconds 3]

Machines are noisy, so each round measures the three one right after the other and the losses are compared within rounds;
the median of them is printed with the spread. Exits with 1 only if something could not be measured.
"""

import argparse
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from run import HERE, free_port, listening, spawn, stop, wait_until

# Requests without calls, where the agent has most to do per unit of the server's own work, and with two httpx calls.
CASES = {"plain": 3_000, "async": 500}
WITHOUT, OFF, ON = "no agent", "causality off", "causality on"
IN_FLIGHT = 32


class Agent:
    def __init__(self, args, ports, causality, directory):
        log = directory / f"agent-{causality}.log"
        env = dict(os.environ, KTRDR_AGENT_PYTHON__CAUSALITY=str(causality).lower())
        command = [args.agent, "run", "--console", "off"]
        for port in ports:
            command += ["--port", str(port)]
        self.process = subprocess.Popen(command, stderr=log.open("wb"), env=env)
        wait_until(lambda: b"ready" in log.read_bytes(), "the agent")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process, signal.SIGINT)


def rate(port, case, total):
    begin = time.monotonic()
    subprocess.run([sys.executable, HERE / "load.py", str(port), case, str(IN_FLIGHT), str(total)], check=True)
    return total / (time.monotonic() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    args = parser.parse_args()
    started = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            port, backend = free_port(), free_port()
            started.append(spawn(HERE / "backend.py", backend))
            started.append(spawn(HERE / "app.py", "fastapi", "asyncio", port, backend))
            for p in (backend, port):
                wait_until(lambda: listening(p), "a server")
            measure(args, port, backend, pathlib.Path(scratch))
    finally:
        for process in reversed(started):
            stop(process)


def measure(args, port, backend, directory):
    totals = {}
    for case, guess in CASES.items():
        rate(port, case, guess)
        totals[case] = max(IN_FLIGHT, int(rate(port, case, guess) * args.seconds))
    rates = {case: {mode: [] for mode in (WITHOUT, OFF, ON)} for case in CASES}
    for _ in range(args.rounds):
        for mode in (WITHOUT, OFF, ON):
            if mode == WITHOUT:
                for case, total in totals.items():
                    rates[case][mode].append(rate(port, case, total))
            else:
                with Agent(args, (port, backend), mode == ON, directory):
                    for case, total in totals.items():
                        rates[case][mode].append(rate(port, case, total))
    print(f"{'FastAPI, requests':20}{WITHOUT:>14}{OFF:>16}{ON:>16}{'own loss':>18}{'all of the agent':>20}")
    for case, by_mode in rates.items():
        median = {mode: statistics.median(values) for mode, values in by_mode.items()}

        def loss(before, after):
            losses = [100 * (1 - a / b) for b, a in zip(by_mode[before], by_mode[after])]
            return f"{statistics.median(losses):.1f} % ±{statistics.stdev(losses) / len(losses) ** 0.5:.1f}"

        name = {"plain": "without calls", "async": "with two calls"}[case]
        print(
            f"{name:20}{median[WITHOUT]:>12.0f}/s{median[OFF]:>14.0f}/s{median[ON]:>14.0f}/s"
            f"{loss(OFF, ON):>18}{loss(WITHOUT, ON):>20}"
        )


main()
