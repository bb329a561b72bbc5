"""``exam``: how much the engine's prices earn, in worlds whose best prices are known."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from msgspec.structs import asdict

from cluster.commands.speaking import FAILURE, OK, Common, Voice, progress_of, table
from engine.errors import RejectedInput


def exam(
    *,
    scenarios: Annotated[
        str, Parameter(help="worlds or groups of them, with commas: S1,S6 or scenarios,perturbed")
    ] = "scenarios",
    seeds: Annotated[int, Parameter(help="how many seeds, from --first-seed on")] = 5,
    first_seed: Annotated[int, Parameter(help="the first seed")] = 1,
    listings: Annotated[int, Parameter(help="listings of a world")] = 2000,
    days: Annotated[int, Parameter(help="days that the engine prices")] = 180,
    markdown: Annotated[bool, Parameter(help="clear overstocked seasons, too")] = True,
    arena: Annotated[bool, Parameter(help="sell against bots, and against ourselves")] = True,
    poisoning: Annotated[bool, Parameter(help="let rivals' feeds lie, in many ways")] = True,
    experiments: Annotated[bool, Parameter(help="judge the tests of experiments, too")] = True,
    policy: Annotated[
        Path | None,
        Parameter(help="JSON object of policy fields, over the exam's own, for all worlds"),
    ] = None,
    oj: Annotated[
        Path | None, Parameter(help="Dominick's orange juice, a Parquet file: the real-data half")
    ] = None,
    peers: Annotated[
        bool,
        Parameter(negative="", help="XGBoost and Prophet on the same rows; needs --oj, extra exam"),
    ] = False,
    prophet_series: Annotated[
        int, Parameter(help="series that Prophet gets, a fit each and round; 0: without Prophet")
    ] = 33,
    out: Annotated[Path | None, Parameter(help="folder for exam.md, exam.json and plots")] = None,
    common: Common | None = None,
) -> int:
    """Sit the exam: the production shard in simulated markets, against a clairvoyant.

    Groups: `scenarios` (S1 to S10), `perturbed` (worlds of our own), `all`. Exits with 1 when a
    goal is missed. Nothing is special-cased: one policy for all worlds, printed with the results.
    """
    from training.exam import arena as fighting
    from training.exam import calibration as believing
    from training.exam import experiments as trying
    from training.exam import juice as reading
    from training.exam import off_policy, orange_juice, seasonal, shelves, simulated, standings
    from training.exam import poisoning as lying
    from training.exam.attacks import ATTACKS
    from training.exam.driving import POLICY

    voice = Voice(common)
    try:
        named = simulated.worlds_named(scenarios.split(","))
    except KeyError as error:
        raise RejectedInput("/scenarios", f"{error} is no world", "see docs/exam.md") from None
    terms = None if policy is None else {**POLICY, **_fields(policy)}
    chosen = range(first_seed, first_seed + seeds)
    rows = []
    with _counted(voice, "exam", len(named) * seeds * days) as told:
        for row in simulated.examine(named, chosen, listings, days, terms, told=told):
            rows.append(row)
            voice.say("  ".join(simulated.cells(row)))
    judged = simulated.verdicts(rows)
    parts: dict[str, Any] = {}
    pages: dict[str, str] = {}  # parts that write their own page
    drawn: dict[str, str] = {}  # plots by file name
    earning = table("Who earns what", *simulated.rival_headings())
    for row in rows:
        earning.add_row(*simulated.rival_cells(row))
    pages["who_earns_what"] = simulated.published_page(rows)
    tables = [earning]
    if beliefs := simulated.calibrations(rows):
        held = table("Beliefs, 90 % intervals", *believing.NARROW, believing.COLUMNS[-1])
        for world, each in beliefs:
            held.add_row(*believing.narrow_cells(world, each))
        tables.append(held)
        pages["beliefs"] = believing.calibration_page(beliefs, "beliefs.svg")
        drawn["beliefs.svg"] = believing.calibration_plot(beliefs)
    if markdown:
        seasons = []
        with _counted(voice, "markdown", seeds) as told:
            for seed in chosen:
                seasons.append(seasonal.sit_season(seed, 2 * listings))
                told()
        parts["markdown"] = [asdict(season) for season in seasons]
        judged += seasonal.season_verdicts(seasons)
    if arena:
        with _counted(voice, "arena", len(fighting.OPPONENTS) * seeds) as told:
            bouts = fighting.sit_arena(chosen, told=told)
        parts["arena"] = [asdict(bout) for bout in bouts]
        judged += standings.arena_verdicts(bouts)
        fought = table("Arena, means over seeds", *standings.narrow_headings())
        for against, met in standings.by_opponent(bouts).items():
            fought.add_row(*standings.narrow_cells(against, met))
        tables.append(fought)
        pages["arena"] = standings.arena_page(bouts, "arena.svg")
        drawn["arena.svg"] = standings.arena_plot(bouts)
    if poisoning:
        with _counted(voice, "poisoning", (1 + len(ATTACKS)) * seeds) as told:
            suites = [lying.poison(seed, told=told) for seed in chosen]
        parts["poisoning"] = [asdict(suite) for suite in suites]
        judged += lying.poisoning_verdicts(suites)
        displaced = table("Poisoning: displacement, |log ratio| to the clean run", *lying.COLUMNS)
        for cells in lying.rows_of(suites):
            displaced.add_row(*cells)
        tables.append(displaced)
    if experiments:
        tests = trying.sit_sequential(first_seed, trying.REPETITIONS)
        designs = trying.sit_designs(first_seed, trying.SHOPS)
        parts["experiments"] = [asdict(board) for board in (*tests, *designs)]
        judged += trying.experiment_verdicts(tests, designs)
    if peers and oj is None:
        raise RejectedInput("/peers", "peers forecast the rows of --oj", "name the file")
    if oj is not None:
        if not oj.is_file():
            raise RejectedInput("/oj", f"{oj} is no file", "name the Parquet file")
        packages = reading.read_table(oj)
        juice = reading.juice_of(packages)
        kept: list[tuple[Any, Any]] = []
        weeks = int(juice.week.max()) + 1 - orange_juice.FIRST_WEEK
        with _counted(voice, "orange juice", weeks) as told:
            board = orange_juice.sit_juice(juice, told, kept)
        parts["orange_juice"] = asdict(board)
        judged += orange_juice.juice_verdicts(board)
        with _counted(voice, "off-policy", weeks) as told:
            shop = shelves.shelves_of(packages)
            proposed = shelves.proposals(shop, told)
        estimate = off_policy.judge(shop, proposed, first_seed)
        parts["off_policy"] = asdict(estimate)
        judged += off_policy.off_policy_verdicts(estimate)
        if peers:
            parts["peers"] = _peers(voice, juice, kept, prophet_series)
    heading = f"Exam: {seeds} seeds, {listings} listings, {days} days"
    whole = {**simulated.plain(rows), **parts}
    if terms is not None:
        heading += f", policy {msgspec.json.encode(terms).decode()}"
        whole["policy"] = terms
    whole["goals"] = [{"goal": goal, "reached": reached} for goal, reached in judged]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "exam.md").write_text(
            # A part that has a page of its own is told by that.
            simulated.page(
                rows, pages | {k: v for k, v in parts.items() if k not in pages}, judged, heading
            )
        )
        for file_name, plot in drawn.items():
            (out / file_name).write_text(plot)
        (out / "exam.json").write_bytes(msgspec.json.encode(whole))
    shown = table(heading, "world", *(name.replace("_", " ") for name, _ in simulated.COLUMNS))
    for row in rows:
        shown.add_row(*simulated.cells(row))
    goals = table("Goals", "", "")
    for goal, reached in judged:
        goals.add_row("reached" if reached else "MISSED", goal)
    voice.answer(whole, shown, *tables, goals)
    return OK if all(reached for _, reached in judged) else FAILURE


@contextmanager
def _counted(voice: Voice, name: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar, and give what moves it on by one."""
    with progress_of(voice) as progress:
        task = progress.add_task(name, total=total)
        yield lambda *_: progress.advance(task)


