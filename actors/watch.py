"""What is known of every shard's owners, and whom that says to start, to promote or to end.

``Watch`` has no clock, no process and no log, so a test is a list of events; ``actors.supervisor``
feeds it with what happens and does what it says.

*Proven* time is time in which canaries were acknowledged quickly. Silence and the patience with a
start are counted in it alone: while the log does not answer, nobody can be blamed for silence. Nor
can one who waits for a processor: that time is taken off an owner's silence, and time in which the
watcher itself got none proves nothing at all (docs/decisions/0020).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, final

from msgspec import Struct, field

from actors.starts import Launched, Phase, Start

PROVEN_MS_A_CANARY_MAX: Final = 500
"""What one canary can prove at most: a watcher that slept itself has proven nothing."""

OUTAGE_MS: Final = 2_000
"""After so long without proof, owners too have appends in doubt and must seal again."""

RECOVERY_MS: Final = 8_000
"""Proven time they then have for it before their silence counts."""

STARVED_MS_MAX: Final = 20_000
"""An owner who has waited for a processor this long without a mark in between is excused no more.

An endless loop on a crowded machine waits for its turn, too. Who is given more patience is excused
for so many times longer, and nobody for ever: what is known is the longest wait of any one thread,
and one may wait beside another that hangs.
"""

PATIENCE: Final = (1, 4, 16)
"""How many times longer than others one may be silent who tries what others were ended on for their
silence: after one of them, after two, after more. And how many times longer a start may show no
progress where starts were ended for that: not at all, once, more often.

