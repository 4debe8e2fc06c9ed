"""The application: one or many services in a process, with the engines they share. The only thing that users start."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from linkspan.attestation import Attestation, floor_of
from linkspan.blobsweep import sweeping
from linkspan.brokers import broker_for, check_address, shown_address
from linkspan.claimcheck import ClaimCheck, place_by_default
from linkspan.client import Caller, Client, check_addresses
from linkspan.entrances import Entrances
from linkspan.errors import SetupError
from linkspan.handler import check_streams
from linkspan.lanes import instance_name
from linkspan.letters.turns import Turns
from linkspan.middleware import Deadline, Tracing
from linkspan.outgoing.outbox import Relay
from linkspan.outgoing.outbox_shared import SharedRelay
from linkspan.outgoing.schedule import Timetable
from linkspan.owner import check_owners
from linkspan.places import Places, addresses_of
from linkspan.readiness import Readiness
from linkspan.routes import check_overlaps
from linkspan.running import RunningService
from linkspan.runtime import calm_collector, system
from linkspan.signals import run_until_signal
from linkspan.stores import open_store, own_url
from linkspan.transport.grpc_address import check_installed
from linkspan.transport.tls import Tls
from linkspan.transport.web import Web

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
    from types import TracebackType

    from linkspan.brokers.embedded import EmbeddedServer
    from linkspan.claimcheck import Blobs
    from linkspan.handler import Middleware
    from linkspan.operation import Operation
    from linkspan.owner import Owns
    from linkspan.ports import BlobPlace, Broker, Drift, Durability, Runtime, Store
    from linkspan.running import ServiceTransaction
    from linkspan.service import Service
    from linkspan.transport.mount import Mounted

__all__ = ["App"]

_log = logging.getLogger("linkspan.app")

DRAIN = 25.0
"""Seconds that draining may take; orchestrators commonly kill after 30."""
CALLS = 20.0
"""Seconds of them that calls under way get to finish, so that some are left to flush what they published."""


class App:
    """Runs services: `async with App(orders, mail) as app`, or `linkspan run module:app`.

    Each setting falls back to its environment variable, then to what needs no set-up.

    Args:
        services: The services; each gets a database of its own.
        broker: `nats://host:port,host:port`, or `memory://` (LINKSPAN_BROKER). Default: an embedded NATS server in the data directory.
        store: The template of database URLs (LINKSPAN_STORE), default `sqlite:///<data>/{service}.db`; or `postgresql://user@host/db`.
        http: `host:port` of the direct path (LINKSPAN_HTTP), default `127.0.0.1:8080`; port 0 takes a free one.
        tls: Certificate, key and CAs (LINKSPAN_TLS_CERT, _KEY, _CLIENT_CA, _CA); with a certificate the direct path is https.
        grpc: `host:port` for gRPC peers (LINKSPAN_GRPC), default none; needs the extra `grpc`.
        probes: `host:port` for `/livez`, `/readyz` and `/startupz` alone (LINKSPAN_PROBES), open from the first moment to the last.
            They are answered at `http` too, while that is open.
        addresses: Where services of other processes answer: service name, contract, package or `*` to `http://host:port` or
            `grpc://host:port`, or `rest+http://host:port` for REST services (LINKSPAN_ADDRESSES: `orders=http://127.0.0.1:8081,…`).
        web: What the HTTP port does for browsers and tools (LINKSPAN_ORIGINS, LINKSPAN_OPENAPI), default nothing.
        blobs: Where large contents are kept, a URL or a `Blobs` (LINKSPAN_BLOBS). Default: `<data>/blobs` beside the embedded server.
        data: The folder of embedded engines and databases (LINKSPAN_DATA), default `.linkspan`.
        durability: What engines have to promise: `power`, `process` or `any` (LINKSPAN_DURABILITY), default `process`. Less is refused.
        middleware: Replaces the default middleware, tracing and deadline.
        overrides: Resources by type, in the place of the lifespans' (tests).
        runtime: Clock, random source and ids (tests).
    """

    def __init__(  # noqa: PLR0913 - settings, all with defaults
        self,
        *services: Service,
        broker: str | Broker | None = None,
        store: str | None = None,
        http: str | None = None,
        grpc: str | None = None,
        probes: str | None = None,
        tls: Tls | None = None,
        addresses: Mapping[str, str] | None = None,
        web: Web | None = None,
        blobs: str | Blobs | BlobPlace | None = None,
        data: str | FilePath | None = None,
        durability: str | None = None,
        middleware: Sequence[Middleware] | None = None,
        overrides: Mapping[type[Any], object] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.services = services
        self._settings: dict[str, Any] = {
            "broker": broker,
            "store": store,
            "http": http,
            "addresses": addresses,
            "web": web,
            "blobs": blobs,
            "data": data,
            "durability": durability,
            "middleware": middleware,
            "overrides": overrides,
            "runtime": runtime,
        }
        self.data = FilePath(data or os.environ.get("LINKSPAN_DATA") or ".linkspan")
        self._broker_given = broker or os.environ.get("LINKSPAN_BROKER") or ""
        self._store_template = store or os.environ.get("LINKSPAN_STORE") or ""
        self._places = Places.given(http, grpc, probes)
        self._addresses = {**addresses_of(os.environ.get("LINKSPAN_ADDRESSES", "")), **(addresses or {})}
        self.tls = tls or Tls.from_environment()
        self.middleware = (Tracing(), Deadline()) if middleware is None else tuple(middleware)
        self.overrides = overrides or {}
        self.runtime = runtime or system()
        self.claims = ClaimCheck(blobs or place_by_default(self.data, embedded=self._broker_given in {"", "embedded"}), self.runtime)
        self._stack: AsyncExitStack | None = None
        self.running: dict[str, RunningService] = {}
        self.stores: dict[str, Store] = {}
        self._relays: dict[str, Relay] = {}
        self.timetables: list[Timetable] = []
        self.readiness = Readiness()
        self._turns = Turns()
        self.attestation = Attestation(floor_of(durability), self.runtime.clock)
        self._entrances = Entrances(self.runtime, self._places, self.readiness, web=web or Web.from_environment(), tls=self.tls)
        self._instance = ""
        self.broker: Broker | None = None
        self.embedded: EmbeddedServer | None = None
        self.drifts: list[Drift] = []
        self.ack_wait = 30.0  # seconds until the embedded broker gives up on a reader; many where one may stand at a breakpoint
        self._caller: Caller | None = None
        self.started = asyncio.Event()
        self.open_store = open_store  # simulated time puts its own in the place
        self.check()

    def check(self) -> None:
        """Refuse what could not run, before anything is opened. Raises `SetupError`."""
        check_addresses(self._addresses)
        if self._places.grpc is not None:
            check_installed("App(grpc=...)")
        self._check_broker()
        names = [service.name for service in self.services]
        for name in names:
            if names.count(name) > 1:
                raise SetupError(f"Two services are called '{name}': rename one.")
        self.claims.check(self.services)
        owners: dict[str, str] = {}
        for service in self.services:
            service.check()
            self._check_sharing(service)
            for handled in service.operations.values():
                if handled.operation is not None:
                    check_streams((*self.middleware, *service.middleware), handled.operation)
            for contract in service.contracts:
                other = owners.setdefault(contract.full_name, service.name)
                if other != service.name:
                    raise SetupError(f"'{contract.full_name}' is implemented by '{other}' and by '{service.name}': keep one.")
        check_owners((service.name, service.owned, service.contracts) for service in self.services)
        operations = [operation for service in self.services for contract in service.contracts for operation in contract.operations]
        check_overlaps((operation.full_name, route) for operation in operations for route in operation.routes)

    def _check_sharing(self, service: Service) -> None:
        sharing = self._sharing(service)
        if len(sharing) > 1 and any(each.store is None for each in sharing):
            shared = " and ".join(f"'{each.name}'" for each in sharing)
            raise SetupError(f"The services {shared} would share a store: put {{service}} into it, or name it in each Service.")

    def _check_broker(self) -> None:
        if isinstance(self._broker_given, str):
            check_address(self._broker_given)

    def variant(self, *more: Service, inner: Sequence[Middleware] = (), **settings: Any) -> App:
        """Return an app of the same services, and of `more`, with other settings and with middleware inside the present one's."""
        other = App(*self.services, *more, **{**self._settings, **settings})
        other.middleware = (*other.middleware, *inner)
        return other

    def settings(self) -> dict[str, Any]:
        """Return what the app was told, without passwords, for people to read."""
        layers = [getattr(layer, "__name__", type(layer).__name__) for layer in self.middleware]
        return {
            "broker": shown_address(self._broker_given or "embedded"),
            **self._places.settings(),
            "tls": ("mutual" if self.tls.client_ca else "on") if self.tls.cert else "off",
            "data": str(self.data),
            "addresses": dict(self._addresses),
            "middleware": layers,
        }

    def store_url(self, service: Service) -> str:
        """Return the URL of a service's database."""
        template = service.store or self._store_template or f"sqlite:///{quote(str(self.data))}/{{service}}.db"
        return own_url(template.replace("{service}", service.name), service.name)

    def _sharing(self, service: Service) -> list[Service]:
        """Return the services whose store this one has."""
        url = self.store_url(service)
        return [each for each in self.services if self.store_url(each) == url]

    def migrations(self, service: Service) -> list[tuple[str, str]]:
        """Return the `(name, sql)` scripts of a service's database, those of the services that share it included."""
        return [(f"{each.name}/{name}", sql) for each in self._sharing(service) for name, sql in each.scripts()]

    # --- life ---

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def start(self, only: Collection[str] = (), *, listen: bool = True) -> None:
        """Open the engines and run the services, or just those named in `only`; without `listen`, on no port of their own.

        Raises `SetupError`, or `Error(UNAVAILABLE)` for an engine that is away.
        """
        if self._stack is not None:
            raise SetupError("The app is running already: start it once.")
        unknown = set(only) - {service.name for service in self.services}
        if unknown:
            raise SetupError(f"There is no service '{min(unknown)}' in this app: name one of {', '.join(s.name for s in self.services)}.")
        stack = self._stack = AsyncExitStack()
        self._entrances.listens = listen
        try:
            await self._open(stack, [service for service in self.services if not only or service.name in only])
        except BaseException:
            self._stack = None
            await stack.aclose()
            self._forget()
            raise

    async def _open(self, stack: AsyncExitStack, services: Sequence[Service]) -> None:
        await self._entrances.open_probes(stack)
        self.broker = await self._open_broker(stack)
        # Not in a thread beside it: under pytest, which rewrites what it imports, two threads that parse at once fail (CPython 3.11).
        import_module("linkspan.transport.server")
        self._caller = Caller(self.runtime, {}, self.middleware, self.tls)
        stack.push_async_callback(self._caller.aclose)
        await stack.enter_async_context(self.claims.opened())
        for service in services:
            await self._open_service(stack, service)
        running = self.running.values()
        topics = sorted({topic for each in running for topic in each.topics})
        alone = [group for each in running for group in each.groups if each.lanes is None]
        shared = [group for each in running for group in each.groups if each.lanes is not None]
        self.drifts = await self.broker.declare(topics, alone)
        if shared:
            self.drifts += await self.broker.declare([], shared, lanes=True)
        for reader in (reader for each in running for reader in each.foreign):
            self.drifts += await reader.declare()
        for drift in self.drifts:
            fields = {"what": drift.what, "setting": drift.setting, "declared": drift.declared, "found": drift.found}
            _log.warning("The broker has other settings than declared; they are left as they are.", extra=fields)
        stack.push_async_callback(self.attestation.aclose)
        await self.attestation.start({"broker": self.broker.attest, **{f"store of {s.name}": s.attest for s in self.stores.values()}})
        for relay in self._relays.values():
            await relay.start()
        for timetable in self.timetables:
            timetable.start()
        await stack.enter_async_context(sweeping(self.claims, {each.name: each.store for each in running}, self.runtime))
        await self._entrances.open(stack, running)
        self._caller.addresses.update(self.known_addresses())
        for each in running:
            await each.start()
        stores = [(store, self._relays[url]) for url, store in self.stores.items()]
        self.readiness.start(self.broker, stores, self.attestation, running)
        calm_collector()
        self.started.set()
        _log.info("Running.", extra={"services": list(self.running), "address": self.address})

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Broker]:
        """Open just the broker, beside a running app or without one."""
        async with AsyncExitStack() as stack:
            yield await self._open_broker(stack)

    async def _open_broker(self, stack: AsyncExitStack) -> Broker:
        given = self._broker_given
        if not given or given == "embedded":
            from linkspan.brokers.embedded import embedded_nats  # noqa: PLC0415 - only where it is used

            self.embedded = server = await stack.enter_async_context(embedded_nats(self.data / "nats"))
            broker = broker_for(
                server.url,
                self.runtime,
                user=server.user,
                password=server.password,
                options={"sync_interval": server.sync, "ack_wait": self.ack_wait},
            )
        elif isinstance(given, str):
            broker = broker_for(given, self.runtime)
        else:
            return given
        await broker.open()
        stack.push_async_callback(broker.aclose)
        return broker

    async def _open_service(self, stack: AsyncExitStack, service: Service) -> None:
        url = self.store_url(service)
        store = self.stores.get(url)
        if store is None:
            store = self.stores[url] = self.open_store(url, name=service.name, runtime=self.runtime)
            await store.open()
            stack.push_async_callback(store.aclose)
            assert self.broker is not None  # noqa: S101 - opened before
            self._instance = self._instance or (instance_name(self.runtime) if store.shared else "")
            relay = (
                SharedRelay(store, self.broker, self.runtime, self._instance) if store.shared else Relay(store, self.broker, self.runtime)
            )
            self._relays[url] = relay
            stack.push_async_callback(self._relays[url].aclose)
            self.timetables.append(Timetable(store, self._relays[url], self.runtime))
            stack.push_async_callback(self.timetables[-1].aclose)
            for each in self._sharing(service):
                for topic, batches in each.batched.items():
                    self._relays[url].batch(topic, batches)
            await store.migrate(self.migrations(service))
        assert self.broker is not None  # noqa: S101 - opened before
        assert self._caller is not None  # noqa: S101 - made before
        running = RunningService(
            service,
            runtime=self.runtime,
            store=store,
            relay=self._relays[url],
            broker=self.broker,
            caller=self._caller,
            claims=self.claims,
            middleware=self.middleware,
            turns=self._turns,
            retention=max(each.retention for each in self._sharing(service)),
            instance=self._instance,
        )
        if service.lifespan is not None:
            running.provide(await stack.enter_async_context(service.lifespan()))
        running.override(self.overrides)
        stack.push_async_callback(running.aclose)  # before its resources close
        self.running[service.name] = running

    def known_addresses(self) -> dict[str, str]:
        """Return contract, package or `*` to address: what was configured, by service name too, and what runs here."""
        known: dict[str, str] = {}
        by_name = {service.name: service for service in self.services}
        for name, address in self._addresses.items():
            if name in by_name:
                known.update({contract.full_name: address for contract in by_name[name].contracts})
            else:
                known[name] = address
        return {**known, **self._own_addresses(self._entrances.own_address)}

    def known_address(self, operation: Operation[Any, Any]) -> str:
        """Return where an operation answers by these settings, empty where only a start would tell."""
        known = self.known_addresses()
        for name in (operation.service_name, operation.package, "*"):
            if name in known:
                return known[name]
        served = any(operation in contract.operations for each in self.services for contract in each.contracts)
        host, port = self._places.http
        return f"http://{host}:{port}" if served and port else ""

    def _own_addresses(self, address: str) -> dict[str, str]:
        """Return the contracts that are implemented here, at an address."""
        own = [contract.full_name for each in self.running.values() for contract in each.declared.contracts]
        return dict.fromkeys(own, address) if address else {}

    async def aclose(self) -> None:
        """Drain, then close: stop taking, finish, flush, acknowledge, close. Idempotent."""
        stack, self._stack = self._stack, None
        if stack is None:
            return
        try:
            await self._drain()
        finally:
            await stack.aclose()
            self._forget()

    async def _drain(self) -> None:
        self.readiness.drain()
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(DRAIN):
                    await asyncio.gather(*(timetable.aclose() for timetable in self.timetables))
                    if self._caller is not None:
                        self._caller.move(self._own_addresses(await self._entrances.keep_own(stack)))
                    await asyncio.gather(self._entrances.drain(CALLS), *(each.drain() for each in self.running.values()))
                    await asyncio.gather(*(relay.flush() for relay in self._relays.values()))
            except TimeoutError:
                waiting = sum(relay.waiting for relay in self._relays.values())
                _log.warning("Draining took too long; the rest goes on at the next start.", extra={"outbox": waiting})

    def _forget(self) -> None:
        self.started = asyncio.Event()
        self.running, self.stores, self._relays, self.timetables = {}, {}, {}, []
        self._entrances.forget()
        self.readiness.forget()
        self.broker = self.embedded = self._caller = None

    async def run(self, only: Collection[str] = ()) -> None:
        """Start, serve until SIGTERM or SIGINT, then drain and close. A signal while starting, or a second one, ends it at once."""
        await run_until_signal(self, only)

    # --- inside another application ---

    def asgi(self) -> Mounted:
        """Return this app as an ASGI application, the same one each time; it starts and ends with the lifespan.

        For any ASGI server (`asgi = app.asgi()` in a module, then `uvicorn module:asgi`), or to be mounted: see `mount_on`.
        """
        return self._entrances.mounted(self.lifespan, running=self._stack is not None)

    @asynccontextmanager
    async def lifespan(self, _outer: object = None) -> AsyncGenerator[None]:
        """Run inside another application: `FastAPI(lifespan=app.lifespan)`, or `async with app.lifespan():` in a lifespan of yours.

        Its own port is opened only where `http` or LINKSPAN_HTTP names it.
        """
        await self.start(listen=self._places.told)
        try:
            yield
        finally:
            await self.aclose()

    def mount_on(self, outer: Any, path: str) -> None:
        """Mount on a Starlette or FastAPI application below `path`, and run inside its lifespan, the one that it has included."""
        from linkspan.transport.mount import mount_on  # noqa: PLC0415 - only where it is used

        mount_on(outer, path, self.asgi(), self.lifespan)

    # --- use ---

    def wrap(self, layer: Middleware) -> None:
        """Put a middleware around all others; before the start."""
        self.middleware = (layer, *self.middleware)

    @property
    def address(self) -> str:
        """Return where the direct path answers, empty where nothing is served."""
        return self._entrances.address

    @property
    def probes_address(self) -> str:
        """Return where nothing but probes is answered, empty where that was not asked for."""
        return self._entrances.probes_address

    @property
    def grpc_address(self) -> str:
        """Return where gRPC peers are answered, empty where none are."""
        return self._entrances.grpc_address

    def transaction(self, service: Service) -> ServiceTransaction:
        """Work as a service outside of its handlers: `async with app.transaction(orders) as ctx: await ctx.publish(...)`."""
        if service.name not in self.running:
            raise SetupError(f"Service '{service.name}' does not run here: start the app with it.")
        return self.running[service.name].transaction()

    def client(self, name: str = "client", *, owns: Owns = ()) -> Client:
        """Return a client of this app's broker and addresses; `owns` as in `Client`."""
        if self.broker is None:
            raise SetupError("The app is not running: use its client inside `async with app`.")
        shared: dict[str, Any] = {"middleware": self.middleware, "runtime": self.runtime, "tls": self.tls, "blobs": self.claims}
        return Client(self.broker, addresses=self.known_addresses(), name=name, owns=owns, **shared)

    async def attest(self) -> list[Durability]:
        """Ask each engine what its acknowledgements are worth."""
        if self.broker is None:
            raise SetupError("The app is not running: start it first.")
        return [await self.broker.attest(), *[await store.attest() for store in self.stores.values()]]
