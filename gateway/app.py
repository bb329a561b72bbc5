"""The aiohttp application: its parts, and every route in sight.

Everything that it needs is handed in, so a test gives it a log in memory and decisions made by
hand. A new route is a function in ``gateway/<noun>.py`` and a line in ``ROUTES``; the OpenAPI
document, the metrics and the test that compares both with ``docs/api.md`` follow from it.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec
from aiohttp import WSCloseCode, web

from actors.clock import Clock
from gateway.approvals import (
    ApprovePrice,
    PinPrice,
    RejectPrice,
    UnpinPrice,
    approve_price,
    pin_price,
    reject_price,
    unpin_price,
)
from gateway.call import BODY_BYTES_MAX, BatchGet, Call, Gateway, ListingQuery, RetailerQuery
from gateway.commands import CommandSender
from gateway.console import console_file, console_page, front_door
from gateway.documents import RecommendationAnswer
from gateway.execution import IDEMPOTENCY_KEY, OperationAnswer, read_operation
from gateway.experiments import (
    ExperimentList,
    RevenueImpact,
    StartExperiment,
    StopExperiment,
    experiments,
    revenue_impact,
    start_experiment,
    stop_experiment,
)
from gateway.explanations import Explanation, explanation, quote
from gateway.features import (
    FeaturesAnswer,
    FeaturesBatch,
    FeaturesBatchQuery,
    FeaturesQuery,
    features,
    features_batch_get,
)
from gateway.feeds import Streams
from gateway.health import Health, ReadyQuery, livez, readyz, startupz
from gateway.history import History, HistoryReader
from gateway.keys import APPROVE, HALT, POLICY, READ, Keys
from gateway.learning import LearningAnswer, LearningQuery, learning
from gateway.metrics import CONTENT_TYPE as METRICS_CONTENT_TYPE
from gateway.metrics import Metrics
from gateway.openapi import openapi
from gateway.operations import Operations
from gateway.planning import (
    ApplyPlan,
    PlanAnswer,
    PlanPolicies,
    WhatIf,
    WhatIfAnswer,
    apply_policies,
    plan_policies,
    what_if,
)
from gateway.policies import (
    ListingPolicy,
    PoliciesQuery,
    PolicyPage,
    ScopeAnswer,
    ScopeQuery,
    listing_policy,
    policies,
    scope_policy,
)
from gateway.problems import (
    CONFLICT,
    DEADLINE,
    IN_FLIGHT,
    KEY_REUSED,
    NOT_FOUND,
    NOT_SUPPORTED,
    ORIGIN_REFUSED,
    REFUSED,
    UNAVAILABLE,
    UPGRADE_REQUIRED,
)
from gateway.products import (
    HistoryQuery,
    ProductDocument,
    ProductPage,
    ProductQuery,
    ProductsQuery,
    history,
    product,
    products,
)
from gateway.publishing import (
    ChangeMode,
    HaltPublishing,
    Publishing,
    ResumePublishing,
    RetailerList,
    change_mode,
    halt,
    publishing,
    resume,
    retailers,
)
from gateway.ready import Heads
from gateway.recommendations import (
    BatchAnswer,
    RecommendationQuery,
    batch_get,
    recommend,
)
from gateway.replica import Replica
from gateway.route import Route, add_routes
from gateway.routed import AskFork, RoutedFacts, RoutedFeatures, RoutedLearning, RoutedReads
from gateway.routing import Routing, routing
from gateway.stream import stream

PREFIX = "/api/v1"
PREFIXES = (PREFIX, "/api")
"""The canonical prefix, and the alias of the newest stable version."""

VERSION = "1.0.0"
"""Of the API, not of the engine."""

GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)

_FORK_PROBLEMS = (NOT_FOUND, NOT_SUPPORTED, UNAVAILABLE, DEADLINE)

_command = partial(
    Route,
    method="POST",
    answers={200: OperationAnswer, 202: OperationAnswer},
    problems=(NOT_FOUND, CONFLICT, IN_FLIGHT, REFUSED, NOT_SUPPORTED, KEY_REUSED, UNAVAILABLE),
    headers=(IDEMPOTENCY_KEY,),
)
"""A route that becomes a command: all are answered alike."""


async def metrics(gateway: Gateway, call: Call) -> web.Response:
    """Return the metrics in Prometheus' text format."""
    return web.Response(body=gateway.metrics.text(), headers={"Content-Type": METRICS_CONTENT_TYPE})


