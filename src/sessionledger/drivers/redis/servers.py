"""Where commands go: to the one server there is, or to the node of a cluster that has their key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, NoScriptError

from sessionledger.drivers.redis.errors import UnsentError, error_of
from sessionledger.drivers.redis.pool import Command, Pool
from sessionledger.drivers.redis.scripts import all_scripts
from sessionledger.errors import DriverError, UnavailableError

__all__ = ["Address", "Cluster", "Connect", "Request", "Servers", "Single"]


class Address(NamedTuple):
    host: str
    port: int


class Request(NamedTuple):
    """A command, and the key that tells which server gets it."""

    key: str
    command: Command


Connect = Callable[[Address], AbstractConnection]


class Servers(Protocol):
    async def send(self, requests: Sequence[Request]) -> list[Any]:
        """The answers, in order; an error of one command stands in its answer's place."""
        ...

    async def ask_all(self, command: Command) -> list[Any]:
        """The answers of all masters."""
        ...

    async def close(self) -> None: ...


async def _send(pool: Pool, commands: Sequence[Command]) -> list[Any]:
    """To one server. A script that it does not know yet is sent to it, and called again."""
    answers = await pool.send(commands)
    forgotten = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if forgotten:
        loading: list[Command] = [("SCRIPT", "LOAD", script.text) for script in all_scripts()]
        again = await pool.send([*loading, *(commands[at] for at in forgotten)])
        for at, answer in zip(forgotten, again[len(loading) :], strict=True):
            answers[at] = answer
    return answers


class Single:
    def __init__(self, connect: Connect, address: Address, size: int, patience: float) -> None:
        self._pool = Pool(lambda: connect(address), size, patience)

    async def send(self, requests: Sequence[Request]) -> list[Any]:
        return await _send(self._pool, [request.command for request in requests])

    async def ask_all(self, command: Command) -> list[Any]:
        return await self._pool.send([command])

    async def close(self) -> None:
        await self._pool.close()


class Cluster:
    """Knows which node has which slots, and learns it anew when a node says otherwise or is gone."""

    def __init__(self, connect: Connect, addresses: Sequence[Address], size: int, patience: float) -> None:
        self._connect, self._size, self._patience = connect, size, patience
        self._seeds = list(addresses)
        self._pools: dict[Address, Pool] = {}
        self._slots: list[tuple[int, int, Address]] = []
        self._moved: dict[int, Address] = {}

    async def send(self, requests: Sequence[Request]) -> list[Any]:
        if not self._slots:
            await self._learn()
        answers: list[Any] = [None] * len(requests)
        try:
            await self._send_each(requests, range(len(requests)), answers)
            redirected = [at for at, answer in enumerate(answers) if isinstance(answer, AskError)]
            if redirected:
                await self._follow(requests, redirected, answers)
        except BaseException:
            # a failed node may have been replaced
            self._slots = []
            raise
        return answers

    async def _send_each(self, requests: Sequence[Request], places: Iterable[int], answers: list[Any]) -> None:
        nodes: dict[Address, list[int]] = {}
        for at in places:
            nodes.setdefault(self._node_of(requests[at].key), []).append(at)

        async def send(address: Address, places: list[int]) -> None:
            found = await _send(self._pool(address), [requests[at].command for at in places])
            for at, answer in zip(places, found, strict=True):
                answers[at] = answer

        if len(nodes) == 1:
            await send(*next(iter(nodes.items())))
            return
        results = await asyncio.gather(*(send(*one) for one in nodes.items()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _follow(self, requests: Sequence[Request], redirected: Sequence[int], answers: list[Any]) -> None:
        """MOVED and ASK: nothing was done yet, somebody else has the slot, for good or for this key."""
        moved = []
        for at in redirected:
            answer = answers[at]
            if isinstance(answer, MovedError):
                self._moved[answer.slot_id] = Address(answer.host, answer.port)
                moved.append(at)
            else:
                commands: list[Command] = [("ASKING",), requests[at].command]
                pool = self._pool(Address(answer.host, answer.port))
                found = (await pool.send(commands))[1]
                if isinstance(found, NoScriptError):
                    loading: list[Command] = [("SCRIPT", "LOAD", script.text) for script in all_scripts()]
                    found = (await pool.send([*loading, *commands]))[-1]
                answers[at] = found
        if moved:
            await self._send_each(requests, moved, answers)
            # what else has moved is learned by the next call
            self._slots = []

    async def ask_all(self, command: Command) -> list[Any]:
        await self._learn()
        masters = dict.fromkeys(address for _, _, address in self._slots)
        return [answer for address in masters for answer in await self._pool(address).send([command])]

    async def _learn(self) -> None:
        failure: BaseException | None = None
        for address in dict.fromkeys([*self._seeds, *self._pools]):
            try:
                (answer,) = await self._pool(address).send([("CLUSTER", "SLOTS")])
            except (UnsentError, OSError, DriverError) as error:
                failure = error
                continue
            if isinstance(answer, Exception):
                raise error_of(answer, writing=False) from answer
            self._slots = [(first, last, _address(node, address)) for first, last, node, *_ in answer]
            self._moved = {}
            if self._slots:
                return
        if isinstance(failure, UnsentError) and failure.__cause__ is not None:
            raise error_of(failure.__cause__, writing=False) from failure.__cause__
        raise UnavailableError("no node of the Redis cluster can be reached: is it running?", driver="redis")

    def _node_of(self, key: str) -> Address:
        slot = key_slot(key.encode())
        if slot in self._moved:
            return self._moved[slot]
        for first, last, address in self._slots:
            if first <= slot <= last:
                return address
        raise UnavailableError(f"no node of the Redis cluster has the slot {slot}: try again", driver="redis")

    def _pool(self, address: Address) -> Pool:
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = Pool(lambda: self._connect(address), self._size, self._patience)
        return pool

    async def close(self) -> None:
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.close()


def _address(node: Sequence[Any], asked: Address) -> Address:
    """A node that does not know its own name is the one that was asked."""
    host = node[0].decode() if node[0] else ""
    return Address(asked.host if host in ("", "?") else host, node[1])
