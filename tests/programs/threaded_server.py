"""The service of the end-to-end tests with Python's own http.server, a thread per connection (see asgi_app.py)."""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def request_body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self):
        body = self.request_body()
        status, reply, chunks = 200, b"", None
        match self.path.split("/")[4:]:
            case ["bytes", size]:
                reply = b"x" * int(size)
            case ["echo"]:
                reply = body
            case ["chunked", parts, size]:
                chunks = [b"x" * int(size)] * int(parts)
            case ["status", code]:
                status = int(code)
                reply = b"" if status in (204, 304) else b"status"
            case ["slow", ms]:
                time.sleep(int(ms) / 1000)
                reply = b"slow"
            case _:
                status, reply = 404, b"nothing here"
        self.send_response(status)
        if chunks is not None:
            self.send_header("transfer-encoding", "chunked")
        elif status not in (204, 304):
            self.send_header("content-length", str(len(reply)))
        self.end_headers()
        if self.command == "HEAD":
            return
        for chunk in chunks or []:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n" if chunks is not None else reply)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer


HOST = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
ThreadingHTTPServer((HOST, int(sys.argv[1])), Handler).serve_forever()
