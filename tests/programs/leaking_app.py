"""A service that logs secrets in every way a service does, whatever it is asked for.

usage: leaking_app.py PORT FILE    FILE holds a JSON list of secrets: each is logged in one of the ways below, in turn
"""

import json
import logging
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

with open(sys.argv[2]) as file:
    SENTENCE, JSON, PAIR, TRACEBACK, URL, PRINTED = json.load(file)

log = logging.getLogger("app.leak")
logging.basicConfig(
    format="%(asctime)s | %(levelname)s | %(name)s | %(message)s", level=logging.INFO, stream=sys.stdout
)


def leak():
    log.error("login failed: Authorization: Bearer %s", SENTENCE)
    print(json.dumps({"level": "error", "event": "login failed", "api_key": JSON}), flush=True)
    log.warning("cannot log in user=me password=%s attempt=2", PAIR)
    try:
        raise ValueError(f"no session for token={TRACEBACK}")
    except ValueError:
        log.exception("login failed")
    log.error("GET https://me:%s@example.org/login gave 401", URL)
    print(f"client_secret={PRINTED}", flush=True)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        leak()
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