A microbatch that takes longer than a silence may last would end every owner that meets it, and be
skipped for murder. With the most patience it has 32 s of a processor by default, which no honest
one needs, and only who is silent for all of that has fallen on what he tried. A first hang is found
as before. What patience let be decided a successor must be able to replay, so starts are given as
many times more than the 30 s in which others restore all that there is.
"""

PARDONED_MAX: Final = 64
"""So many owners at most are remembered as ended for what may have been no hang."""

START_STARVED_MS_MAX: Final = 90_000
"""As long at most is a start excused that shows no progress: warming takes seconds of a processor,
and on a crowded machine that may be minutes. Who ended it for that would only start it again. Where
starts were ended for that, it is so many times longer: see ``PATIENCE``."""

SUSPECT_MS: Final = 500
"""From so much silence on it is looked whether the owner starves; looking has its price."""

SETTLED_MS: Final = 5_000
"""An owner that marked for so long decides: whatever ends it then is no start that fails again."""

HEALTHY_MS: Final = 60_000
"""An owner that lived this long clears the caution of its shard, and its back-off."""

BACKOFF_FIRST_MS: Final = 250

THWARTED_MS_MAX: Final = 2_000
"""The longest wait after an end that was not the shard's own: what caused it passes by itself, and
how long a shard then goes without its owner is up to us."""

THWARTED: Final = frozenset({"launch_failed", "fenced", "no_answer"})
"""Ends that a shard has no part in: no process was to be had, another reigned, no log answered."""

STOP_LOUDLY: Final = frozenset({"log_fault", "settings_refused", "murderous_batch"})
"""Ends after which another start would meet the same wall: the shard waits for a person."""


class SupervisorSettings(Struct, frozen=True, kw_only=True):
    """When an owner is replaced."""

    silence_ms: int = 2000
    start_ms: int = 30_000
    canary_ms: int = 250
    canary_deadline_ms: int = 500
    backoff_ms_max: int = 30_000
    standby: bool = False
    spare: bool = False


class Launch(Struct, frozen=True):
    """Start an owner or a standby."""

    start: Start


class TakeOver(Struct, frozen=True):
    """Let a standby seal."""

    name: str


class Kill(Struct, frozen=True):
    """End a process that hangs; it may own nothing any more."""

    name: str
    why: str


Action = Launch | TakeOver | Kill


class Alarm(Struct, frozen=True):
    """Something a person should know."""

    what: str
    shard: int
    detail: str


class Life(Struct):
    """One started process, as far as it is known."""

    start: Start
    phase: Phase = "starting"
    launched: Launched | None = None
    progress: object = None
    patience_ms: float = 0.0  # proven time since it last showed progress
    starved_ms: float = 0.0  # proven time since then in which it waited for a processor
    live_since_ms: int | None = None


class Place(Struct):
    """One shard: who owns it, who stands by, and what befell it."""

    shard: int
    next_number: int = 1
    owner: Life | None = None
    standby: Life | None = None
    silence_ms: float = 0.0  # proven time since the last mark
    grace_ms: float = 0.0  # proven time that does not count yet: the log was away
    starved_ms: float = 0.0  # proven time since the last mark in which it waited for a processor
    last_mark_ms: int | None = None
    deaths: int = 0  # of its own, since an owner decided for SETTLED_MS
    thwarted: int = 0  # ends since then that were not its own
    not_before_ms: int = 0
    standby_not_before_ms: int = 0
    cautious: bool = False
    trying: bool = False  # whether the last record is an attempt that its owner announced
    hangs: int = 0  # owners ended for their silence since one was healthy
    stalls: int = 0  # starts ended for showing no progress since an owner decided for SETTLED_MS
    pardoned: list[bytes] = field(default_factory=list)  # of the ended, who may not have hung
    stopped: str = ""
    ends: list[str] = field(default_factory=list)


@final
class Watch:
    """What is known of every shard, and what follows from it. Pure but for its own memory.

    All times are monotonic milliseconds, given by the caller.
    """

    def __init__(
        self,
        shards: Iterable[int],
        settings: SupervisorSettings,
        *,
        new_owner: Callable[[], bytes],
    ) -> None:
        self._settings = settings
        self._new_owner = new_owner
        self.places: dict[int, Place] = {shard: Place(shard) for shard in shards}
        self.alarms: list[Alarm] = []
        self.proven_ms = 0.0
        self._draining = False

    # ----- what happened ----------------------------------------------------------------------

    def adopt(self, launched: Launched, phase: Phase, now_ms: int) -> None:
        """Take charge of a process that an earlier supervisor started."""
        place = self.places[launched.start.shard]
        place.next_number = max(place.next_number, launched.start.number + 1)
        place.pardoned += [name for name in launched.start.pardoned if name not in place.pardoned]
        del place.pardoned[:-PARDONED_MAX]
        life = Life(launched.start, phase, launched)
        if launched.start.standby and phase != "live":
            place.standby = life
        else:
            place.owner = life
            life.live_since_ms = now_ms if phase == "live" else None

    def numbered(self, shard: int, number: int) -> None:
        """Remember that a start number was used, perhaps before this supervisor began."""
        place = self.places[shard]
        place.next_number = max(place.next_number, number + 1)

    def launched(self, launched: Launched) -> None:
        """Note that a start has a process now."""
        life = self.life(launched.start.name)
        if life is not None:
            life.launched = launched
            life.patience_ms = life.starved_ms = 0.0

    def launch_failed(self, name: str, why: str, now_ms: int) -> None:
        """Note that a start got no process."""
        self._ended(name, "launch_failed", why, now_ms)

    def progressed(self, name: str, phase: Phase, progress: object) -> None:
        """Note what a start says of itself; only a change of it counts as progress."""
        life = self.life(name)
        if life is None or life.phase == "live":
            return
        # Only a mark in the log proves that it lives, and one that was told to take over no longer
        # stands by, whatever it says.
        stands_by = phase == "standby" and life is self.places[life.start.shard].standby
        said: Phase = "standby" if stands_by else "starting"
        if progress != life.progress or said != life.phase:
            life.patience_ms = life.starved_ms = 0.0
        life.progress = progress
        life.phase = said

    def marked(self, shard: int, owner: bytes, now_ms: int, *, trying: bool = False) -> None:
        """Note an accepted record of whoever reigns now, and whether it announces an attempt."""
        place = self.places[shard]
        # Of the time that one attempt took nothing shows that the next will pass.
        tried_long = (
            place.trying
            and place.last_mark_ms is not None
            and now_ms - place.last_mark_ms >= self._settings.silence_ms
        )
        place.trying = trying
        place.silence_ms = 0.0
        place.grace_ms = 0.0
        place.starved_ms = 0.0
        place.last_mark_ms = now_ms
        for life in (place.owner, place.standby):
            if life is None or life.start.owner != owner:
                continue
            if life.phase != "live" or tried_long:
                life.phase = "live"
                life.live_since_ms = now_ms
            elif life.live_since_ms is not None and now_ms - life.live_since_ms >= SETTLED_MS:
                place.deaths = place.thwarted = place.stalls = 0
        if place.standby is not None and place.standby.phase == "live":
            # It sealed although nobody told it: it reigns, so it is the owner.
            place.owner, place.standby = place.standby, None

    def died(self, name: str, end: str | None, detail: str, now_ms: int) -> None:
        """Note that a process is gone; ``end`` is what it left word of, ``None``: nothing."""
        self._ended(name, end, detail, now_ms)

    def suspects(self) -> list[Life]:
        """Return who was silent, or without progress, so long that it may be for starving."""
        return [
            life
            for place in self.places.values()
            for life in (place.owner, place.standby)
            if life is not None and _unheard_ms(place, life) >= SUSPECT_MS
        ]

    def proven(
        self,
        elapsed_ms: float,
        silent: Mapping[int, bool],
        starved: Mapping[str, float] | None = None,
    ) -> None:
        """Count proven time.

        Args:
            elapsed_ms: how much a quickly acknowledged canary proves.
            silent: shard -> whether its decision log was read up to its end since.
            starved: name of a start -> how long of it it was ready to run and got no processor.
        """
        credit = min(max(elapsed_ms, 0.0), PROVEN_MS_A_CANARY_MAX)
        self.proven_ms += credit
        for place in self.places.values():
            if silent.get(place.shard, False):
                name = place.owner.start.name if place.owner is not None else ""
                waited = min((starved or {}).get(name, 0.0), credit)
                waited = min(waited, max(_excused_ms_max(place) - place.starved_ms, 0.0))
                place.starved_ms += waited
                spared = min(place.grace_ms, credit - waited)
                place.grace_ms -= spared
                place.silence_ms += credit - waited - spared
            for life in (place.owner, place.standby):
                # Until it has a process, the launcher's own deadline holds.
                if life is not None and life.phase == "starting" and life.launched is not None:
                    waited = min((starved or {}).get(life.start.name, 0.0), credit)
                    excused_ms_max = START_STARVED_MS_MAX * _start_patience(place)
                    waited = min(waited, max(excused_ms_max - life.starved_ms, 0.0))
                    life.starved_ms += waited
                    life.patience_ms += credit - waited

    def answered_again(self, unproven_ms: float) -> None:
        """Note that the log answers again after so long; a long absence earns everybody a grace."""
        if unproven_ms < OUTAGE_MS:
            return
        for place in self.places.values():
            place.grace_ms = RECOVERY_MS
            if _patience(place) == PATIENCE[0]:
                # Who is given more time than lies between two absences would never be found.
                place.silence_ms = 0.0

    def is_calm(self) -> bool:
        """Whether every shard has all that it should, so that a spare may be made."""
        if self._draining:
            return False
        for place in self.places.values():
            if place.stopped:
                continue
            if place.owner is None or place.owner.phase != "live":
                return False
            if self._settings.standby and (
                place.standby is None or place.standby.phase == "starting"
            ):
                return False
        return True

    def drain(self) -> None:
        """Start nobody any more."""
        self._draining = True

    # ----- what follows -----------------------------------------------------------------------

    def plan(self, now_ms: int) -> list[Action]:
        """Return what to do now. Acting on it is the caller's; this remembers that it was said."""
        if self._draining:
            return []
        actions: list[Action] = []
        for place in self.places.values():
            self._forgive(place, now_ms)
            actions += self._replace_hung(place, now_ms)
            actions += self._promote(place)
        actions += self._start_one(now_ms)
        return actions

    def _forgive(self, place: Place, now_ms: int) -> None:
        owner = place.owner
        if owner is None or owner.live_since_ms is None:
            return
        if place.trying:
            return  # it may be silent, and is given its time
        if now_ms - owner.live_since_ms >= HEALTHY_MS:
            place.deaths = place.thwarted = place.hangs = place.stalls = 0
            place.cautious = False

    def _replace_hung(self, place: Place, now_ms: int) -> list[Action]:
        actions: list[Action] = []
        for life in (place.owner, place.standby):
            if life is None:
                continue
            if life.phase == "starting" and self._is_stalled(place, life):
                why = f"no progress for {life.patience_ms:.0f} ms while starting"
                # Whoever announced something is live as soon as that was read: this one fell on
                # nothing, or its last record stands where we cannot read.
                self._pardon(place, life)
                place.stalls += 1
                self._tell_of_patience(place, place.stalls + 1, "starts end without progress")
            elif life.phase == "live" and self._is_hung(place):
                why = f"no mark for {place.silence_ms:.0f} ms of proven time"
                if _patience(place) < PATIENCE[-1]:
                    self._pardon(place, life)
                place.hangs += 1
                self._tell_of_patience(place, place.hangs, "owners fall silent")
            else:
                continue
            actions.append(Kill(life.start.name, why))
            self._ended(life.start.name, None, why, now_ms)
        return actions

    def _is_hung(self, place: Place) -> bool:
        return place.silence_ms >= self._settings.silence_ms * _patience(place)

    def _is_stalled(self, place: Place, life: Life) -> bool:
        return life.patience_ms >= self._settings.start_ms * _start_patience(place)

    def _pardon(self, place: Place, life: Life) -> None:
        """Hold the end of one of ours against no record."""
        place.pardoned.append(life.start.owner)
        del place.pardoned[:-PARDONED_MAX]

    def _tell_of_patience(self, place: Place, step: int, why: str) -> None:
        """Tell a person when a shard comes to the most patience: it may be long without owner."""
        if step == len(PATIENCE):
            told = f"{why}, one after the other: the next has {PATIENCE[-1]} times as long"
            self.alarms.append(Alarm("most_patience", place.shard, told))

    def _promote(self, place: Place) -> list[Action]:
        if place.owner is not None or place.standby is None or place.stopped:
            return []
        place.owner, place.standby = place.standby, None
        place.owner.phase = "starting"
        place.owner.patience_ms = place.owner.starved_ms = 0.0
        place.silence_ms = 0.0
        return [TakeOver(place.owner.start.name)]

    def _start_one(self, now_ms: int) -> list[Action]:
        """Return at most one start: warming kernels on all cores at once starves the living."""
        for place in self.places.values():
            for life in (place.owner, place.standby):
                if life is not None and life.phase == "starting" and not self._is_slow(life):
                    return []
        for place in self.places.values():
            if place.owner is None and not place.stopped and now_ms >= place.not_before_ms:
                return [self._launch(place, standby=False)]
        if not self._settings.standby:
            return []
        for place in self.places.values():
            wanted = place.owner is not None and place.standby is None and not place.stopped
            if wanted and now_ms >= place.standby_not_before_ms:
                return [self._launch(place, standby=True)]
        return []

    def _is_slow(self, life: Life) -> bool:
        """Whether a start has had all the time of one that nobody fell before: others go on."""
        waited_ms = life.patience_ms + life.starved_ms
        most_ms = self._settings.start_ms + START_STARVED_MS_MAX
        return life.patience_ms >= self._settings.start_ms or waited_ms >= most_ms

    def _launch(self, place: Place, *, standby: bool) -> Launch:
        start = Start(
            shard=place.shard,
            number=place.next_number,
            owner=self._new_owner(),
            standby=standby,
            # A standby takes over when somebody died, and mostly nobody will know why.
            cautious=place.cautious or standby,
            pardoned=tuple(place.pardoned),
        )
        place.next_number += 1
        if standby:
            place.standby = Life(start)
        else:
            place.owner = Life(start)
            place.silence_ms = 0.0
        return Launch(start)

    def _ended(self, name: str, end: str | None, detail: str, now_ms: int) -> None:
        life = self.life(name)
        if life is None:
            return  # killed by us and counted then
        place = self.places[life.start.shard]
        place.ends.append(f"{name}: {end or 'unexplained'}: {detail}")
        del place.ends[:-20]
        if end in STOP_LOUDLY:
            place.stopped = f"{end}: {detail}"
            self.alarms.append(Alarm("shard_stopped", place.shard, f"{name}: {detail}"))
        if life is place.standby:
            place.standby = None
            place.standby_not_before_ms = now_ms + self._settings.backoff_ms_max // 3
            return
        place.owner = None
        place.silence_ms = 0.0
        place.trying = False
        if end == "drained":
            return
        if end in THWARTED:
            place.thwarted += 1
            wait_ms = min(_backoff_ms(place.thwarted), THWARTED_MS_MAX)
        else:
            place.deaths += 1
            wait_ms = _backoff_ms(place.deaths)
        # One to whom the log did not answer may have been trying something (decision 0072).
        place.cautious = place.cautious or end in (None, "no_answer")
        place.not_before_ms = now_ms + min(wait_ms, self._settings.backoff_ms_max)
        self.alarms.append(Alarm("owner_ended", place.shard, f"{name}: {end or detail}"))

    def life(self, name: str) -> Life | None:
        """Return what is known of a process that is not yet given up."""
        for place in self.places.values():
            for life in (place.owner, place.standby):
                if life is not None and life.start.name == name:
                    return life
        return None


def _backoff_ms(ends: int) -> int:
    """Return how long to wait after so many ends in a row: the first is answered at once."""
    return 0 if ends == 1 else BACKOFF_FIRST_MS * 2 ** min(ends - 2, 20)


def _patience(place: Place) -> int:
    """Return how many times longer than others a shard's owner may be silent now."""
    if not place.trying:
        return PATIENCE[0]
    return PATIENCE[min(max(place.hangs - 1, 0), len(PATIENCE) - 1)]


def _excused_ms_max(place: Place) -> float:
    """Return for how long waiting for a processor is taken off an owner's silence."""
    return float(STARVED_MS_MAX * _patience(place))


def _start_patience(place: Place) -> int:
    """Return how many times longer than others a shard's start may show no progress now."""
    return PATIENCE[min(place.stalls, len(PATIENCE) - 1)]


def _unheard_ms(place: Place, life: Life) -> float:
    """Return the proven time since a start showed progress, or since an owner's last mark."""
    if life.phase == "starting":
        return life.patience_ms + life.starved_ms
    return place.silence_ms + place.starved_ms if life.phase == "live" else 0.0
