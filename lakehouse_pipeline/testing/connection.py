"""One client's connection: its requests, one after the other, each passed on, throttled, or met by its fault."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime

import h11

from lakehouse_pipeline.testing.asked import Asked, Dialect, keys_in
from lakehouse_pipeline.testing.body import BitFlip, Body, body_length
from lakehouse_pipeline.testing.error_answers import ErrorAnswer, error_answer, throttle_answer
from lakehouse_pipeline.testing.exchanges import THROTTLED, Exchange, ExchangeLog
from lakehouse_pipeline.testing.schedule import ERRORS, STAND_INS, Effect, Schedule, Shot
from lakehouse_pipeline.testing.throttle import Throttle
from lakehouse_pipeline.testing.upstream import Upstream
from lakehouse_pipeline.testing.wire import Wire

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """What all connections of a server share.

    Attributes:
        address: host and port of the upstream, and whether it speaks TLS.
        dialect: of requests and errors.
        schedule: the faults.
        throttle: S3's capacity; None: no limit.
        log: of exchanges.
        clock: seconds, monotonic, by which it throttles.
    """

    address: tuple[str, int, bool]
    dialect: Dialect
    schedule: Schedule
    throttle: Throttle | None
    log: ExchangeLog
    clock: Callable[[], float]


@dataclass
class _Course:
    """An exchange on its way."""

    request: h11.Request
    asked: Asked
    body: Body
    shot: Shot | None = None
    fault: str | None = None
    upstream_status: int | None = None
    bytes_out: int = 0
    error: str | None = None
    recorded: bool = False
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)

    def exchange(self, status: int | None) -> Exchange:
        """Give the record."""
        return Exchange(
            at=self.at,
            seconds=time.monotonic() - self.began,
            method=self.asked.method,
            path=self.asked.shown,
            verb=self.asked.verb,
            bytes_in=self.body.size,
            bytes_out=self.bytes_out,
            fault=self.fault,
            upstream_status=self.upstream_status,
            status=status,
            error=self.error,
        )

    def is_hit_by(self, effect: Effect) -> bool:
        """Tell whether that is its fault's effect."""
        return self.shot is not None and self.shot.fault.effect is effect


