"""Prices that were learnt keep what the policy says, as any others do."""

from perf.learnt_precedence import judged


def test_an_oracle_finds_nothing_wrong_with_learnt_prices() -> None:
    """Three random shops for a few days; the command judges as many as it is told."""
    violations, seen = judged(seed=7, shops=3, days=4)
    print(seen)
    assert violations.total() == 0, violations
    assert seen["learnt, moved"] > 100
    assert seen["dithered"] > 0
    for rule in ("floor", "step", "ending"):
        assert seen[f"learnt, bound by {rule}"] > 0, rule
