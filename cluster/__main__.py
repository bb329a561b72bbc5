"""``repricer <verb>``: the command line."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError

from cluster.commands import (
    asking,
    backtesting,
    demo,
    doubting,
    examining,
    feeding,
    giving,
    living,
    modelling,
    planning,
    setting,
)
from cluster.commands.speaking import FAILURE, USAGE, fail
from cluster.telemetry import version_of_repricer


def make_app() -> App:
    """Return the application with every verb."""
    app = App(
        name="repricer",
        help="An open, self-hosted, real-time pricing engine.",
        version=version_of_repricer,
        result_action="return_value",
    )
    app.command(demo.demo)
    app.command(living.up)
    app.command(feeding.feed)
    app.command(living.status)
    app.command(asking.price)
    app.command(asking.explain)
    app.command(asking.features)
    app.command(asking.learning)
    app.command(asking.experiments)
    app.command(asking.replay)
    app.command(asking.tail)
    app.command(planning.policy)
    app.command(planning.plan)
    app.command(planning.apply)
    app.command(planning.what_if, name="what-if")
    app.command(giving.mode)
    app.command(backtesting.backtest)
    app.command(examining.exam)
    app.command(modelling.train)
    models = App(name="models", help="Which trained models there are, and which serve.")
    models.command(modelling.listed, name="list")
    models.command(modelling.show)
    models.command(modelling.promote)
    models.command(modelling.rollback)
    app.command(models)
    app.command(living.checkpoint)
    app.command(living.doctor)
    app.command(doubting.chaos)
    app.command(setting.servers)
    config = App(name="config", help="Show what is set, and by whom.")
    config.command(setting.show)
    config.command(setting.schema)
    app.command(config)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return its exit code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    # jax looks for accelerators when it is imported; only an owner's settings choose one.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        code: Any = make_app()(tokens, exit_on_error=False, print_error=True)
        return code if isinstance(code, int) else 0
    except CycloptsError:
        return USAGE
    except KeyboardInterrupt:
        return FAILURE
    except BrokenPipeError:
        # Whoever read our output has enough; do not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:
        return fail(error, as_json="--json" in tokens)


if __name__ == "__main__":
    sys.exit(main())
