"""The API's paths, and how it describes itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from cancellations import __version__
from cancellations.bootstrap import App
from cancellations.ports import Reason
from cancellations.usecases.serve import Answer, Asked
from deployments.api.gate import OPEN, Gate
from deployments.api.measures import Measures
from deployments.api.problems import Problem, Told, failure
from deployments.api.reservations import EXAMPLE, Reader
from deployments.api.service import Service
from deployments.console import plain

DESCRIPTION = """\
How likely each reservation is cancelled, by the version that the promotion ledger names. What a reservation says is
held to the rules by which rows are loaded; what is known of agents, companies and other bookings comes from the store.
Answers are recorded once for each reservation and version, the same as a batch would have scored it."""


@dataclass(frozen=True)
class Prediction:
    """Of one reservation. `arm`: whose answer it gets while a trial runs. `hold_out`: nobody is to act upon it.
    `stored`: it rests on what the store has of the reservation. `recorded`: false where `record` was, and for one that
    may have been learnt from."""

    reservation_id: str
    probability: float
    version: str
    arm: str | None
    hold_out: bool
    stored: bool
    recorded: bool
    reasons: list[Reason] | None = None


@dataclass(frozen=True)
class Predictions:
    """In the order of the reservations."""

    request_id: str
    predictions: list[Prediction]


@dataclass(frozen=True)
class Ready:
    """Whether it can answer; to whom shows a token, who answers, and what is wrong."""

    ready: bool
    champion: str | None = None
    rival: str | None = None
    epoch: int | None = None
    problem: str | None = None
    slow: str | None = None


@dataclass(frozen=True)
class Health:
    status: str = "ok"


@dataclass(frozen=True)
class ModelFacts:
    """Who is champion and why: `change`, `reason`, `by` and `as_of` are of the ledger's row that made it so."""

    version: str
    epoch: int
    challenger: str | None
    change: str | None
    reason: str | None
    by: str | None
    as_of: str | None
    trained_as_of: str
    recipe: str
    data_digest: str
    metrics: dict[str, float]
    trial: str | None
    serving: str | None


ANSWERED: dict[str, Any] = {
    "request_id": "order-7",
    "predictions": [
        {
            "reservation_id": EXAMPLE["reservation_id"],
            "probability": 0.482,
            "version": "12",
            "arm": "champion",
            "hold_out": False,
            "stored": False,
            "recorded": False,
            "reasons": [{"feature": "lead_days", "value": 75.0, "usual": 49.0, "effect": 0.061}],
        }
    ],
}


