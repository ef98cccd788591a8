"""The service of the end-to-end tests as a bare ASGI application: what it answers is in the path.

/c/CLIENT/N/bytes/SIZE, /echo, /chunked/PARTS/SIZE, /status/CODE, /slow/MS
"""

import asyncio


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    words = scope["path"].split("/")[4:]
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    status, reply, chunks = 200, b"", None
    match words:
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
            await asyncio.sleep(int(ms) / 1000)
            reply = b"slow"
        case _:
            status, reply = 404, b"nothing here"
    headers = [(b"content-type", b"application/octet-stream")]
    if chunks is None and status not in (204, 304):
        headers.append((b"content-length", str(len(reply)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if scope["method"] == "HEAD":
        reply, chunks = b"", None
    for chunk in chunks or []:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if chunks is not None else reply})
