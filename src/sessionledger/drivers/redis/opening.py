"""What is looked at when a store is opened: whether the servers will do, what they keep, and the schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sessionledger.drivers.redis.keys import Keys
from sessionledger.drivers.redis.scripts import all_scripts
from sessionledger.drivers.redis.servers import Request, Servers
from sessionledger.errors import DriverError, SchemaTooNewError
from sessionledger.records import Durability

__all__ = ["RANKS", "SCHEMA_VERSION", "inspect", "make_schema", "schema_version"]

SCHEMA_VERSION = 1
_OLDEST = (6, 2)
_WITH_WAITAOF = (7, 2)

#: From the least to the most.
RANKS = (Durability.MEMORY, Durability.PROCESS, Durability.INTERVAL, Durability.DISK)
_BY_FSYNC = {"always": Durability.DISK, "everysec": Durability.INTERVAL, "no": Durability.PROCESS}


async def inspect(servers: Servers, *, cluster: bool, wait_aof: bool) -> Durability:
    """What a commit survives on the weakest of the servers. `DriverError` where one of them would lose data."""
    reports = [_report(answer) for answer in await _ask_all(servers, "INFO", "everything")]
    for report in reports:
        _check(report, cluster=cluster, wait_aof=wait_aof)
    settings = await servers.ask_all(("CONFIG", "GET", "appendfsync"))
    kept = [_kept(*one, wait_aof=wait_aof) for one in zip(reports, settings, strict=True)]
    for script in all_scripts():
        await _ask_all(servers, "SCRIPT", "LOAD", script.text)
    return min(kept, key=RANKS.index)


async def _ask_all(servers: Servers, *command: str) -> list[Any]:
    answers = await servers.ask_all(command)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _report(answer: bytes) -> Mapping[str, str]:
    lines = (line.partition(":") for line in answer.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _check(report: Mapping[str, str], *, cluster: bool, wait_aof: bool) -> None:
    text = report.get("redis_version", "0")
    version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if version < _OLDEST:
        raise DriverError(f"the Redis server is version {text}: use 6.2 or later", driver="redis")
    if wait_aof and version < _WITH_WAITAOF:
        raise DriverError(
            f"the Redis server is version {text}, and wait_aof needs 7.2: leave the option out", driver="redis"
        )
    policy = report.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        raise DriverError(
            f"the Redis server's maxmemory-policy is {policy!r}, which throws sessions away when memory is short: "
            "set it to 'noeviction'",
            driver="redis",
        )
    if not cluster and report.get("cluster_enabled") == "1":
        raise DriverError(
            "the Redis server is a node of a cluster: use a URL of scheme redis+cluster, or the option cluster=true",
            driver="redis",
        )


def _kept(report: Mapping[str, str], setting: Any, *, wait_aof: bool) -> Durability:
    if report.get("aof_enabled") != "1":
        return Durability.MEMORY
    if wait_aof:
        return Durability.DISK
    if isinstance(setting, Exception) or len(setting) < 2:
        # nobody may ask, as with many a managed service: the least of what a log does
        return Durability.PROCESS
    return _BY_FSYNC.get(setting[1].decode(), Durability.PROCESS)


async def make_schema(servers: Servers, keys: Keys) -> None:
    """Once among all processes: each value stays as the first one has set it."""
    values = (("schema_version", SCHEMA_VERSION), ("min_reader", 1), ("min_writer", 1))
    requests = [Request(keys.meta, ("HSETNX", keys.meta, name, value)) for name, value in values]
    _raise_first(await servers.send(requests))
    await schema_version(servers, keys)


async def schema_version(servers: Servers, keys: Keys) -> int:
    """`SchemaTooNewError` when the keys ask for a newer release."""
    answers = await servers.send([Request(keys.meta, ("HGETALL", keys.meta))])
    _raise_first(answers)
    flat = answers[0]
    meta = {name.decode(): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
    least = max(meta.get("min_reader", 0), meta.get("min_writer", 0))
    if least > SCHEMA_VERSION:
        raise SchemaTooNewError(
            f"the Redis keys ask for schema {least}, this release knows {SCHEMA_VERSION}: upgrade sessionledger",
            found=least,
            known=SCHEMA_VERSION,
        )
    return meta.get("schema_version", SCHEMA_VERSION)


def _raise_first(answers: Sequence[Any]) -> None:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
