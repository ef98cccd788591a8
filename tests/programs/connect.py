"""Connects in one of the ways that clients have, and prints what became of it.

    connect.py HOW HOST PORT
"""

import asyncio
import errno
import os
import select
import signal
import socket
import sys

how, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


resolve = socket.getaddrinfo


def both(name, *more, **keywords):
    """Resolves `both.test` as hosts do that name localhost twice, whatever this host does."""
    if name not in ("both.test", b"both.test"):
        return resolve(name, *more, **keywords)
    return resolve("::1", *more, **keywords) + resolve("127.0.0.1", *more, **keywords)


socket.getaddrinfo = both


def blocking():
    with socket.socket(family) as s:
        s.connect((host, port))


def nonblocking():
    with socket.socket(family) as s:
        s.setblocking(False)
        result = s.connect_ex((host, port))
        if result == errno.EINPROGRESS:
            select.select([], [s], [], 10)
            result = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            raise OSError(result, os.strerror(result))


async def async_streams():
    await asyncio.open_connection(host, port)


def with_httpx():
    import httpx

    return httpx.get(url).status_code


async def with_httpx_async():
    import httpx

    async with httpx.AsyncClient() as client:
        return (await client.get(url)).status_code


def with_requests():
    import requests

    return requests.get(url).status_code


async def with_aiohttp():
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        return reply.status


def refused(error):
    """Whether this, or anything it was made from, is a refusal."""
    if isinstance(error, ConnectionRefusedError) or "refused" in str(error) or "All connection attempts" in str(error):
        return True
    return any(refused(e) for e in (error.__cause__, error.__context__) if e is not None)


def attempt(act):
    try:
        result = act()
    except Exception as error:
        return "refused" if refused(error) else f"{type(error).__name__}: {error}"
    return "connected" if result is None else result


def listen():
    with socket.create_server((host, port), family=family):
        signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3))
        signal.pause()


match how:
    case "blocking":
        print(attempt(blocking))
    case "thrice":
        print({attempt(blocking) for _ in range(3)}.pop())
    case "nonblocking":
        print(attempt(nonblocking))
    case "asyncio":
        print(attempt(lambda: asyncio.run(async_streams())))
    case "httpx":
        print(attempt(with_httpx))
    case "httpx-async":
        print(attempt(lambda: asyncio.run(with_httpx_async())))
    case "requests":
        print(attempt(with_requests))
    case "aiohttp":
        print(attempt(lambda: asyncio.run(with_aiohttp())))
    case "errno":
        with socket.socket(family) as s:
            s.settimeout(1.2)
            try:
                s.connect((host, port))
            except TimeoutError:
                print("timeout")
            except OSError as error:
                print(errno.errorcode[error.errno])
    case "listen":
        listen()
    case _:
        sys.exit(f"no way {how}")
