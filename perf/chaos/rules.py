"""What must hold in a storm, in words; docs/chaos.md says each in full."""

from typing import Final

RULES: Final = {
    "decision_lost": "seq is contiguous, across every change of owner",
    "decision_doubled": "no reign holds one decision twice, and no later one decides it again",
    "decision_reordered": "consumed offsets and decided times never go back",
    "clock_lied": "no decision bears a time that its append disproves",
    "reader_disagrees": "the reader that production uses takes exactly the records that count",
    "price_not_in_log": "a price shown stands in the decision log under its quote id",
    "replaced_owner_believed": "nobody shows a price by a replaced owner",
    "price_not_newest": "a gateway's price is the log's newest as of the time that it names",
    "as_of_not_in_log": "the time that an answer names is that of a record of the log",
    "stale_unmarked": "an answer older than 2 s is marked stale",
    "strong_read_old": "a strong read shows all that was in the log when it was asked",
    "outcome_not_in_log": "a command's answer stands in the log, with the same answer",
    "outcome_changed": "a command has one outcome, however often it was sent",
    "command_lost": "a command that was taken, or stands in the lane, gets an outcome",
    "command_unanswered": "a command that was consumed has its outcome in the decision that did so",
    "command_doubled": "a record of the lane has one outcome, and a command one effect",
    "command_reordered": "commands stand and are answered in the order in which they were given",
    "outcome_unasked": "an outcome answers the command that stands at its place",
    "effect_differs": "what a command did shows in the same decision and in every later quote",
    "delta_lost": "an acknowledged delta stands in the delta log where it was acknowledged",
    "delta_not_consumed": "an acknowledged delta is consumed",
    "delta_twice": "a sale counts once, however often it was sent",
    "consumed_ahead": "no decision consumed what the lanes of the delta log do not hold",
    "stream_gap": "a stream's message begins where the last one ended",
    "stream_missed": "a stream tells every price that changed in the range that it covers",
    "stream_differs": "who applied all that a stream told holds the log's newest prices",
    "gateway_differs": "at the end the gateway's prices, halts and policies are the log's newest",
    "store_differs": "at the end Postgres, QuestDB and the dead letters equal the log",
    "replay_differs": "replay decides everything again, the same",
    "stopped_for_good": "no shard, follower or replica stopped for a person to look",
    "not_recovered": "when the faults are over everything works again",
    "process_left": "no process is left behind",
}
"""Every rule, in words."""
