"""A FastAPI service that logs as KTRDR does: coloured on standard output, and the same once more in a file.

usage: logging_app.py PORT LOG_FILE
"""

import asyncio
import logging
import os
import sys

import uvicorn
from fastapi import FastAPI

PORT, FILE = int(sys.argv[1]), sys.argv[2]
log = logging.getLogger("app.work")
FORMAT = "%(asctime)s | \033[91m%(levelname)s \033[0m | %(name)s | %(message)s"
app = FastAPI()


@app.get("/work/{i}")
async def work(i: str):
    log.info("request /work/%s", i)
    await asyncio.sleep(0.02)
    log.info("request /work/%s", i)
    return i


@app.get("/thread/{i}")
def thread(i: str):
    log.info("request /thread/%s", i)
    return i


@app.get("/fail/{i}")
async def fail(i: str):
    try:
        raise KeyError(i)
    except KeyError as error:
        raise ValueError(f"no {i}") from error


@app.get("/caught/{i}")
async def caught(i: str):
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("request /caught/%s", i)
    return i


@app.get("/hostile")
async def hostile():
    out = sys.stdout.fileno()

    def write(data):
        # A pipe takes part of a long write at a time.
        while data:
            data = data[os.write(out, data) :]

    write(bytes(range(256)) * 4 + b"\n")
    write(b"\xff\xfe invalid \xc3 utf-8 in a line that is otherwise readable, as any other line\n")
    write(b"x" * 10_000_000 + b"\n")
    log.info("said by a user\n2026-11-22 09:26:24,275 | ERROR | app.work | request /work/forged")
    write(b"half a line without an end")
    return "done"


logging.basicConfig(
    level=logging.INFO,
    format=FORMAT,
    handlers=[logging.StreamHandler(sys.stdout), logging.FileHandler(FILE)],
)
uvicorn.run(app, host="127.0.0.1", port=PORT, log_config=None if "plain" in sys.argv else uvicorn.config.LOGGING_CONFIG)
