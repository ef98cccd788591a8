#!/usr/bin/env python3
"""Runs the demo stack in the foreground, for a look by hand. Ctrl-C stops all of it.

    tests/.venv/bin/python tests/stack/run.py [--without ktrdr-ib-host-service] [--port ktrdr-api=18000]
    tests/.venv/bin/python tests/stack/bin/ktrdr data load AAPL

`services.json` says what runs and how; `cargo xtask demo` and the end-to-end tests read the same file.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

STACK = Path(__file__).resolve().parent


def fill(text, values):
    """Replaces each {name} by its value; services.json has no other braces."""
    for name, value in values.items():
        text = text.replace("{%s}" % name, str(value))
    return text


def start(service, ports):
    values = {"bin": Path(sys.prefix) / "bin", "port": ports[service["name"]], **ports}
    env = {**os.environ, **{key: fill(value, values) for key, value in service["env"].items()}}
    argv = [fill(arg, values) for arg in service["argv"]]
    return subprocess.Popen(argv, cwd=STACK / service["cwd"], env=env)


def main():
    services = json.loads((STACK / "services.json").read_text())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without", action="append", default=[], metavar="SERVICE")
    parser.add_argument("--port", action="append", default=[], metavar="SERVICE=PORT")
    options = parser.parse_args()

    ports = {service["name"]: service["port"] for service in services}
    ports.update(pair.split("=", 1) for pair in options.port)
    children = [start(service, ports) for service in services if service["name"] not in options.without]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for child in children:
            child.wait()
    except KeyboardInterrupt:
        pass
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


if __name__ == "__main__":
    main()