async def openapi_json(gateway: Gateway, call: Call) -> web.Response:
    """Return the OpenAPI document of this very process."""
    return web.Response(body=OPENAPI, content_type="application/json")


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/products/{id}/recommendation",
        handler=recommend,
        summary="The recommended price of one product, with its reasons",
        scope=READ,
        query=RecommendationQuery,
        answers={200: RecommendationAnswer},
        problems=(NOT_FOUND, UNAVAILABLE, DEADLINE),
    ),
    Route(
        method="POST",
        path="/recommendations:batchGet",
        handler=batch_get,
        summary="The recommended prices of up to 1,000 products",
        scope=READ,
        query=RetailerQuery,
        body=BatchGet,
        body_required=True,
        answers={200: BatchAnswer},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/products",
        handler=products,
        summary="The retailer's products with their prices, by SKU",
        scope=READ,
        query=ProductsQuery,
        answers={200: ProductPage},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/products/{id}",
        handler=product,
        summary="One product with the prices of all its listings",
        scope=READ,
        query=ProductQuery,
        answers={200: ProductDocument},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/products/{id}/explanation",
        handler=explanation,
        summary="Why the newest quote of a listing is what it is, in words",
        scope=READ,
        query=ListingQuery,
        answers={200: Explanation},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/products/{id}/features",
        handler=features,
        summary="What the owner of a listing knows of it, as named figures",
        scope=READ,
        query=FeaturesQuery,
        answers={200: FeaturesAnswer},
        problems=(NOT_FOUND, UNAVAILABLE, DEADLINE),
    ),
    Route(
        method="POST",
        path="/features:batchGet",
        handler=features_batch_get,
        summary="The named figures of up to 1,000 products",
        scope=READ,
        query=FeaturesBatchQuery,
        body=BatchGet,
        body_required=True,
        answers={200: FeaturesBatch},
        problems=(NOT_FOUND, UNAVAILABLE, DEADLINE),
    ),
    Route(
        method="GET",
        path="/learning",
        handler=learning,
        summary="What is learnt of a retailer's demand, and whether his history is believed",
        scope=READ,
        query=LearningQuery,
        answers={200: LearningAnswer},
        problems=(NOT_FOUND, UNAVAILABLE, DEADLINE),
    ),
    Route(
        method="GET",
        path="/products/{id}/history",
        handler=history,
        summary="The recent quotes of a listing, for a chart",
        scope=READ,
        query=HistoryQuery,
        answers={200: History},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/products/{id}/policy",
        handler=listing_policy,
        summary="Every policy field as it counts for a listing, and the scope that set it",
        scope=READ,
        query=ListingQuery,
        answers={200: ListingPolicy},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/quotes/{quote_id}",
        handler=quote,
        summary="The receipt of one quote",
        scope=READ,
        answers={200: Explanation},
        problems=(NOT_FOUND,),
    ),
    _command(
        path="/products/{id}/approve-price",
        handler=approve_price,
        summary="Approve the proposed price, or another within the guardrails",
        scope=APPROVE,
        query=ListingQuery,
        body=ApprovePrice,
    ),
    _command(
        path="/products/{id}/reject-price",
        handler=reject_price,
        summary="Reject the proposed price; the price in force stays",
        scope=APPROVE,
        query=ListingQuery,
        body=RejectPrice,
    ),
    _command(
        path="/products/{id}/pin-price",
        handler=pin_price,
        summary="Fix the price until a moment, or until it is unpinned",
        scope=APPROVE,
        query=ListingQuery,
        body=PinPrice,
        body_required=True,
    ),
    _command(
        path="/products/{id}/unpin-price",
        handler=unpin_price,
        summary="Give a pinned price back to the engine",
        scope=APPROVE,
        query=ListingQuery,
        body=UnpinPrice,
    ),
    Route(
        method="GET",
        path="/publishing",
        handler=publishing,
        summary="The retailer's mode, what is halted, and breakers that tripped",
        scope=READ,
        query=RetailerQuery,
        answers={200: Publishing},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/retailers",
        handler=retailers,
        summary="The retailers that the key sees",
        scope=READ,
        answers={200: RetailerList},
    ),
    _command(
        path="/publishing:halt",
        handler=halt,
        summary="Stop publishing: the kill switch",
        scope=HALT,
        query=RetailerQuery,
        body=HaltPublishing,
    ),
    _command(
        path="/publishing:resume",
        handler=resume,
        summary="Let publishing go on, after a halt or after the breaker tripped",
        scope=HALT,
        query=RetailerQuery,
        body=ResumePublishing,
    ),
    _command(
        path="/publishing:mode",
        handler=change_mode,
        summary="Let the retailer's prices go live, or back to shadow",
        scope=POLICY,
        query=RetailerQuery,
        body=ChangeMode,
        body_required=True,
    ),
    Route(
        method="GET",
        path="/policies",
        handler=policies,
        summary="The policy in force: what is set at each scope",
        scope=READ,
        query=PoliciesQuery,
        answers={200: PolicyPage},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/policies/{scope}",
        handler=scope_policy,
        summary="What is set at one scope: the retailer, or the ?key= of another",
        scope=READ,
        query=ScopeQuery,
        answers={200: ScopeAnswer},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="POST",
        path="/policies:plan",
        handler=plan_policies,
        summary="Which prices a change of policy would move, and why; nothing is changed",
        scope=POLICY,
        query=RetailerQuery,
        body=PlanPolicies,
        body_required=True,
        answers={200: PlanAnswer},
        problems=_FORK_PROBLEMS,
    ),
    _command(
        path="/policies:apply",
        handler=apply_policies,
        summary="Apply a plan: exactly what it showed, or a conflict",
        scope=POLICY,
        query=RetailerQuery,
        body=ApplyPlan,
        body_required=True,
    ),
    Route(
        method="POST",
        path="/what-if",
        handler=what_if,
        summary="What would follow for up to 100,000 listings if costs, rivals or policies changed",
        scope=POLICY,
        query=RetailerQuery,
        body=WhatIf,
        body_required=True,
        answers={200: WhatIfAnswer},
        problems=_FORK_PROBLEMS,
    ),
    Route(
        method="GET",
        path="/experiments",
        handler=experiments,
        summary="How experiments and holdouts stand: arms, lift, interval, verdict",
        scope=READ,
        query=RetailerQuery,
        answers={200: ExperimentList},
        problems=(NOT_FOUND,),
    ),
    _command(
        path="/experiments",
        handler=start_experiment,
        summary="Try another policy or price on some listings",
        scope=APPROVE,
        query=RetailerQuery,
        body=StartExperiment,
        body_required=True,
    ),
    _command(
        path="/experiments:stop",
        handler=stop_experiment,
        summary="End the experiment that is running; all listings are priced alike again",
        scope=APPROVE,
        query=RetailerQuery,
        body=StopExperiment,
    ),
    Route(
        method="GET",
        path="/analytics/revenue-impact",
        handler=revenue_impact,
        summary="What the engine's prices bring, against listings whose prices stay",
        scope=READ,
        query=RetailerQuery,
        answers={200: RevenueImpact},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/operations/{operation_id}",
        handler=read_operation,
        summary="What became of a command",
        scope=READ,
        answers={200: OperationAnswer},
        problems=(NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/routing",
        handler=routing,
        summary="What a producer needs to key his deltas",
        scope=READ,
        answers={200: Routing},
    ),
    Route(
        method="GET",
        path="/stream",
        handler=stream,
        summary="Prices as they change: WebSocket, subprotocol prices.v1",
        answers={101: ""},
        problems=(UPGRADE_REQUIRED, ORIGIN_REFUSED),
        upgrades=True,
    ),
    Route(
        method="GET",
        path="/livez",
        handler=livez,
        summary="Whether the process lives",
        answers={200: "text/plain"},
        prefixed=False,
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=readyz,
        summary="Whether requests may be sent here; ?verbose names what is not ready",
        query=ReadyQuery,
        answers={200: Health, 503: Health},
        prefixed=False,
    ),
    Route(
        method="GET",
        path="/startupz",
        handler=startupz,
        summary="Whether starting is over",
        answers={200: "text/plain", 503: "text/plain"},
        prefixed=False,
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=metrics,
        summary="Metrics in Prometheus' text format",
        answers={200: "text/plain"},
        prefixed=False,
    ),
    Route(
        method="GET",
        path="/openapi.json",
        handler=openapi_json,
        summary="This API as OpenAPI 3.1",
        answers={200: "application/json"},
        prefixed=False,
    ),
    Route(
        method="GET",
        path="/",
        handler=front_door,
        summary="Leads to the console",
        answers={307: ""},
        prefixed=False,
    ),
    Route(
        method="GET",
        path="/console",
        handler=console_page,
        summary="The console, a page for people",
        answers={200: "text/html"},
        prefixed=False,
    ),
    Route(
        method="GET",
        path="/console/{file}",
        handler=console_file,
        summary="A file of the console's page",
        answers={200: "text/html"},
        problems=(NOT_FOUND,),
        prefixed=False,
    ),
)
"""Every route there is."""

