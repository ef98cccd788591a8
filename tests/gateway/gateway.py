#!/usr/bin/env python3
"""A simulator of the IB Gateway, for tests and the demo stack. Standard library only; serves on loopback.

    python tests/gateway/gateway.py --port 4002 [--farms 3] [--frames split|merged] [--error CODE] [--silent]
                                    [--reset] [--slow SECONDS] [--taken ID ...] [--log FILE]

The options set what every request for data meets. A symbol can ask for it, too, so that one gateway shows all of
it: NOPE (200), PACING, NODATA (162), DENIED (354), LOST (1100, then 1102), SILENT (no answer), RESET (the
connection is reset), SLOW (2 s). Each request becomes a JSON line in the log with its outcome.

What it says is what `ib_async` 2.1 and `ib_insync` 0.9.86 read (their decoders are the reference), at the highest
version that the client offers. The account number is made up.
"""

import argparse
import asyncio
import datetime
import json
import os
import socket
import struct
import sys
import time

VERSION = 178
ACCOUNT = "DU1234567"
FARMS = ["usfarm", "ushmds", "secdefil", "usfarm.nj", "cashfarm", "euhmds"]
NO_DATA = "Historical Market Data Service error message:HMDS query returned no data: {symbol}@SMART Trades"
PACING = "Historical Market Data Service error message:Historical data request pacing violation"
TEXTS = {
    100: "Max rate of messages per second has been exceeded:max=50 rec=51 (1)",
    162: PACING,
    200: "No security definition has been found for the request",
    354: "Requested market data is not subscribed.",
    420: "Invalid Real-time Query:Historical data request pacing violation",
    10197: "No market data during competing live session",
}
SYMBOLS = {"NOPE": 200, "PACING": 162, "NODATA": 162, "DENIED": 354}
# Where the symbol of a request for data stands (field 0 is the message number), and its request id.
DATA = {20: (3, 1), 9: (4, 2), 87: (3, 1), 1: (4, 2)}
BARS = {"1 day": (datetime.timedelta(days=1), 28), "1 hour": (datetime.timedelta(hours=1), 168)}
MAX_FRAME = 0xFFFFFF


