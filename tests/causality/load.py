"""Keeps N requests in flight on N kept-alive connections; ids are unique: CASE/N-number.

usage: load.py PORT CASE IN_FLIGHT TOTAL [on]    on: goes on until standard input ends, and makes TOTAL requests from then on
"""

import asyncio
import sys

PORT, CASE, IN_FLIGHT, TOTAL = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


async def request(reader, writer, path):
    writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{PORT}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert " 200 " in head.split("\r\n", 1)[0], head
    if "transfer-encoding: chunked" in head:
        await reader.readuntil(b"0\r\n\r\n")
    else:
        length = int(head.split("content-length:", 1)[1].split("\r\n", 1)[0])
        await reader.readexactly(length)


async def worker(numbers):
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    for n in numbers:
        await request(reader, writer, f"/{CASE}/{IN_FLIGHT}-{n}")
    writer.close()


def numbers(ended):
    """Of the requests to make: without an end until `ended`, and TOTAL from then on."""
    n, left = 0, TOTAL
    while left > 0:
        yield n
        n, left = n + 1, left - ended()


async def main():
    ended = asyncio.Event()
    if sys.argv[5:] == ["on"]:
        asyncio.get_running_loop().run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: ended.set())
    else:
        ended.set()
    shared = numbers(ended.is_set)
    await asyncio.gather(*(worker(shared) for _ in range(IN_FLIGHT)))


asyncio.run(main())