OPENAPI = msgspec.json.encode(openapi(ROUTES, prefix=PREFIX, version=VERSION), order="sorted")
"""The OpenAPI document of these routes."""


def make_app(
    replica: Replica,
    commands: CommandSender,
    keys: Keys,
    clock: Clock,
    *,
    routed: RoutedReads | None = None,
    routed_features: RoutedFeatures | None = None,
    routed_learning: RoutedLearning | None = None,
    routed_facts: RoutedFacts | None = None,
    forks: AskFork | None = None,
    history_reader: HistoryReader | None = None,
    origins: Iterable[str] = (),
    **stream_settings: Any,
) -> web.Application:
    """Return the application over a replica that somebody else keeps up to date.

    Args:
        replica: what is read; ``gateway.following`` feeds it.
        commands: how commands reach their shards.
        keys: who may ask.
        clock: wall time for staleness, monotonic time for its other half.
        routed: strong reads; without it they are answered 503.
        routed_features: reads of features, likewise.
        routed_learning: what is learnt of a retailer's demand, likewise.
        routed_facts: what explains a price now; without it receipts lack it, and are answered.
        forks: answers plans and what-ifs; without it they are answered 503.
        history_reader: reads a listing's past from a series store; without it the window serves.
        origins: of pages, besides our own, that may open a stream.
    """
    streams = Streams(replica, **stream_settings)
    gateway = Gateway(
        replica=replica,
        keys=keys,
        clock=clock,
        metrics=Metrics(replica, streams, clock),
        streams=streams,
        operations=Operations(replica),
        commands=commands,
        heads=Heads(),
        routed=routed,
        features=routed_features,
        learning=routed_learning,
        live_facts=routed_facts,
        forks=forks,
        history=history_reader,
        origins=frozenset(origins),
    )
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app[GATEWAY] = gateway
    add_routes(app, gateway, ROUTES, PREFIXES)
    app.on_shutdown.append(_end_streams)
    return app


async def _end_streams(app: web.Application) -> None:
    """Say goodbye to every stream: the site is closed, so nobody new comes in."""
    streams = app[GATEWAY].streams
    streams.close()
    for socket in list(streams.sockets):
        await socket.close(code=WSCloseCode.GOING_AWAY, message=b"gateway stops")