class Session:
    """One connection."""

    taken = set()

    def __init__(self, reader, writer, options, log):
        self.reader, self.writer, self.options, self.log = reader, writer, options, log
        self.client_id, self.version, self.waiting, self.tasks = None, VERSION, [], set()
        self.writing = asyncio.Lock()

    async def run(self):
        try:
            if await self.reader.readexactly(4) != b"API\0":
                return
            offered = (await self.frame()).decode().split(" ")[0].lstrip("v").split("..")
            self.version = min(VERSION, int(offered[-1]))
            self.note(0, None, None, "answered")
            now = datetime.datetime.now(datetime.timezone.utc)
            await self.send(self.version, now.strftime("%Y%m%d %H:%M:%S UTC"))
            while True:
                fields = (await self.frame()).decode(errors="replace").split("\0")[:-1]
                if not await self.request(int(fields[0]), fields):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for task in self.tasks:
                task.cancel()
            Session.taken.discard(self.client_id)
            self.writer.close()

    async def frame(self):
        (size,) = struct.unpack(">I", await self.reader.readexactly(4))
        if size > MAX_FRAME:
            raise ConnectionError(f"a frame of {size} bytes")
        return await self.reader.readexactly(size)

    def note(self, number, request_id, symbol, outcome, **more):
        if self.log:
            line = {"time": time.time(), "id": number, "request": request_id, "symbol": symbol, "outcome": outcome}
            print(json.dumps({**line, "client": self.client_id, **more}), file=self.log, flush=True)

    async def send(self, *fields, last=True):
        """Sends a message; with --frames merged, together with those after it up to one with `last`."""
        text = "".join(f"{field}\0" for field in fields).encode()
        self.waiting.append(struct.pack(">I", len(text)) + text)
        if self.options.frames == "merged" and not last:
            return
        data, self.waiting = b"".join(self.waiting), []
        # Answers to several requests are under way at once, and their pieces must not mix.
        async with self.writing:
            await self.write(data)

    async def write(self, data):
        if self.options.frames != "split":
            self.writer.write(data)
            await self.writer.drain()
            return
        # In the middle of the length, of a number, of a field.
        cuts = [0, *(c for c in (2, 5, 17, len(data) // 2, len(data) - 1) if 0 < c < len(data)), len(data)]
        for start, end in zip(sorted(cuts), sorted(cuts)[1:]):
            self.writer.write(data[start:end])
            await self.writer.drain()
            await asyncio.sleep(0.002)

    async def error(self, request_id, code, text, last=True):
        await self.send(4, 2, request_id, code, text, "", last=last)

    async def request(self, number, f):
        """Answers a request; false ends the connection."""
        if number in DATA:
            symbol, request_id = (f[at] for at in DATA[number])
            task = asyncio.ensure_future(self.data(number, f, symbol, request_id))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return True
        request_id = f[2] if number in (7, 76, 25, 62) else f[1] if number == 90 else None
        self.note(number, request_id, None, "answered")
        if number == 71:
            return await self.start(int(f[2]))
        if number == 61:
            await self.send(61, 3, ACCOUNT, *aapl()[:11], 100, 182.5, last=False)
            await self.send(62, 1)
        elif number in (5, 16):
            await self.send(53, 1)
        elif number == 99:
            await self.send(102)
        elif number == 6 and f[2] == "1":
            for key, value, currency in (("AccountReady", "true", ""), ("NetLiquidation", "100000.00", "USD")):
                await self.send(6, 2, key, value, currency, ACCOUNT, last=False)
            await self.send(8, 1, "12:00", last=False)
            await self.send(54, 1, ACCOUNT)
        elif number == 76:
            await self.send(73, 1, request_id, ACCOUNT, "", "NetLiquidation", "100000.00", "USD", last=False)
            await self.send(74, 1, request_id)
        elif number == 7:
            await self.send(55, 1, request_id)
        elif number == 49:
            await self.send(49, 1, int(time.time()))
        elif number == 8:
            await self.send(9, 1, 1)
        elif number == 25:
            text = f"Historical Market Data Service error message:API historical data query cancelled: {request_id}"
            await self.error(request_id, 162, text)
        return True

    async def start(self, client_id):
        if client_id in Session.taken or client_id in self.options.taken:
            await self.error(-1, 326, "Unable to connect as the client id is already in use. Retry with a unique client id.")
            return False
        self.client_id = client_id
        Session.taken.add(client_id)
        await self.send(15, 1, ACCOUNT, last=False)
        await self.send(9, 1, 1, last=False)
        for at, farm in enumerate(FARMS[: self.options.farms]):
            code, what = ((2104, "Market data"), (2106, "HMDS data"), (2158, "Sec-def data"))[min(at, 2)]
            await self.error(-1, code, f"{what} farm connection is OK:{farm}", last=False)
        await self.error(-1, 2119, "Market data farm is connecting:jfarm")
        return True

    async def data(self, number, f, symbol, request_id):
        """Answers a request for data."""
        options = self.options
        code = options.error or SYMBOLS.get(symbol)
        if options.silent or symbol == "SILENT":
            return self.note(number, request_id, symbol, "silent")
        if options.reset or symbol == "RESET":
            self.note(number, request_id, symbol, "reset")
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return self.writer.transport.abort()
        if options.slow or symbol == "SLOW":
            await asyncio.sleep(options.slow or 2.0)
        if symbol == "LOST":
            await self.error(-1, 1100, "Connectivity between IBKR and Trader Workstation has been lost.")
            await self.error(-1, 2103, "Market data farm connection is broken:usfarm")
            await asyncio.sleep(0.1)
            await self.error(-1, 1102, "Connectivity between IBKR and Trader Workstation has been restored - data maintained.")
            await self.error(-1, 2104, "Market data farm connection is OK:usfarm")
        if code:
            text = NO_DATA.format(symbol=symbol) if symbol == "NODATA" else TEXTS.get(code, f"Error {code}")
            self.note(number, request_id, symbol, "error", code=code)
            return await self.error(request_id, code, text)
        if number == 20:
            return await self.history(request_id, symbol, bar_size=f[16])
        self.note(number, request_id, symbol, "answered")
        if number == 87:
            await self.send(88, request_id, "19801212  14:30:00")
        elif number == 9:
            await self.send(10, *([] if self.version >= 164 else [8]), request_id, *details(), last=False)
            await self.send(52, 1, request_id)
        elif number == 1:
            await self.send(58, 1, request_id, 1, last=False)
            await self.send(1, 6, request_id, 4, 182.5, 100, 0)

    async def history(self, request_id, symbol, bar_size):
        step, count = BARS.get(bar_size, (datetime.timedelta(minutes=1), 60))
        end = datetime.datetime(2025, 11, 13, 21, tzinfo=datetime.timezone.utc)
        bars = []
        for n in range(count):
            at, price = end - step * (count - n), 180 + n % 7 / 4
            date = at.strftime("%Y%m%d") if bar_size == "1 day" else at.strftime("%Y%m%d %H:%M:%S UTC")
            bars += [date, price, price + 1.5, price - 1.25, price + 0.5, 41_000_000 + n, price + 0.125, 250_000 + n]
        start = (end - step * count).strftime("%Y%m%d  %H:%M:%S")
        # Noted first: a client may leave as soon as it has its bars.
        self.note(20, request_id, symbol, "answered", bars=count)
        await self.send(17, request_id, start, end.strftime("%Y%m%d  %H:%M:%S"), count, *bars)


def aapl():
    return [265598, "AAPL", "STK", "", 0, "", "", "SMART", "USD", "AAPL", "NMS", 265598]


def details():
    """contractDetails from the symbol on."""
    return [
        "AAPL", "STK", "", 0, "", "SMART", "USD", "AAPL", "NMS", "NMS", 265598, 0.01, "", "LMT,MKT", "SMART,NASDAQ",
        1, 0, "APPLE INC", "NASDAQ", "", "Technology", "Computers", "Computers", "US/Eastern",
        "20251113:0400-20251113:2000", "20251113:0930-20251113:1600", "", "", 0, 1, "", "", "26,26", "", "COMMON",
        0.0001, 0.0001, 100,
    ]  # fmt: skip


async def serve(options):
    log = open(options.log, "a") if options.log else None
    server = await asyncio.start_server(
        lambda reader, writer: Session(reader, writer, options, log).run(), "127.0.0.1", options.port
    )
    # Tests wait for this line and read the port from it.
    print(json.dumps({"listening": server.sockets[0].getsockname()[1]}), flush=True)
    async with server:
        await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=4002, help="0: any")
    parser.add_argument("--farms", type=int, default=1)
    parser.add_argument("--frames", choices=["whole", "split", "merged"], default="whole")
    parser.add_argument("--error", type=int, help="code for every request for data")
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--reset", action="store_true")
    parser.add_argument("--slow", type=float, help="seconds")
    taken = [int(n) for n in os.environ.get("IB_GATEWAY_TAKEN", "").split()]
    parser.add_argument("--taken", type=int, nargs="*", default=taken, help="client ids in use [IB_GATEWAY_TAKEN]")
    parser.add_argument("--log", help="file for what was asked and answered")
    try:
        asyncio.run(serve(parser.parse_args()))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
