"""`/v1/traces`, `/v1/logs` and `/v1/metrics`: an OTLP request in, an OTLP answer out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from app.core.errors import BadRequest
from app.ingest.foreign.submit import Foreign, Opened, decoded
from app.ingest.otlp import decode, json
from app.ingest.otlp.agents import telling_in
from app.ingest.otlp.dialects import Who, link_of, telling_of
from app.ingest.otlp.intake import OtlpIntake
from app.ingest.otlp.spans import Attributes, Record, Span, is_id
from app.ingest.otlp.telling import NOBODY, Link, People, Spot, Telling
from app.ingest.otlp.values import object_in, text_in
from app.web.lean import LeanAnswer, LeanRequest, media_type

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_KINDS = (PROTOBUF, JSON, "application/protobuf")
_METADATA = "metadata"
"""Where OpenInference keeps what the application says of a call, as JSON."""
_TRACE_BYTES, _SPAN_BYTES = 16, 8
_WHERE = {
    "traces": "no span here has an id of its trace and its own; log records go to /v1/logs",
    "logs": "no record here has a time; spans go to /v1/traces",
}


class Heard(NamedTuple):
    """What a request tells: of model calls, whose child each other span is, and what has no id."""

    told: dict[Spot, Telling]
    links: dict[Spot, Link]
    nameless: int


class OtlpDoor:
    """Reads OpenTelemetry's requests; `users`, `teams` and `sessions` are names to look for."""

    def __init__(
        self,
        foreign: Foreign,
        intake: OtlpIntake,
        users: Sequence[str],
        teams: Sequence[str],
        sessions: Sequence[str],
    ) -> None:
        self._foreign, self._intake = foreign, intake
        self._names = users, teams, sessions

    async def traces(self, request: LeanRequest) -> LeanAnswer:
        """Record the model calls that spans tell of; other spans are accepted and ignored.

        Raises:
            AppError: as for any request in another program's format; nothing was recorded then.
        """
        opened, kind = await self._open(request)
        read = json.read_spans if kind == JSON else decode.read_spans
        heard = await decoded(opened.body, lambda body: self._from_spans(read(body)))
        return await self._answered(opened, "traces", kind, heard)

    async def logs(self, request: LeanRequest) -> LeanAnswer:
        """Record the model calls that log records tell of; as `traces`."""
        opened, kind = await self._open(request)
        read = json.read_records if kind == JSON else decode.read_records
        heard = await decoded(opened.body, lambda body: self._from_records(read(body)))
        return await self._answered(opened, "logs", kind, heard)

    async def metrics(self, request: LeanRequest) -> LeanAnswer:
        """Accept metrics: they repeat what spans and logs tell, so nothing is recorded of them."""
        opened, kind = await self._open(request)
        await decoded(opened.body, json.check_metrics if kind == JSON else decode.check_metrics)
        return _answer("metrics", kind, {})

    async def _open(self, request: LeanRequest) -> tuple[Opened, str]:
        kind = media_type(request, _KINDS)
        opened = await self._foreign.open(request)
        return opened, JSON if kind == JSON else PROTOBUF

    async def _answered(self, opened: Opened, signal: str, kind: str, heard: Heard) -> LeanAnswer:
        if heard.nameless and not heard.told and not heard.links:
            raise BadRequest.at("", _WHERE[signal])
        refused: Mapping[Spot, str] = {}
        if heard.told or heard.links:
            refused = await self._intake.submit(
                *(heard.told, heard.links, opened.key, opened.token, opened.version),
                opened.window,
            )
        return _answer(signal, kind, refused)

    def _from_spans(self, spans: Iterable[Span]) -> Heard:
        who = _remembering(self._who)
        heard = Heard({}, {}, 0)
        nameless = 0
        for span in spans:
            spot = (span.trace_id, span.span_id)
            if not (is_id(spot[0], _TRACE_BYTES) and is_id(spot[1], _SPAN_BYTES)):
                nameless += 1
                continue
            telling = telling_of(span, who)
            if telling is not None:
                heard.told[spot] = telling
            elif (link := link_of(span, who)) is not None:
                heard.links[spot] = link
        return heard._replace(nameless=nameless)

    def _from_records(self, records: Iterable[Record]) -> Heard:
        who = _remembering(self._who)
        told: dict[Spot, Telling] = {}
        timeless = 0
        for record in records:
            telling = telling_in(record, who)
            if telling is not None:
                told[telling.spot] = telling
            timeless += not record.time_ns
        return Heard(told, {}, timeless)

    def _who(self, attributes: Attributes) -> People:
        user, team, session = (text_in(attributes, names) for names in self._names)
        if not (user and session) and (inner := object_in(attributes, _METADATA)):
            user, team, session = (
                said or text_in(inner, names)
                for said, names in zip((user, team, session), self._names, strict=True)
            )
        return People(user, team, session) if user or team or session else NOBODY


def names_of(text: str) -> tuple[str, ...]:
    """Names that a setting lists, separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _remembering(who: Who) -> Who:
    """As `who`, looking once at the attributes that many spans share: those of their resource."""
    known: dict[int, tuple[Attributes, People]] = {}

    def find(attributes: Attributes) -> People:
        found = known.get(id(attributes))
        if found is None:
            found = known[id(attributes)] = (attributes, who(attributes))
        return found[1]

    return find


_Partial: Callable[[Mapping[str, object]], bytes] = msgspec.json.Encoder().encode


def _answer(signal: str, kind: str, refused: Mapping[Spot, str]) -> LeanAnswer:
    """The answer in the request's encoding: empty, or how many model calls were refused and why."""
    headers = ((b"content-type", kind.encode()),)
    if not refused:
        return LeanAnswer(200, b"{}" if kind == JSON else b"", headers)
    message = "; ".join(sorted(set(refused.values()))[:3])
    if kind != JSON:
        return LeanAnswer(200, decode.partial(signal, len(refused), message), headers)
    name = "rejectedSpans" if signal == "traces" else "rejectedLogRecords"
    body = _Partial({"partialSuccess": {name: str(len(refused)), "errorMessage": message}})
    return LeanAnswer(200, body, headers)
