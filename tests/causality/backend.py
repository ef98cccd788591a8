"""What the server under observation calls: answers everything after 1 to 9 ms, so that answers overtake each other.

usage: backend.py PORT
"""

import asyncio
import sys
import zlib


class Backend(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.data = b""

    def data_received(self, data):
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, self.data = self.data.partition(b"\r\n\r\n")
            delay = 0.001 + zlib.crc32(head.split(b"\r\n", 1)[0]) % 9 / 1000
            asyncio.get_running_loop().call_later(delay, self.answer)

    def answer(self):
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def main():
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


asyncio.run(main())
