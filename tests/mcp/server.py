"""An MCP server: `server.py stdio|sse|stateful|json|stateless BACKEND [PORT]`. Its tools call BACKEND over HTTP."""

import sys

import httpx

try:
    from mcp.server.fastmcp import FastMCP as Server
except ModuleNotFoundError:
    # So called from the library's second generation on.
    from mcp.server.mcpserver import MCPServer as Server

transport, backend = sys.argv[1], sys.argv[2]
port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
options = {"port": port, "json_response": transport == "json", "stateless_http": transport == "stateless"}
first = Server.__name__ == "FastMCP"
# Where it serves was said at first when it is made, is said now when it is run.
mcp = Server("tools", **options) if first else Server("tools")


@mcp.tool()
async def fetch(path: str, api_key: str = "") -> str:
    """Two calls, one after the other, on connections of their own."""
    async with httpx.AsyncClient() as client:
        await client.get(f"{backend}{path}/first")
        return (await client.get(f"{backend}{path}/second")).text


@mcp.tool()
def fetch_sync(path: str) -> str:
    """A call on the thread that runs the tool."""
    return httpx.get(f"{backend}{path}/sync").text


@mcp.tool()
def broken() -> str:
    """Fails."""
    raise ValueError("no such instrument")


@mcp.resource("data://prices")
def prices() -> str:
    """A resource."""
    return "1,2,3"


@mcp.prompt()
def analyse(symbol: str) -> str:
    """A prompt."""
    return f"Analyse {symbol}."


if transport in ("stdio", "sse"):
    mcp.run(transport)
else:
    mcp.run("streamable-http", **({} if first else options))
