"""Demand models: three pure functions ``init``, ``update``, ``propose`` and a version each."""

from types import ModuleType

from kernels.models import constant_elasticity, streamed

MODELS: dict[str, ModuleType] = {
    constant_elasticity.VERSION: constant_elasticity,
    streamed.VERSION: streamed,
}
"""By version, which stands in every decision's mark: at most 24 bytes."""
