"""The demo: `make demo`, or `python -m examples.shop --help`."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from examples.shop.demo.run import Run, run_shop
from examples.shop.demo.show import DemoError, say
from examples.shop.demo.summary import print_run, report
from examples.shop.demo.visit import stay_open
from examples.shop.order_book import OrderBook, read_orders
from examples.shop.orders_csv import OrdersFileError
from examples.shop.seeded import write_seeded

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Sequence

    from examples.shop.demo.processes import Fleet
    from linkspan.brokers.embedded import EmbeddedServer

MARK = ".linkspan-shop-demo"
"""Lies in folders that the demo may empty."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when everything adds up, 1 when it does not, 2 when it cannot run."""
    options = _options().parse_args(arguments)
    try:
        with _folder(options.data) as folder:
            book = _book(options, folder)
            visit = partial(_visit, book, folder, options) if options.serve else None
            run = uvloop.run(_stoppable(run_shop(book, folder, options.seed, visit)))
            if visit is None:
                _tell(run, book, folder, options)
            return exit_code(run, folder)
    except (OrdersFileError, DemoError) as error:
        print(f"shop: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.shop", description="A shop of six services, with faults, reconciled at the end."
    )
    parser.add_argument("--orders", type=Path, metavar="FILE", help="orders in the UCI Online Retail layout, .csv or .csv.gz")
    parser.add_argument("--seed", type=int, default=7, help="without a file: the seed of the orders, and of the faults")
    parser.add_argument("--count", type=int, default=1000, help="without a file: how many orders")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the picture as SVG too")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep databases and logs there; emptied at the start")
    parser.add_argument("--serve", action="store_true", help="stay up afterwards, with lines for curl and nats to paste")
    return parser


@contextmanager
def _folder(given: Path | None) -> Generator[Path]:
    """Give a fresh folder: a temporary one that goes away at the end, or `--data`, which stays but must be ours to empty."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="linkspan-shop-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    if given.exists() and any(given.iterdir()) and not (given / MARK).exists():
        raise DemoError(f"The folder '{given}' holds other files: give an empty one, or one of an earlier run.")
    shutil.rmtree(given, ignore_errors=True)
    given.mkdir(parents=True)
    (given / MARK).touch()
    yield given.absolute()


def _book(options: argparse.Namespace, folder: Path) -> OrderBook:
    path: Path = options.orders or folder / "orders.csv"
    if options.orders is None:
        say(f"Make {options.count} orders from seed {options.seed}")
        write_seeded(path, options.seed, options.count)
    else:
        say(f"Read {path}")
    book = read_orders(path)
    if not book.orders:
        raise OrdersFileError(f"'{path}' has no usable order: {len(book.rejected)} rows were rejected.")
    return book


async def _stoppable(work: Coroutine[None, None, Run]) -> Run:
    """Let Ctrl-C and SIGTERM end the work in good order: services drain, folders go away."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


async def _visit(book: OrderBook, folder: Path, options: argparse.Namespace, run: Run, services: Fleet, server: EmbeddedServer) -> None:
    _tell(run, book, folder, options)
    await stay_open(services, server)


def _tell(run: Run, book: OrderBook, folder: Path, options: argparse.Namespace) -> None:
    print_run(run, book, folder, options.svg)
    if options.report:
        options.report.write_text(json.dumps(report(run), indent=2) + "\n", encoding="utf-8")


def exit_code(run: Run, folder: Path, kept_in: Path | None = None) -> int:
    """Return 0 when everything adds up; else keep the databases and logs for whoever looks into it, and return 1."""
    if run.result.reconciled:
        return 0
    kept = kept_in or Path(tempfile.mkdtemp(prefix="linkspan-shop-failed-"))
    shutil.copytree(folder, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("run", kept.name))
    print(f"    databases and logs kept in {kept}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
