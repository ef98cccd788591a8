"""Keeps N requests in flight on N kept-alive connections; ids are unique: CASE/N-number.

usage: load.py PORT CASE IN_FLIGHT TOTAL
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


async def main():
    numbers = iter(range(TOTAL))
    await asyncio.gather(*(worker(numbers) for _ in range(IN_FLIGHT)))


asyncio.run(main())
