"""Where a Java program puts what it needs only while it runs."""

import shutil
from pathlib import Path


def java_scratch(folder: Path) -> tuple[str, ...]:
    """Return the options that make a JVM keep its temporary files in ``folder``/scratch, emptied.

    A JVM removes them when it ends by itself, and one that is killed does not: QuestDB unpacks 9 MB
    of native libraries at every start. In a folder of its own they go with its data, and at the
    next start. Its performance file lies in the system's temporary folder whatever it is told, so
    it is left out.
    """
    scratch = (folder / "scratch").resolve()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return (f"-Djava.io.tmpdir={scratch}", "-XX:-UsePerfData")
