"""The server under observation. Each outgoing call carries the id of the request that caused it, so the truth is known.

usage: app.py KIND LOOP PORT BACKEND_PORT [alone]    KIND: fastapi | aiohttp | streams | threads; alone: without the poller
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import sys

KIND, LOOP, PORT, BACKEND = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
ALONE = sys.argv[5:] == ["alone"]
BASE = f"http://127.0.0.1:{BACKEND}/x"


def fastapi_app():
    import aiohttp
    import anyio
    import httpx
    import requests
    from fastapi import BackgroundTasks, FastAPI
    from fastapi.responses import StreamingResponse

    shared = {}

    @contextlib.asynccontextmanager
    async def lifespan(app):
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        shared["httpx"] = httpx.AsyncClient(limits=limits, timeout=60)
        shared["aiohttp"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        # Work that no request caused: its calls must not be given to one.
        pollers = [] if ALONE else [asyncio.create_task(poll())]
        yield
        for poller in pollers:
            poller.cancel()

    async def poll():
        n = 0
        while True:
            with contextlib.suppress(httpx.HTTPError):
                await shared["httpx"].get(f"{BASE}/poll/none/{n}")
            if n % 4 == 0:
                # In the threads that requests use.
                with contextlib.suppress(requests.RequestException):
                    await asyncio.get_running_loop().run_in_executor(None, get_sync, "poll", "none", n)
            n += 1
            await asyncio.sleep(0.02)

    app = FastAPI(lifespan=lifespan)

    async def get(case, i, n):
        await shared["httpx"].get(f"{BASE}/{case}/{i}/{n}")

    def get_sync(case, i, n):
        requests.get(f"{BASE}/{case}/{i}/{n}", timeout=60)

    # CPython 3.8 has no `to_thread` of its own; anyio's also copies the context.
    in_thread = getattr(asyncio, "to_thread", anyio.to_thread.run_sync)

    # Records that name their request: the log line's truth is its text.
    log = logging.getLogger("app")
    logging.basicConfig(format="%(asctime)s | %(levelname)s | %(name)s | %(message)s", level=logging.WARNING)

    @app.get("/plain/{i}")
    async def no_call(i: str):
        return i

    @app.get("/async/{i}")
    async def plain(i: str):
        log.warning("request /async/%s", i)
        await get("async", i, 1)
        log.warning("request /async/%s", i)
        await asyncio.sleep(0.002)
        await get("async", i, 2)
        log.warning("request /async/%s", i)
        return i

    @app.get("/gather/{i}")
    async def gather(i: str):
        await get("gather", i, 1)
        await asyncio.gather(get("gather", i, 2), get("gather", i, 3))
        return i

    @app.get("/own-client/{i}")
    async def own_client(i: str):
        async with httpx.AsyncClient(timeout=60, verify=False) as client:
            await client.get(f"{BASE}/own-client/{i}/1")
        return i

    @app.get("/aiohttp/{i}")
    async def with_aiohttp(i: str):
        for n in (1, 2):
            async with shared["aiohttp"].get(f"{BASE}/aiohttp/{i}/{n}") as response:
                await response.read()
        return i

    @app.get("/sync/{i}")
    def sync(i: str):
        log.warning("request /sync/%s", i)
        get_sync("sync", i, 1)
        log.warning("request /sync/%s", i)
        return i

    @app.get("/to-thread/{i}")
    async def to_thread(i: str):
        await asyncio.gather(*(in_thread(get_sync, "to-thread", i, n) for n in (1, 2)))
        return i

    @app.get("/executor/{i}")
    async def executor(i: str):
        # Copies no context.
        await asyncio.get_running_loop().run_in_executor(None, get_sync, "executor", i, 1)
        return i

    @app.get("/own-loop/{i}")
    async def own_loop(i: str):
        async def work():
            async with httpx.AsyncClient(timeout=60, verify=False) as client:
                await asyncio.gather(*(client.get(f"{BASE}/own-loop/{i}/{n}") for n in (1, 2)))

        # A loop in a pool's thread, as long as the work takes.
        await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(work()))
        return i

    pool = concurrent.futures.ThreadPoolExecutor(8)

    @app.get("/submit/{i}")
    def submit(i: str):
        def work():
            get_sync("submit", i, 1)
            return pool.submit(get_sync, "submit", i, 2)

        pool.submit(work).result().result()
        return i

    @app.get("/background/{i}")
    async def background(i: str, tasks: BackgroundTasks):
        tasks.add_task(get, "background", i, 1)
        tasks.add_task(get_sync, "background", i, 2)
        return i

    @app.get("/detached/{i}")
    async def detached(i: str):
        async def later():
            await asyncio.sleep(0.01)
            await get("detached", i, 1)

        shared.setdefault("tasks", set()).add(asyncio.create_task(later()))
        return i

    @app.get("/stream/{i}")
    async def stream(i: str):
        async def chunks():
            for n in (1, 2):
                await get("stream", i, n)
                yield f"{n}\n"

        return StreamingResponse(chunks())

    return app


def run_fastapi():
    import uvicorn

    http = "httptools" if LOOP == "uvloop" else "h11"
    uvicorn.run(fastapi_app(), port=PORT, loop=LOOP, http=http, log_level="warning", backlog=4096)


def run_aiohttp():
    import aiohttp
    from aiohttp import web

    if LOOP == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

    async def make():
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

        async def get(case, i, n):
            async with session.get(f"{BASE}/{case}/{i}/{n}") as response:
                await response.read()

        async def plain(request):
            i = request.match_info["i"]
            await get("async", i, 1)
            await get("async", i, 2)
            return web.Response(text=i)

        async def gather(request):
            i = request.match_info["i"]
            await asyncio.gather(get("gather", i, 1), get("gather", i, 2))
            return web.Response(text=i)

        app = web.Application()
        app.add_routes([web.get("/async/{i}", plain), web.get("/gather/{i}", gather)])
        return app

    web.run_app(make(), port=PORT, host="127.0.0.1", print=None, backlog=4096, handler_cancellation=False)


def run_streams():
    import httpx
    import requests

    if LOOP == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

    async def main():
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        client = httpx.AsyncClient(limits=limits, timeout=60)
        under_way = set()

        async def get(case, i, n):
            await client.get(f"{BASE}/{case}/{i}/{n}")

        def begin(case, i, n):
            task = asyncio.ensure_future(get(case, i, n))
            under_way.add(task)
            task.add_done_callback(under_way.discard)

        async def poll():
            n = 0
            while True:
                await get("poll", "none", n)
                # As often just behind the read of a request as not.
                begin("poll", "none", n + 1)
                n += 2
                await asyncio.sleep(0.02)

        async def serve(case, i):
            if case == "async":
                await get(case, i, 1)
                await get(case, i, 2)
            elif case == "gather":
                await asyncio.gather(get(case, i, 1), get(case, i, 2))
            elif case == "executor":
                call = functools.partial(requests.get, f"{BASE}/{case}/{i}/1", timeout=60)
                await asyncio.get_running_loop().run_in_executor(None, call)
            else:
                begin(case, i, 1)

        async def connection(reader, writer):
            # One task for all requests of the connection.
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    _, case, i = head.split()[1].decode().split("/")
                    await serve(case, i)
                    writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(i)}\r\n\r\n{i}".encode())
                    await writer.drain()
            writer.close()

        server = await asyncio.start_server(connection, "127.0.0.1", PORT, backlog=4096)
        poller = None if ALONE else asyncio.ensure_future(poll())
        async with server:
            await server.serve_forever()
        return poller

    asyncio.run(main())


def run_threads():
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    import requests

    pool = concurrent.futures.ThreadPoolExecutor(8)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            _, case, i = self.path.split("/")
            call = functools.partial(requests.get, f"{BASE}/{case}/{i}/1", timeout=60)
            if case == "pool":
                pool.submit(call).result()
            else:
                call()
            self.send_response(200)
            self.send_header("Content-Length", str(len(i)))
            self.end_headers()
            self.wfile.write(i.encode())

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 1024
        daemon_threads = True

    Server(("127.0.0.1", PORT), Handler).serve_forever()


{"fastapi": run_fastapi, "aiohttp": run_aiohttp, "streams": run_streams, "threads": run_threads}[KIND]()
