"""Level and season by gradient-boosted trees: what a listing sells on a day, whatever its price.

XGBoost never sees a day's own price: a tree's step is no slope, and what managers did when demand
was high would be taken for what customers do. The slope comes from ``training.demand_head``.
"""

from typing import Any

import numpy as np

from kernels.hyperparameters import TREE_PARAMETERS, TREE_ROUNDS
from training.rows import Rows


class Levels:
    """Fitted trees; ``log_units`` says what a row of features sells."""

    def __init__(self, rows: Rows, seed: int) -> None:
        import xgboost

        self._xgboost = xgboost
        matrix = self._matrix(rows.features, rows.recent)
        matrix.set_label(rows.units)
        self._booster = xgboost.train(
            {**TREE_PARAMETERS, "seed": seed}, matrix, num_boost_round=TREE_ROUNDS
        )

    def log_units(self, features: np.ndarray, recent: np.ndarray) -> np.ndarray:
        """Return float64[rows], log of the units that are foreseen."""
        margin = self._booster.predict(self._matrix(features, recent), output_margin=True)
        return np.asarray(margin, dtype=np.float64)

    def _matrix(self, features: np.ndarray, recent: np.ndarray) -> Any:
        matrix = self._xgboost.DMatrix(features)
        matrix.set_base_margin(np.log(recent + 0.1))
        return matrix
