"""The papers point at things that exist, and claims name the command that measures them."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAPERS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_links_lead_somewhere(paper: Path) -> None:
    """A relative link names a file of the repository."""
    links = [link for link in LINK.findall(paper.read_text()) if "://" not in link]
    lost = [link for link in links if not (paper.parent / link).exists()]
    assert not lost, lost


def evidence_rows() -> list[list[str]]:
    """Return the cells of every row of every table in the evidence."""
    lines = (ROOT / "docs" / "evidence.md").read_text().splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    cells = [[cell.strip() for cell in row] for row in rows if len(row) == 6]
    return [row for row in cells if row[0] != "Row"]


def test_the_evidence_has_a_row_for_every_claim() -> None:
    """The issue that built the spine lists its claims from a to k; each has at least one row."""
    letters = {row[0][:1] for row in evidence_rows()}
    assert letters >= set("abcdefghijk"), sorted(set("abcdefghijk") - letters)


def test_every_claim_names_a_command_that_exists() -> None:
    """A command is a target of make, a module run by python -m, or a verb of repricer."""
    makefile = (ROOT / "Makefile").read_text()
    wrong = []
    for row in evidence_rows():
        command = re.search(r"`([^`]+)`", row[2])
        text = command.group(1) if command else ""
        if text.startswith("make "):
            known = re.search(rf"^{re.escape(text.split()[1])}:", makefile, re.M) is not None
        elif match := re.search(r"python -m ([a-z_.]+)", text):
            module = ROOT / match.group(1).replace(".", "/")
            known = module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()
        else:
            known = text.startswith("repricer ")
        if not known:
            wrong.append(row[2])
    assert not wrong, wrong


def test_every_package_is_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    folders = {line.partition("/")[0] for line in tracked.splitlines() if "/" in line}
    assert not {folder for folder in folders if f"`{folder}/`" not in text}


FILE_NAMED = re.compile(r"`((?:[a-z_]+/)+(?:[a-z_]+\.[a-z]+)?)`")


@pytest.mark.parametrize("paper", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"])
def test_every_file_and_folder_named_is_there(paper: str) -> None:
    named = FILE_NAMED.findall((ROOT / paper).read_text())
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_architecture_has_every_verb_and_no_other() -> None:
    """Each stands once, beside the file that holds it."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| (`[^|]+`) \| `(cluster/commands/[a-z]+\.py)` \|$", text, re.M)
    told = {verb: file for verbs, file in rows for verb in re.findall(r"`([a-z-]+)`", verbs)}
    calls = re.findall(
        r"app\.command\((?:([a-z]+)\.)?([a-z_]+)", (ROOT / "cluster" / "__main__.py").read_text()
    )
    groups = {"models": "modelling", "config": "setting"}  # verbs of verbs
    held = {
        verb.replace("_", "-"): f"cluster/commands/{module or groups[verb]}.py"
        for module, verb in calls
    }
    assert told == held
