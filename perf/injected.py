"""Bugs to inject: each a small change of the text of one production function.

A bug is told as the text before and after, so that it cannot quietly stop applying: the text must
stand in the function exactly once. The function keeps its identity, and whoever imported it by name
runs the changed code too.
"""

import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType

import jax
from msgspec import Struct


class Bug(Struct, frozen=True, kw_only=True):
    """One change of one production function."""

    name: str
    function: str  # "engine.quotes:_look"
    changes: tuple[tuple[str, str], ...]  # text before, text after
    says: str


@contextmanager
def injected(bug: Bug | None) -> Iterator[None]:
    """Run the body with the bug in the code, and the code as it was afterwards."""
    if bug is None:
        yield
        return
    function = found(bug.function)
    sound = function.__code__
    function.__code__ = changed(function, bug)
    _forget_compiled(bug)
    try:
        yield
    finally:
        function.__code__ = sound
        _forget_compiled(bug)


def found(name: str) -> FunctionType:
    """Return the function called ``module:function`` or ``module:Class.function``."""
    module, _, path = name.partition(":")
    here: object = importlib.import_module(module)
    for part in path.split("."):
        here = getattr(here, part)
    assert isinstance(here, FunctionType), name
    return here


def changed(function: FunctionType, bug: Bug) -> CodeType:
    """Return the function's code with the bug in it."""
    source = textwrap.dedent(inspect.getsource(function))
    for before, after in bug.changes:
        assert source.count(before) == 1, f"{bug.name}: {before!r} is not there exactly once"
        source = source.replace(before, after)
    namespace = dict(function.__globals__)
    exec(compile(source, f"<{bug.name}>", "exec"), namespace)
    code: CodeType = namespace[function.__name__].__code__
    assert (
        code.co_code != function.__code__.co_code or code.co_consts != function.__code__.co_consts
    )
    assert code.co_freevars == function.__code__.co_freevars
    return code


def _forget_compiled(bug: Bug) -> None:
    if bug.function.startswith("kernels."):
        forget: Callable[[], None] = jax.clear_caches  # Jax tells no types of it
        forget()


GATHER = "inputs = np.zeros(len(rows), dtype=PRICING_INPUT_DTYPE)"
"""In engine.quotes._look: rows, policies and fees are read, nothing is gathered yet."""

GATHERED = "return _Sight("
"""In engine.quotes._look: all inputs stand."""

BUGS: tuple[Bug, ...] = (
    Bug(
        name="divide_by_100",
        function="engine.pricing:_price_piece",
        changes=(
            (
                "priced[name] = counted[index, :rows]",
                'priced[name] = counted[index, :rows] // (100 if name == "price_minor" else 1)',
            ),
        ),
        says="minor units taken for major ones on the way out of the kernel",
    ),
    Bug(
        name="zero_cost",
        function="engine.quotes:_look",
        changes=((GATHER, GATHER + '\n    listings["cost_minor"] = 0'),),
        says="every cost is read as zero, and remembered so",
    ),
    Bug(
        name="halved_cost",
        function="engine.quotes:_look",
        changes=((GATHERED, 'inputs["cost_minor"] //= 2\n    ' + GATHERED),),
        says="costs are halved for the model, though not for the floor",
    ),
    Bug(
        name="currency_swap",
        function="engine.currencies:Currencies.rates",
        changes=(
            (
                "rate = np.where(found, self._rate[place], rate)",
                "rate = np.where(found, 1.0 / self._rate[place], rate)",
            ),
        ),
        says="rivals are converted the wrong way",
    ),
    Bug(
        name="nan_model",
        function="kernels.models.constant_elasticity:propose",
        changes=(("return jnp.where(valid, price, jnp.nan)", "return price * jnp.nan"),),
        says="the model's output is not a number",
    ),
    Bug(
        name="elasticity_sign",
        function="kernels.demand:best_price",
        changes=(
            (
                "markup = elasticity / (1.0 + elasticity)",
                "markup = elasticity / (1.0 - elasticity)",
            ),
        ),
        says="the elasticity's sign is lost in the markup",
    ),
    Bug(
        name="vat_ignored",
        function="engine.quotes:_look",
        changes=((GATHER, GATHER + '\n    group["vat"] = 0.0'),),
        says="prices are made as if they held no VAT, the floor with them",
    ),
    Bug(
        name="fees_dropped",
        function="engine.quotes:_look",
        changes=(
            (
                GATHER,
                GATHER + '\n    group["commission"], group["fixed_fee_minor"] = 0.0, 0'
                '\n    group["minimum_fee_minor"] = 0',
            ),
        ),
        says="commission and fees of the marketplace are forgotten",
    ),
    Bug(
        name="floor_ignored",
        function="engine.floors:floor_minor",
        changes=(
            (
                "return np.where(known, floor, FLOOR_NONE).astype(np.int32)",
                "return np.where(known, 1, FLOOR_NONE).astype(np.int32)",
            ),
        ),
        says="every floor is one cent",
    ),
    Bug(
        name="stale_rates",
        function="engine.rivals:comparable",
        changes=(("(rate > 0.0) & (rate_expiry > now_ms)", "(rate > 0.0)"),),
        says="currency rates never grow old",
    ),
    Bug(
        name="swapped_columns",
        function="engine.pricing:_price_piece",
        changes=(
            (
                "enumerate(PricedIntegers._fields)",
                "enumerate([PricedIntegers._fields[at] for at in (2, 1, 0, 3, 4, 5, 6)])",
            ),
        ),
        says="price and lower bound change places",
    ),
    Bug(
        name="swapped_rows",
        function="engine.pricing:_price_piece",
        changes=(
            (
                "integers, floats = reprice(*_packed(inputs))",
                "integers, floats = reprice(*_packed(np.roll(inputs, 1)))",
            ),
        ),
        says="every listing gets its neighbour's price",
    ),
    Bug(
        name="rival_off_by_1000",
        function="engine.quotes:_look",
        changes=((GATHERED, 'inputs["rival_minor"] //= 1000\n    ' + GATHERED),),
        says="rivals' prices are a thousandth of what they are",
    ),
    Bug(
        name="step_in_cents",
        function="kernels.rules.step:narrow",
        changes=(
            (
                "step = share_down(in_force, columns.step_max_bp)",
                "step = columns.step_max_bp * 0 - in_force // 4",
            ),
        ),
        says="the step turns over, so that every price must move by a quarter",
    ),
    Bug(
        name="slightly_cheap",
        function="kernels.models.constant_elasticity:propose",
        changes=(
            (
                "return jnp.where(valid, price, jnp.nan)",
                "return jnp.where(valid, 0.97 * price, jnp.nan)",
            ),
        ),
        says="every wish is three percent low: too small for any single move to be remarkable",
    ),
)
