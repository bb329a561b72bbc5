"""``repricer chaos``: break the whole stack on purpose, and judge what everybody was told."""