class Api:
    """The application with its gate; ASGI."""

    def __init__(self, app: App, tokens: Mapping[bytes, str]) -> None:
        self.measures = Measures()
        self.service = Service(app, self.measures)
        self._settings = app.settings
        self._reader = Reader((), app.settings.api.reservations)
        self.routes = self._routes(guarded=bool(tokens))
        self._gate = Gate(self._dispatch, api=app.settings.api, tokens=tokens, measures=self.measures)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._gate(scope, receive, send)

    def turned_away(self, scope: Scope, under_way: int, connections: int) -> tuple[Response, bool] | None:
        """What a request hears for which there is no place (`Gate.turned_away`)."""
        return self._gate.turned_away(scope, under_way, connections)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        # FastAPI's way to a handler takes as long as an answer.
        if scope["type"] == "http" and scope["path"] == "/predict" and scope["method"] == "POST":
            response = await self._predict(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await self.routes(scope, receive, send)

    def _routes(self, *, guarded: bool) -> FastAPI:
        @asynccontextmanager
        async def life(_: FastAPI) -> AsyncIterator[None]:
            await self.service.start()
            yield
            await self.service.stop()

        routes = FastAPI(
            title="cancellations",
            version=__version__,
            description=DESCRIPTION,
            lifespan=life,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            exception_handlers={HTTPException: _no_such_thing, Problem: _refused, Exception: _failed},
        )
        refusals: dict[int | str, dict[str, Any]] = {
            int(status): {"model": Told, "description": status.phrase}
            for status in (
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.REQUEST_TIMEOUT,
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                HTTPStatus.MISDIRECTED_REQUEST,
                HTTPStatus.UNPROCESSABLE_ENTITY,
                HTTPStatus.TOO_MANY_REQUESTS,
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        }
        asked = {k: v for k, v in refusals.items() if k not in (408, 413, 415, 422)}
        probed: dict[int | str, dict[str, Any]] = {429: refusals[429], 421: refusals[421]}
        answered = {"content": {"application/json": {"example": ANSWERED}}}
        routes.post("/predict", response_model=Predictions, responses=refusals | {200: answered})(self._predict)
        routes.get("/health", response_model=Health, responses=probed)(self._health)
        not_ready: dict[int | str, dict[str, Any]] = {503: {"model": Ready, "description": "it cannot answer now"}}
        routes.get("/ready", response_model=Ready, responses=probed | not_ready)(self._ready)
        routes.get("/model", response_model=ModelFacts, responses=asked)(self._model)
        routes.get(
            "/metrics",
            response_class=Response,
            responses={
                **{k: v for k, v in asked.items() if k != 503},
                200: {"description": "in Prometheus' form", "content": {"text/plain": {"schema": {"type": "string"}}}},
            },
        )(self._metrics)
        # How FastAPI lets its description be extended, which mypy takes for a mistake.
        routes.openapi = lambda: self._described(routes, guarded=guarded)  # type: ignore[method-assign]
        return routes

    # --- paths ------------------------------------------------------------------------------------

    async def _predict(self, request: Request) -> Response:
        """Score one or many reservations."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"the body is said to be {kind[:100] or 'nothing'!r}, not application/json",
                "send JSON, with the header Content-Type: application/json",
            )
        reading = self._up_to_date().read(await request.body(), self._settings.today)
        request.state.told = {"reservations": len(reading.bookings)}
        answers = await self.service.ask(Asked(reading.bookings, reading.record, reading.reasons))
        told = {
            "request_id": request.state.request_id,
            "predictions": [_told(answer, with_reasons=reading.reasons > 0) for answer in answers],
        }
        return _json(told)

    async def _health(self) -> Response:
        """Whether the process lives; asks nothing of anybody."""
        return _json(asdict(Health()))

    async def _ready(self, request: Request) -> Response:
        """Whether a champion is loaded and the store can be reached."""
        service, serving = self.service, self.service.serving
        status = HTTPStatus.OK if service.ready else HTTPStatus.SERVICE_UNAVAILABLE
        if not request.state.known:
            return _json(asdict(Ready(service.ready)), status)
        slow = (
            [] if serving is None else [f"{v}: {one.model.slow}" for v, one in serving.loaded.items() if one.model.slow]
        )
        found = Ready(
            service.ready,
            champion=serving.champion.version if serving else None,
            rival=serving.rival.version if serving and serving.rival else None,
            epoch=serving.epoch if serving else None,
            problem=service.problem,
            slow="; ".join(slow) or None,
        )
        return _json(asdict(found), status)

    async def _model(self) -> Response:
        """Who is champion and why, by the ledger."""
        found = await self.service.champion()
        since, serving = found.since, self.service.serving
        facts = ModelFacts(
            version=found.record.version,
            epoch=found.standing.epoch,
            challenger=found.standing.challenger,
            change=since.change.value if since else None,
            reason=since.reason if since else None,
            by=since.by if since else None,
            as_of=str(since.as_of) if since else None,
            trained_as_of=str(found.record.trained_as_of),
            recipe=found.record.recipe,
            data_digest=found.record.data_digest,
            metrics=dict(found.record.metrics),
            trial=f"{found.trial}: {found.trial.state}, ends by {found.trial.last_day}" if found.trial else None,
            serving=serving.champion.version if serving else None,
        )
        return _json(plain(asdict(facts)))

    async def _metrics(self) -> Response:
        """Counters and gauges for Prometheus."""
        return Response(self.service.measured(), media_type="text/plain; version=0.0.4")

    # --- its form ---------------------------------------------------------------------------------

    def _up_to_date(self) -> Reader:
        """The reader, with the columns that mappings have declared by now."""
        if self._reader.extras != self.service.extras:
            self._reader = Reader(self.service.extras, self._settings.api.reservations)
        return self._reader

    def _described(self, routes: FastAPI, *, guarded: bool) -> dict[str, Any]:
        described = get_openapi(
            title=routes.title, version=routes.version, description=routes.description, routes=routes.routes
        )
        body = self._up_to_date().model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = described["components"]["schemas"]
        schemas.update(body.pop("$defs"))
        schemas["Asking"] = body
        examples = {
            "one": {"value": {"reservations": [EXAMPLE]}},
            "with reasons, kept nowhere": {"value": {"reservations": [EXAMPLE], "record": False, "reasons": 3}},
        }
        content = {"schema": {"$ref": "#/components/schemas/Asking"}, "examples": examples}
        described["paths"]["/predict"]["post"]["requestBody"] = {
            "required": True,
            "content": {"application/json": content},
        }
        if guarded:
            described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in described["paths"].items():
                for operation in operations.values():
                    operation["security"] = [] if path in OPEN else [{"token": []}]
        return described


def _told(answer: Answer, *, with_reasons: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "reservation_id": answer.reservation_id,
        "probability": answer.probability,
        "version": answer.version,
        "arm": answer.arm.value if answer.arm else None,
        "hold_out": answer.hold_out,
        "stored": answer.stored,
        "recorded": answer.recorded,
    }
    if with_reasons:
        told["reasons"] = [vars(reason) for reason in answer.reasons]
    return told


def _json(told: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(to_json(told), status, media_type="application/json")


async def _no_such_thing(request: Request, error: Exception) -> Response:
    """What the router refuses: a path that is not there, a method that it does not know."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    do = "the paths and their methods are described in /openapi.json"
    problem = Problem(status, f"{status.phrase}: {request.method} {request.url.path[:200]}", do, headers=error.headers)
    return problem.response(request.state.request_id)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response(request.state.request_id)


async def _failed(request: Request, error: Exception) -> Response:
    """Of what nobody foresaw; the gate writes it to the log, under the same number."""
    return failure(request.state.request_id).response(request.state.request_id)
