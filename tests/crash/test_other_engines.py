"""A sample of the crash matrix on PostgreSQL, with three NATS servers and with Kafka; `make proof` tries all points on them.

Both systems run side by side: what takes most of their time is the lease of the instances that died.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.crash.matrix import run_one
from tests.crash.shared import of_kafka, of_nats
from tests.crash.topology import engines, postgres_kafka, postgres_nats

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.crash.matrix import Place, Result

SAMPLE = {
    "postgres-nats": "orders=relay.publish.after:3:kill+ledger=inbox.claim.before:9:exit",
    "postgres-kafka": "orders=store.commit.after:9:exit+ledger=broker.ack.before:9:kill",
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Result | str]:
    """Return what became of each topology's run, or why it was not run."""
    folder = tmp_path_factory.mktemp("sample")
    with ExitStack() as stack:
        there, missing, server = stack.enter_context(engines(list(SAMPLE)))
        places: dict[str, Place] = {
            "postgres-nats": partial(postgres_nats, server=server, clusters=stack.enter_context(of_nats(folder, 3))),
            "postgres-kafka": partial(postgres_kafka, server=server, clusters=stack.enter_context(of_kafka(folder, 1))),
        }
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        return missing | runner.run(_run({name: places[name] for name in there}, folder))


async def _run(places: Mapping[str, Place], folder: Path) -> dict[str, Result | str]:
    runs = [run_one(SAMPLE[name], folder / name, on) for name, on in places.items()]
    return dict(zip(places, await asyncio.gather(*runs), strict=True))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("topology", SAMPLE)
def test_crash_of_both_services_breaks_no_promise(topology: str, sample: Mapping[str, Result | str]) -> None:
    found = sample[topology]
    if isinstance(found, str):
        pytest.skip(f"not run: {found}")

    assert found.violations == []
    assert found.died == 2
