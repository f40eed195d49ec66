"""TARGET of the copy command at a gateway: `https://HOST:PORT/VOLUME`, with tokens from files."""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.compare import differences
from wavelift.blocks.compress import Compression
from wavelift.blocks.descriptor import DEFAULT_PACK_BYTES, SinkDescriptor
from wavelift.blocks.errors import SinkUnreachable
from wavelift.blocks.meter import WireMeter
from wavelift.blocks.remote_map import RemoteMap
from wavelift.blocks.sample import draw
from wavelift.blocks.sink import GIVE_UP_SECONDS, Sink, open_sink
from wavelift.blocks.taken import last_taken, mark_of
from wavelift.blocks.throttle import Flow
from wavelift.cli.footing import Attempt, Ranges
from wavelift.cli.report import Watch
from wavelift.cli.sample import DATA, ZEROES
from wavelift.cli.tables import Watched
from wavelift.cli.targets import TargetRefused
from wavelift.pinning import pin_of

POLL_SECONDS = 0.5
_MIGRATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class GatewayTarget:
    """A volume attached to a gateway. What it held before is the concern of whoever issued the write token."""

    compression = Compression.AUTO
    pack_bytes = DEFAULT_PACK_BYTES
    exists = True
    left = None

    def __init__(self, text: str, token_files: Sequence[Path], fingerprint: str, watch: Watch) -> None:
        """Raises `TargetRefused` for what cannot be a gateway's volume, or tokens for it."""
        self.text = text
        parts = urlsplit(text)
        self._volume = unquote(parts.path.strip("/"))
        if not parts.hostname or not self._volume or "/" in self._volume or parts.query or parts.username:
            raise TargetRefused(f"{text} names no volume of a gateway.", "Write https://HOST:PORT/VOLUME.")
        self._url = f"{parts.scheme}://{parts.netloc}"
        self._fingerprint = fingerprint
        try:
            pin_of(self._url, fingerprint)
        except ValueError as error:
            raise TargetRefused(
                f"The gateway {self._url} cannot be recognised: {error}.",
                "Give --fingerprint and the URL as the gateway prints them when it starts.",
            ) from None
        self._tokens = {scope: token for token, scope, _ in map(_read, token_files)}
        if "write" not in self._tokens:
            raise TargetRefused(
                f"A write token for {self._volume} is needed to copy to a gateway.",
                "Give the file that holds one: --token-file FILE.",
                code="token_missing",
            )
        self.migration = next(name for _, scope, name in map(_read, token_files) if scope == "write")
        self._stop = watch.stop
        self._meter = _Failures(watch)

    @property
    def id(self) -> str:
        return self._volume

    @property
    def modified(self) -> str:
        """Whose packs it took last. Raises `SinkError` and its kinds."""
        return last_taken(self._descriptor(1)).mark

    @property
    def newest(self) -> int:
        """Raises `SinkError` and its kinds: of a gateway that cannot be used, before anything is begun."""
        taken = last_taken(self._descriptor(1))
        return taken.generation if taken.migration == self.migration else 0

    def refuse_source(self, source: Path) -> None:
        """The gateway's disks are none of this machine's."""

    def require_verifiable(self, how: str) -> None:
        """Raises `TargetRefused` when this is not possible with these tokens."""
        if "control" not in self._tokens:
            raise TargetRefused(
                "Reading a gateway's volume back takes a control token of the migration.",
                "Give it too: a second --token-file. Or leave --verify out.",
                code="token_missing",
            )

    @contextmanager
    def held(self, size: int, ours: Callable[[str], bool]) -> Iterator[int]:
        """The gateway itself refuses a disk that is too large, before it writes any of it."""
        yield 0

    def sinks(self, generation: int, flow: Callable[[], Flow]) -> Callable[[], Sink]:
        return lambda: open_sink(self._descriptor(generation), self._stop, meter=self._meter, flow=flow())

    def unlike(self, attempt: Attempt, watch: Watch) -> Ranges | None:
        """What was sent and not acknowledged is sent again, if no other copy came in between."""
        own = mark_of(self.migration, attempt.generation, attempt.number)
        return [] if self.modified in (own, attempt.before) else None

    def keep(self, found: DiskMap, result: dict[str, Any], attempt: Attempt) -> None:
        """Raises `TargetRefused` when another copy wrote to the volume meanwhile."""
        own = mark_of(self.migration, attempt.generation, attempt.number)
        if self.modified not in (own, attempt.before):
            raise TargetRefused(
                f"Another copy wrote to {self.text} meanwhile: it holds a mixture.",
                "See to it that only one copies there, and repeat the command: all is sent again.",
                code="target_contested",
            )

    def differing(self, disk: str, generation: int, found: DiskMap, how: str, watch: Watch) -> Ranges:
        """What the gateway reads back, all of it or a sample, that is not what the map says."""
        if how == "sample":
            sample = draw(found, DATA, ZEROES, secrets.randbits(64), check=watch.check)
            blocks = [(offset, digest.hex()) for offset, digest in sample.blocks]
            (read,) = self._job("sample", disk, generation, found, watch, {"blocks": blocks})
            return [(each["offset"], each["offset"] + each["length"]) for each in read["differing"]]
        (read,) = self._job("verify", disk, generation, found, watch, {})
        if read["root"] == found.root.hex():
            return []
        with RemoteMap(lambda: self._descriptor(generation), self._stop) as lies:
            return list(differences(found, Watched(lies, watch), watch.check))

    def _job(
        self, kind: str, disk: str, generation: int, found: DiskMap, watch: Watch, more: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """What a job of the gateway says of the disk."""
        # It brings an HTTP library that nothing else here needs.
        from wavelift.service.client import ServiceClient

        wanted = {"disk": disk, "volume": self._volume, "size": found.size, **more}
        spec = {"kind": kind, "migration": self.migration, "generation": generation, "disks": [wanted]}
        # A job of an earlier copy may have its answer already, and it speaks of what the volume held then.
        key = f"{self.migration}/{generation}/{kind}-{disk}-{secrets.token_hex(8)}"
        with ServiceClient(self._url, self._tokens["control"], self._fingerprint) as client:
            job = client.submit(key, spec)
            while not job.state.final:
                watch.progress(total=found.size, done=job.progress.done_bytes)
                if watch.stop.wait(POLL_SECONDS):
                    client.cancel(key)
                watch.check()
                job = client.job(key)
        if job.result is None:
            code, message, remedy = ("cancelled", "The verification was cancelled.", "")
            if job.error is not None:
                code, message, remedy = job.error.code, job.error.message, job.error.remedy
            raise TargetRefused(message, remedy, code=code)
        return list(job.result["disks"])

    def discard(self) -> None:
        """What was written stays: nothing was made by the copy."""

    def _descriptor(self, generation: int) -> SinkDescriptor:
        return SinkDescriptor(
            url=self._url,
            fingerprint=self._fingerprint,
            volume=self._volume,
            generation=generation,
            token=self._tokens["write"],
        )


class _Failures(WireMeter):
    """Says why nothing moves, once, while packs are tried again."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch
        self._said: set[str] = set()

    def failed(self, code: str) -> None:
        super().failed(code)
        if code not in self._said:
            self._said.add(code)
            what = (
                "the gateway cannot be reached" if code == SinkUnreachable.default_code else f"the gateway says {code}"
            )
            self._watch.display.note(f"{what}: what was sent is tried again for up to {GIVE_UP_SECONDS:.0f} s")

    def delivered(self) -> None:
        super().delivered()
        self._said.clear()


def _read(path: Path) -> tuple[str, str, str]:
    """(token, scope, migration) of the token in a file. Whether it is valid is for the gateway to say."""
    try:
        token = path.read_text().strip()
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        scope, migration = str(claims["scope"]), str(claims["sub"])
    except OSError as error:
        raise TargetRefused(
            f"The token file {path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from None
    except (ValueError, KeyError, IndexError, TypeError, binascii.Error):
        raise TargetRefused(
            f"{path} holds no token of a gateway.", "Put a token that was issued with the gateway's key in it."
        ) from None
    # It becomes the name of a folder of the state.
    if not _MIGRATION.fullmatch(migration):
        raise TargetRefused(f"The token in {path} is for no usable migration.", "Have another one issued.")
    return token, scope, migration
