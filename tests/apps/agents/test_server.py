"""The protocol, by a client of the same SDK: in this process, and against `workbench mcp` as a client starts it."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="the SDK is an extra of its own: pip install 'interp-workbench[agents]'")

import anyio
from mcp import Client, StdioServerParameters

from apps.agents.desk import Desk
from apps.agents.server import server
from apps.agents.tools import TOOLS
from probes import CATALOG
from workbench import load

ROOT = Path(__file__).resolve().parents[3]


def text_of(answer):
    return answer.content[0].text


async def asked(client) -> None:
    tools = (await client.list_tools()).tools
    assert [tool.name for tool in tools] == [tool.name for tool in TOOLS]
    found = await client.call_tool("run_analysis", {"name": "logit-lens", "prompt": [5, 9, 13, 5]})
    assert not found.is_error and json.loads(text_of(found))["analysis"] == "logit-lens"
    refused = await client.call_tool("run_analysis", {"name": "logit-lens", "promt": [5]})
    assert refused.is_error and text_of(refused).startswith("Got the argument 'promt' of run_analysis; expected ")
    again = await client.call_tool("describe_analysis", {"name": "explain"})
    assert not again.is_error and json.loads(text_of(again))["needs_a_prompt"] is True


def test_a_client_in_this_process():
    async def run():
        async with Client(server(Desk(lambda: load("toy-induction"), CATALOG))) as client:
            await asked(client)

    anyio.run(run)


@pytest.mark.slow
def test_a_client_that_starts_it():
    """Standard output carries the protocol alone: the client would fail on anything else."""
    started = StdioServerParameters(
        command=sys.executable, args=["-m", "apps.cli", "mcp", "--model", "toy-induction"], cwd=str(ROOT)
    )

    async def run():
        async with Client(started) as client:
            await asked(client)

    anyio.run(run)
