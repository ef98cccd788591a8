"""As client.py, with the library's second generation: `client2.py stdio|http TARGET N`."""

import asyncio
import json
import os
import shlex
import sys

from mcp import Client, MCPError, StdioServerParameters

transport, target, at_once = sys.argv[1], sys.argv[2], int(sys.argv[3])


def server():
    if transport == "stdio":
        command, *args = shlex.split(target)
        # The library hands on but a few variables, not the one that says where it is itself.
        return StdioServerParameters(command=command, args=args, env={"PYTHONPATH": os.environ["PYTHONPATH"]})
    return target


async def use(client):
    seen = {"protocolVersion": client.protocol_version}

    async def call(tool, arguments):
        result = await client.call_tool(tool, arguments)
        return {"isError": result.is_error, "text": result.content[0].text}

    seen["tools"] = [t.name for t in (await client.list_tools()).tools]
    for i in range(10):
        await call("fetch", {"path": f"/warm/{i}"})
    seen["fetch"] = await call("fetch", {"path": "/alone", "api_key": "hunter2-alone"})
    seen["fetch_sync"] = await call("fetch_sync", {"path": "/alone"})
    seen["broken"] = await call("broken", {})
    await client.list_resources()
    await client.read_resource("data://prices")
    await client.list_prompts()
    await client.get_prompt("analyse", {"symbol": "AAPL"})
    try:
        await client.read_resource("data://nothing")
    except MCPError as e:
        seen["error"] = {"code": e.error.code, "message": e.error.message}
    many = [call("fetch", {"path": f"/many/{i}"}) for i in range(at_once)]
    seen["many"] = [r["isError"] for r in await asyncio.gather(*many)]
    return seen


async def main():
    async with Client(server()) as client:
        print(json.dumps(await use(client)), flush=True)


asyncio.run(main())
