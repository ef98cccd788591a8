"""What h11 and llhttp (by httptools) make of byte streams: one JSON object a line in, one out.

In: {"side": "request" or "response", "asked": [methods that the responses answer], "bytes": hexadecimal}.
Out, for each of the two, null where it cannot know what was asked: {"messages": [{"start": "GET /" or "200", "size": bytes of
the body, "whole": whether its end was seen}], "error": text or null, "rest": whether it read all and stayed in step}.
Interim responses are left out. Text is Latin-1, byte by byte.
"""

import json
import sys

import h11
import httptools


class Verdict:
    def __init__(self):
        self.messages = []
        self.error = None
        self.in_step = True

    def begin(self, start):
        self.messages.append({"start": start, "size": 0, "whole": False})

    def body(self, data):
        self.messages[-1]["size"] += len(data)

    def end(self):
        self.messages[-1]["whole"] = True

    def told(self):
        return {"messages": self.messages, "error": self.error, "in_step": self.in_step}


def h11_request(data):
    verdict = Verdict()
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    conn.receive_data(data)
    conn.receive_data(b"")
    try:
        while True:
            event = conn.next_event()
            if isinstance(event, h11.Request):
                verdict.begin(f"{event.method.decode('latin-1')} {event.target.decode('latin-1')}")
            elif isinstance(event, h11.Data):
                verdict.body(event.data)
            elif isinstance(event, h11.EndOfMessage):
                verdict.end()
                # Neither tunnel nor upgrade: it goes on.
                conn.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                conn.send(h11.EndOfMessage())
                if conn.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                    verdict.in_step = not conn.trailing_data[0]
                    break
                conn.start_next_cycle()
            else:
                break
    except h11.RemoteProtocolError as e:
        verdict.error = str(e)
    return verdict.told()


def h11_response(data, asked):
    verdict = Verdict()
    conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    conn.receive_data(data)
    conn.receive_data(b"")
    try:
        for method in asked:
            conn.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
            conn.send(h11.EndOfMessage())
            while True:
                event = conn.next_event()
                if isinstance(event, h11.Response):
                    verdict.begin(str(event.status_code))
                elif isinstance(event, h11.Data):
                    verdict.body(event.data)
                elif isinstance(event, h11.InformationalResponse):
                    if event.status_code == 101:
                        # Here nobody asked for it, and h11 goes on.
                        verdict.in_step = False
                elif isinstance(event, h11.EndOfMessage):
                    verdict.end()
                    break
                else:
                    verdict.in_step = False
                    return verdict.told()
            if conn.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                verdict.in_step = not conn.trailing_data[0]
                break
            conn.start_next_cycle()
    except (h11.RemoteProtocolError, h11.LocalProtocolError) as e:
        verdict.error = str(e)
    return verdict.told()


class Callbacks:
    """httptools' protocol. The start of a message is known once its head is."""

    def __init__(self, verdict):
        self.verdict = verdict
        self.parser = None
        self.url = b""
        self.interim = False

    def on_message_begin(self):
        self.url = b""

    def on_url(self, url):
        self.url += url

    def on_headers_complete(self):
        if isinstance(self.parser, httptools.HttpRequestParser):
            method = self.parser.get_method().decode("latin-1")
            self.verdict.begin(f"{method} {self.url.decode('latin-1')}")
        else:
            code = self.parser.get_status_code()
            self.interim = 100 <= code < 200 and code != 101
            if not self.interim:
                self.verdict.begin(str(code))

    def on_body(self, body):
        self.verdict.body(body)

    def on_message_complete(self):
        if not self.interim:
            self.verdict.end()
        self.interim = False


def llhttp(data, side):
    verdict = Verdict()
    callbacks = Callbacks(verdict)
    parser = httptools.HttpRequestParser if side == "request" else httptools.HttpResponseParser
    callbacks.parser = parser(callbacks)
    try:
        callbacks.parser.feed_data(data)
    except httptools.HttpParserUpgrade as e:
        verdict.in_step = False
    except httptools.HttpParserError as e:
        verdict.error = f"{type(e).__name__}: {e}"
    return verdict.told()


for line in sys.stdin:
    stream = json.loads(line)
    data, side, asked = bytes.fromhex(stream["bytes"]), stream["side"], stream["asked"]
    told = {
        "h11": h11_request(data) if side == "request" else h11_response(data, asked),
        # It has no way to say that a response answers HEAD or CONNECT.
        "llhttp": None if {"HEAD", "CONNECT"} & set(asked) else llhttp(data, side),
    }
    print(json.dumps(told))