def _fields(path: Path) -> dict[str, object]:
    """Return a retailer's policy fields from a file.

    Raises:
        RejectedInput: it is no file, no JSON object, or holds what is no policy field.
    """
    from engine.policy import decode_fields

    try:
        fields = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except OSError as error:
        raise RejectedInput("/policy", f"{path}: {error.strerror}", "name a file") from None
    except msgspec.MsgspecError as error:
        problem = f"{path} is no JSON object: {error}"
        raise RejectedInput("/policy", problem, 'write {"endings": ["99"]}') from None
    decode_fields(fields)
    return fields


def _peers(
    voice: Voice, juice: Any, kept: list[tuple[Any, Any]], prophet_series: int
) -> list[dict[str, Any]]:
    """Let XGBoost and Prophet forecast the same rows, and tell all scores side by side."""
    from training.exam.orange_juice import ROUNDS
    from training.exam.peers import compared

    ours = [
        ("repricer, its median", [(rows, forecast.units) for rows, forecast in kept]),
        ("repricer, for MAPE", [(rows, forecast.least_relative) for rows, forecast in kept]),
    ]
    # XGBoost twice a round, and Prophet a series and round, where a series has rows in it.
    with _counted(voice, "peers", (2 + prophet_series) * len(ROUNDS)) as told:
        scores = compared(juice, ours, prophet_series=prophet_series, told=told)
    for of in scores:
        voice.say(
            f"{of.name}: {of.cells} cells, MAPE {of.mape:.2f}, WAPE {of.wape:.3f}, bias "
            f"{of.bias:+.3f}; moved: WAPE {of.moved_wape:.3f}, slope {of.slope:.2f}"
        )
    return [asdict(of) for of in scores]
