"""A small season: the shard clears overstock with few cuts, and no price ever rises."""

from training.exam.seasonal import season_verdicts, sit_season


def test_a_season_is_cleared_by_few_cuts() -> None:
    season = sit_season(3, 150)
    assert season.share > season.list_price + 0.1
    assert season.sell_through > 0.75
    assert season.changes_most <= 3
    assert season.rises == 0
    assert season.list_price < season.ladder < season.assumed_fluid < 1.0
    assert season.share > season.ladder
    assert len(season_verdicts([season])) == 4
