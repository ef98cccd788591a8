"""HTTP clients of the end-to-end tests: each does the plan (plan.json) and prints what it did, a line per request.

    clients.py BASE_URL LIBRARY[,LIBRARY…] [PLAN]

Libraries: httpx, httpx-async, requests, aiohttp, http.client, and httpx-concurrent, which sends its requests at once.
PLAN is a file, or `-` for plan.json.
"""

import asyncio
import json
import pathlib
import sys
from urllib.parse import urlsplit

base, libraries = sys.argv[1], sys.argv[2].split(",")
plan_file = pathlib.Path(__file__).with_name("plan.json")
if len(sys.argv) > 3 and sys.argv[3] != "-":
    plan_file = pathlib.Path(sys.argv[3])
plan = json.loads(plan_file.read_text())


def say(library, n, step, status, received, address=None, group=None):
    port = address[1] if address else None
    line = {"path": path(library, n, step), "method": step["method"], "status": status, "sent": step.get("body", 0)}
    line |= {"received": received, "local_port": port, "group": group or library, "vague": step.get("vague", False)}
    print(json.dumps(line), flush=True)


def path(library, n, step):
    return f"/c/{library}/{n}/{step['path']}"


def body(step):
    size = step.get("body")
    return b"b" * size if size else None


def pieces(step):
    piece = step.get("piece", 3000)
    for at in range(0, step["body"], piece):
        yield b"b" * min(piece, step["body"] - at)


def httpx_sync(library):
    import httpx

    with httpx.Client(base_url=base) as client:
        for n, step in enumerate(plan):
            content = pieces(step) if step.get("chunked") else body(step)
            reply = client.request(step["method"], path(library, n, step), content=content)
            address = reply.extensions["network_stream"].get_extra_info("client_addr")
            say(library, n, step, reply.status_code, len(reply.content), address)


async def httpx_async(library, concurrent=False):
    import httpx

    async def parts(step):
        for piece in pieces(step):
            yield piece

    async with httpx.AsyncClient(base_url=base) as client:

        async def one(n, step):
            content = parts(step) if step.get("chunked") else body(step)
            reply = await client.request(step["method"], path(library, n, step), content=content)
            address = reply.extensions["network_stream"].get_extra_info("client_addr")
            group = f"{library}-{n}" if concurrent else None
            say(library, n, step, reply.status_code, len(reply.content), address, group)

        if concurrent:
            await asyncio.gather(*(one(n, step) for n, step in enumerate(plan)))
        else:
            for n, step in enumerate(plan):
                await one(n, step)


def requests_(library):
    import requests

    with requests.Session() as session:
        for n, step in enumerate(plan):
            data = pieces(step) if step.get("chunked") else body(step)
            reply = session.request(step["method"], base + path(library, n, step), data=data, stream=True)
            connection = reply.raw._connection
            address = connection.sock.getsockname() if connection is not None and connection.sock else None
            say(library, n, step, reply.status_code, len(reply.content), address)


async def aiohttp_(library):
    import aiohttp

    async def parts(step):
        for piece in pieces(step):
            yield piece

    async with aiohttp.ClientSession() as session:
        for n, step in enumerate(plan):
            data = parts(step) if step.get("chunked") else body(step)
            async with session.request(step["method"], base + path(library, n, step), data=data) as reply:
                transport = reply.connection.transport if reply.connection else None
                address = transport.get_extra_info("sockname") if transport else None
                say(library, n, step, reply.status, len(await reply.read()), address)


def http_client(library):
    import http.client

    url = urlsplit(base)
    connection = http.client.HTTPConnection(url.hostname, url.port)
    for n, step in enumerate(plan):
        data = pieces(step) if step.get("chunked") else body(step)
        connection.request(step["method"], path(library, n, step), data, encode_chunked=bool(step.get("chunked")))
        address = connection.sock.getsockname()
        reply = connection.getresponse()
        say(library, n, step, reply.status, len(reply.read()), address)
    connection.close()


for library in libraries:
    match library:
        case "httpx":
            httpx_sync(library)
        case "httpx-async":
            asyncio.run(httpx_async(library))
        case "httpx-concurrent":
            asyncio.run(httpx_async(library, concurrent=True))
        case "requests":
            requests_(library)
        case "aiohttp":
            asyncio.run(aiohttp_(library))
        case "http.client":
            http_client(library)
        case _:
            sys.exit(f"no library {library}")
