"""The tools over the Model Context Protocol, standard input and output only, by the official SDK (`mcp`)."""

import json
import threading
from functools import partial
from typing import Any

import anyio
from mcp import types
from mcp.server import Server
from mcp.server.stdio import stdio_server

from apps.agents.desk import Desk
from apps.agents.tools import TOOLS, answer
from workbench import __version__
from workbench.analysis.run import Failure

__all__ = ["serve", "server"]

_ABOUT = (
    "Looks inside one transformer language model. Start with list_analyses, describe_analysis and predict_cost; run "
    "one, then read_values. explain goes the whole way from a prompt to a tested circuit. Every error says what to do."
)


def server(desk: Desk) -> Server[Any]:
    """The server of a desk."""

    async def tools(context: Any, params: Any) -> types.ListToolsResult:
        listed = [types.Tool(name=one.name, description=one.about, input_schema=one.schema) for one in TOOLS]
        return types.ListToolsResult(tools=listed)

    async def call(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        cancelled = threading.Event()
        work = partial(_answered, desk, params.name, params.arguments, cancelled)
        try:
            text, failed = await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        finally:
            cancelled.set()  # of a call that was given up: its next pass is its last
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=failed)

    return Server("workbench", version=__version__, instructions=_ABOUT, on_list_tools=tools, on_call_tool=call)


def _answered(desk: Desk, name: str, given: Any, cancelled: threading.Event) -> tuple[str, bool]:
    """The answer as strict JSON, or the sentence of what went wrong, and whether it did."""
    try:
        return json.dumps(answer(desk, name, given, cancelled), allow_nan=False, ensure_ascii=False), False
    except Exception as error:  # one call must not end the others: its reason is its answer
        return Failure(name, name, error).sentence, True


def serve(desk: Desk) -> None:
    """Answer until the client is gone. Standard output carries the protocol alone."""

    async def run() -> None:
        made = server(desk)
        async with stdio_server() as (read, write):
            await made.run(read, write, made.create_initialization_options())

    anyio.run(run)
