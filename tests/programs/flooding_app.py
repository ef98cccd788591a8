"""A service that logs as much as it can for as long as it is asked to, through Python's logging.

usage: flooding_app.py PORT        GET /SECONDS/CHARACTERS_PER_MESSAGE → {"bytes": …, "lines": …, "seconds": …, "cpu_seconds": …}
"""

import json
import logging
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

# The output's file is emptied so often that it stays in memory.
KEPT = 16 << 20

FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"
log = logging.getLogger("flood")
logging.basicConfig(format=FORMAT, level=logging.INFO, stream=sys.stdout)


def length_of_a_line(message):
    """All have the same: the time is written in a fixed width."""
    record = log.makeRecord("flood", logging.INFO, __file__, 0, message, (), None)
    return len(logging.getLogger().handlers[0].format(record).encode()) + 1


def flood(seconds, characters):
    message = "x" * characters
    length = length_of_a_line(message)
    lines, begin, cpu = 0, time.monotonic(), time.process_time()
    end = begin + seconds
    while time.monotonic() < end:
        for _ in range(100):
            log.info(message)
        lines += 100
        if lines * length % KEPT < 100 * length:
            os.ftruncate(1, 0)
            os.lseek(1, 0, os.SEEK_SET)
    seconds, cpu = time.monotonic() - begin, time.process_time() - cpu
    return {"bytes": lines * length, "lines": lines, "seconds": seconds, "cpu_seconds": cpu}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        _, seconds, characters = self.path.split("/")
        body = json.dumps(flood(float(seconds), int(characters))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
