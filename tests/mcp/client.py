"""An MCP client: `client.py stdio|sse|http TARGET N`, where TARGET is a URL, or for stdio the server's command line.

Uses a tool ten times and everything once, then N tools at a time. Says on standard output what it saw, as JSON."""

import asyncio
import json
import shlex
import sys

from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client

transport, target, at_once = sys.argv[1], sys.argv[2], int(sys.argv[3])


def connect():
    if transport == "stdio":
        command, *args = shlex.split(target)
        return stdio_client(StdioServerParameters(command=command, args=args))
    return sse_client(target) if transport == "sse" else streamablehttp_client(target)


async def use(session):
    seen = {}

    async def call(tool, arguments):
        result = await session.call_tool(tool, arguments)
        return {"isError": result.isError, "text": result.content[0].text}

    seen["protocolVersion"] = (await session.initialize()).protocolVersion
    seen["tools"] = [t.name for t in (await session.list_tools()).tools]
    # How a young process works is learnt from its first requests.
    for i in range(10):
        await call("fetch", {"path": f"/warm/{i}"})
    seen["fetch"] = await call("fetch", {"path": "/alone", "api_key": "hunter2-alone"})
    seen["fetch_sync"] = await call("fetch_sync", {"path": "/alone"})
    seen["broken"] = await call("broken", {})
    await session.list_resources()
    await session.read_resource("data://prices")
    await session.list_prompts()
    await session.get_prompt("analyse", {"symbol": "AAPL"})
    try:
        await session.read_resource("data://nothing")
    except McpError as e:
        seen["error"] = {"code": e.error.code, "message": e.error.message}
    many = [call("fetch", {"path": f"/many/{i}"}) for i in range(at_once)]
    seen["many"] = [r["isError"] for r in await asyncio.gather(*many)]
    return seen


async def main():
    async with connect() as (read, write, *_), ClientSession(read, write) as session:
        print(json.dumps(await use(session)), flush=True)


asyncio.run(main())
