"""Everything that can go wrong on purpose.

Four kinds. A *rejected input* names the delta or request at fault and harms nobody else. A *failed
dependency* is worth retrying. A *fenced writer* must stop at once. A *log fault* means that the
record of the past is not what it must be, and stops its reader loudly. A broken invariant is none
of these: it is a bug, it is an ``AssertionError``, and nothing catches it.
"""


class PricingError(Exception):
    """Root of every error this system raises deliberately."""

    retry: bool = False
    """Whether trying the same thing again may succeed."""


class RejectedInput(PricingError):
    """Input that breaks a stated rule; names the field and the fix.

    ``pointer`` is a JSON pointer (RFC 6901) into the offending document, ``""`` for the whole.
    """

    def __init__(self, pointer: str, problem: str, fix: str = "") -> None:
        super().__init__(f"{pointer or 'input'}: {problem}" + (f" ({fix})" if fix else ""))
        self.pointer = pointer
        self.problem = problem
        self.fix = fix


class NotSupported(RejectedInput):
    """Input that we know by name and do not build yet: refused, never accepted and ignored."""


class Overlooked(UserWarning):
    """A simulation's deltas were not taken, or its retailer was halted, and no price says so.

    Only ``repricer.decide`` warns: whoever has a log of his own reads ``exceptions`` and
    ``catalogue`` of what was decided, and so may a simulation that silences this.
    """


class FailedDependency(PricingError):
    """A store, a broker or a peer did not do what it was asked in time."""

    retry = True


class AppendInDoubt(FailedDependency):
    """An append was sent and its acknowledgement did not come: it is neither success nor failure.

    Whoever catches this abandons the appender, seals again and looks (DESIGN.md section 4, rule 3).
    """

    retry = False


class WriteInDoubt(FailedDependency):
    """A store was told to write and did not answer: read back before writing again."""


class StaleEpoch(PricingError):
    """A replaced shard tried to write.

    Each start of a shard takes a higher epoch, and a reader accepts only the highest it has seen.
    Whoever catches this owns nothing any more: stop, do not retry, do not tidy up.
    """

    def __init__(self, shard: int, writer_epoch: int, current_epoch: int) -> None:
        super().__init__(f"shard {shard}: epoch {writer_epoch} was replaced by {current_epoch}")
        self.shard = shard
        self.writer_epoch = writer_epoch
        self.current_epoch = current_epoch


class CursorFenced(PricingError):
    """A follower's cursor was moved by another: stop, the other one writes now."""


class LogFault(PricingError):
    """The log contradicts what was acknowledged or remembered; going on would hide a loss."""


class LogTruncated(LogFault):
    """Records that we still need are gone from the head of the log."""


class LogRegressed(LogFault):
    """The log's end lies before an offset that was acknowledged to us."""


class SequenceGap(LogFault):
    """A decision's ``seq`` is higher than the next expected."""


class CorruptRecord(LogFault):
    """A record's checksum or layout is wrong."""


class CorruptCheckpoint(PricingError):
    """A checkpoint fails its checksum or names a record that is not valid in the log."""


class CorruptBlob(PricingError):
    """A stored blob is not what was put there; it is never handed out."""


class IncompatibleCheckpoint(CorruptCheckpoint):
    """A checkpoint is whole, but of a version that this one does not read.

    Whoever has an older one that is read, or the log from its start, goes on with that.
    """

    def __init__(self, *, found: str, wanted: str, name: str = "") -> None:
        super().__init__(
            f"checkpoint {name or 'part'}: it is of {found}, this version reads {wanted}; start "
            "the version that wrote it, or go on without: an older checkpoint that is read, or the "
            "log from its start, takes its place"
        )
        self.found = found
        self.wanted = wanted
        self.name = name

    def of(self, name: str) -> "IncompatibleCheckpoint":
        """Return the same about the file ``name``."""
        return IncompatibleCheckpoint(found=self.found, wanted=self.wanted, name=name)


class ClockFault(PricingError):
    """The wall clock jumped or disagrees with the broker's; the owner stops."""


class SettingsRefused(PricingError):
    """The cluster's settings contradict what the log or a store records."""


class DeadlinePassed(FailedDependency):
    """What was asked for did not come before the asker's deadline; he may ask again."""


class MurderousBatch(PricingError):
    """A microbatch killed its owners and there is no delta to blame: the shard stops, loudly."""