class Connection:
    """Serves one client until it leaves, or until a fault breaks the connection."""

    def __init__(self, service: Service, client: Wire) -> None:
        """Take over a client's connection."""
        self._service = service
        self._client = client
        self._upstream = Upstream(service.address)

    async def serve(self) -> None:
        """Serve it; both connections are closed at the end, whatever ends it."""
        try:
            while isinstance(request := await self._client.event(), h11.Request):
                await self._exchange(request)
                if not self._client.next_cycle():
                    break
            await self._client.close()
        except OSError:
            self._client.reset()  # the client broke off, or the upstream: then the client has to see the same
        except asyncio.CancelledError:
            self._client.reset()
            raise
        except Exception:
            logger.exception("the fault server itself failed")
            self._client.reset()  # else its client would wait for good
        finally:
            self._upstream.close()

    async def _exchange(self, request: h11.Request) -> None:
        asked = Asked(
            method=request.method.decode("ascii"),
            target=request.target.decode("latin-1"),
            headers=frozenset(name.decode("latin-1") for name, _ in request.headers),
            dialect=self._service.dialect,
        )
        course = _Course(request, asked, Body(self._client))
        try:
            await self._decide(course)
        except OSError as error:
            if not course.recorded:
                course.error = str(error) or type(error).__name__
                self._record(course, None)
            raise

    async def _decide(self, course: _Course) -> None:
        """Throttle a request, let its fault happen, or pass it on: in this order, as S3 throttles before all else."""
        asked = course.asked
        if await self._throttled(course):
            course.fault = THROTTLED
            await self._say(course, throttle_answer(asked.dialect))
            return
        shot = course.shot = self._service.schedule.take(asked)
        if shot is None:
            await self._pass(course)
            return
        course.fault = shot.fault.effect.value
        await (self._stand_in if shot.fault.effect in STAND_INS else self._pass)(course)

    async def _throttled(self, course: _Course) -> bool:
        throttle = self._service.throttle
        if throttle is None:
            return False
        content = await course.body.keep() if throttle.needs_body(course.asked) else b""
        return not throttle.admits(course.asked, content, self._service.clock())

    async def _stand_in(self, course: _Course) -> None:
        """Give something else in place of the upstream's answer."""
        shot = _of(course)
        refuses_keys = shot.fault.effect is Effect.KEYS_REFUSED
        keys = keys_in(await course.body.keep()) if refuses_keys else []
        if shot.fault.landed:
            response = await self._forward(course)
            course.upstream_status = response.status_code
            async with aclosing(self._upstream.answer()) as pieces:
                async for _ in pieces:
                    pass
        await asyncio.sleep(shot.fault.delay_s)
        if shot.fault.effect in ERRORS:
            answer = error_answer(shot.fault, course.asked.dialect)
            await self._say(course, answer, answer.body_of_keys(keys, landed=shot.fault.landed) if keys else None)
            return
        self._record(course, None)
        if shot.fault.effect is Effect.SILENCE:
            await self._client.gone()
        raise ConnectionResetError("reset by its fault")

    async def _say(self, course: _Course, answer: ErrorAnswer, content: bytes | None = None) -> None:
        """Say an error; a connection whose body was not asked for, or that S3 would close, is closed."""
        unread = self._client.client_waits
        if not unread:
            await course.body.drain()  # else its rest would be read as the next request
        content = content or answer.body(course.asked)
        closing = [("Connection", "close")] if unread or answer.status >= 500 else []  # noqa: PLR2004  # server errors
        framing = [] if course.asked.method == "HEAD" else [("Content-Length", str(len(content)))]
        head = h11.Response(
            status_code=answer.status,
            reason=answer.reason,
            headers=[*answer.headers(course.asked.dialect), *framing, *closing],
        )
        events: list[h11.Response | h11.Data | h11.EndOfMessage] = [head, h11.EndOfMessage()]
        if framing:
            events.insert(1, h11.Data(data=content))
            course.bytes_out = len(content)
        with self._service.log.answering():
            self._record(course, answer.status)
            await self._client.send(*events)
        if unread:
            await self._client.linger()

    async def _pass(self, course: _Course) -> None:
        """Forward it and hand the answer on, late or damaged if its fault says so."""
        landed = course.shot is not None and course.shot.fault.landed
        if not landed:
            await self._wait(course)
        response = await self._forward(course)
        course.upstream_status = response.status_code
        if landed:
            await self._wait(course)
        with self._service.log.answering():
            try:
                await self._relay(course, response)
            except OSError as error:
                course.error = None if course.is_hit_by(Effect.CUT) else str(error)
                raise
            finally:
                self._record(course, response.status_code)

    async def _wait(self, course: _Course) -> None:
        if course.shot:
            await asyncio.sleep(course.shot.fault.delay_s)
        if course.is_hit_by(Effect.HOLD):
            await course.body.keep()  # so that it can be forwarded after its client has gone
            await _of(course).armed.hold()

    async def _forward(self, course: _Course) -> h11.Response:
        spoil = None
        if course.is_hit_by(Effect.FLIP_REQUEST):
            spoil = BitFlip(_of(course).luck, body_length(course.request))
        return await self._upstream.forward(course.request, course.body, spoil)

    def _record(self, course: _Course, status: int | None) -> None:
        course.recorded = True
        self._service.log.record(course.exchange(status))

    async def _relay(self, course: _Course, response: h11.Response) -> None:
        length = body_length(response)
        spoil = BitFlip(_of(course).luck, length) if course.is_hit_by(Effect.FLIP_ANSWER) else None
        most = (length or 0) // 2 if course.is_hit_by(Effect.CUT) else None
        head = h11.Response(
            status_code=response.status_code, reason=response.reason, headers=response.headers.raw_items()
        )
        events: list[h11.Response | h11.Data | h11.EndOfMessage] = [head]
        async with aclosing(self._upstream.answer()) as pieces:
            async for piece in pieces:
                cut = piece if most is None else piece[: most - course.bytes_out]
                course.bytes_out += len(cut)
                await self._client.send(*events, h11.Data(data=spoil(cut) if spoil else cut))
                events = []
                if most is not None and course.bytes_out >= most:
                    break
        if most is not None:
            await self._client.send(*events)
            await self._client.flush()
            raise ConnectionResetError("cut by its fault")
        await self._client.send(*events, h11.EndOfMessage())


def _of(course: _Course) -> Shot:
    if course.shot is None:
        raise AssertionError("only a fault leads here")
    return course.shot
