"""The service of the end-to-end tests with aiohttp (see asgi_app.py)."""

import asyncio
import sys

from aiohttp import web


async def answer(request):
    words = request.path.split("/")[4:]
    body = await request.read()
    match words:
        case ["bytes", size]:
            return web.Response(body=b"x" * int(size))
        case ["echo"]:
            return web.Response(body=body)
        case ["chunked", parts, size]:
            response = web.StreamResponse()
            response.enable_chunked_encoding()
            await response.prepare(request)
            for _ in range(int(parts)):
                await response.write(b"x" * int(size))
            await response.write_eof()
            return response
        case ["status", code]:
            code = int(code)
            return web.Response(status=code, body=None if code in (204, 304) else b"status")
        case ["slow", ms]:
            await asyncio.sleep(int(ms) / 1000)
            return web.Response(body=b"slow")
    return web.Response(status=404, body=b"nothing here")


app = web.Application(client_max_size=1 << 30)
app.router.add_route("*", "/{path:.*}", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
