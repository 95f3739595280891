"""Commands about what has not begun: a backfill's course and settings, and ways to move bytes."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lakehouse_pipeline.cli.common import as_json, config, exits, load, say

if TYPE_CHECKING:
    from lakehouse_pipeline.planning.transfer import Origin


@click.command()
@click.argument("table")
@click.argument("hours", metavar="RANGE")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the plan here, for `backfill --plan`.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it here, as PNG.")
@click.option("--bytes", "bytes_", metavar="SIZE", help="Of an hour's files in the table, such as 1.2TB.")
@click.option("--files", type=click.IntRange(min=1), help="Data files of an hour.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="That an hour takes by itself.")
@click.option("--at-most", type=click.IntRange(min=1), help="Hours at once that the engine has room for.")
@click.option("--force", is_flag=True, help="As for `backfill --force`: hours that are unchanged are run, too.")
@click.option(
    "--unseen", is_flag=True, help="Do not look at catalog and sources: --bytes, --files and --seconds count."
)
@config
@as_json
@exits
def plan(
    table: str,
    hours: str,
    *,
    output: Path | None,
    plot: Path | None,
    bytes_: str | None,
    files: int | None,
    seconds: float | None,
    at_most: int | None,
    config: Path | None,
    force: bool,
    unseen: bool,
    as_json: bool,
) -> None:
    """Predict a backfill: hours, requests, 503s and orphans, and recommend settings; nothing is run.

    Figures of an hour are those of hours that were run before, unless given; S3's request scaling is simulated.
    """
    from lakehouse_pipeline.backfill.figures import Asked
    from lakehouse_pipeline.backfill.forecast import NothingToRunError, forecast
    from lakehouse_pipeline.backfill.forecast_text import as_json as told_json
    from lakehouse_pipeline.backfill.forecast_text import lines
    from lakehouse_pipeline.hours import parse_range
    from lakehouse_pipeline.iceberg.warehouse import Warehouse
    from lakehouse_pipeline.status.plan_drawing import draw_plan

    lakehouse, asked = load(config), parse_range(hours)
    spec = lakehouse.spec(table)
    known = Asked(_size("--bytes", bytes_) if bytes_ else None, files, seconds, at_most, force=force)
    warehouse = None if unseen else Warehouse.open(lakehouse.catalog)
    if not as_json:
        click.echo(str(asked))
    try:
        told = forecast(lakehouse, spec, warehouse, asked, asked=known)
    except NothingToRunError as error:  # as for a backfill that skips all: done
        say({"table": table, "to_run": 0, "why": str(error)}, [str(error)], as_json=as_json)
        return
    if output:
        _write(output, f"{json.dumps(told_json(told), indent=2)}\n".encode())
    if plot:
        _write(plot, draw_plan(told))
    file = output or "plan.json"
    given = {"-c": config, "--bytes": bytes_, "--files": files, "--seconds": seconds, "--at-most": at_most, "-o": file}
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    again = shlex.join(["lakehouse", "plan", table, hours, *["--force"] * force, *["--unseen"] * unseen, *words])
    own = ["-c", str(config)] if config else []
    apply = shlex.join(["lakehouse", "backfill", table, hours, *["--force"] * force, *own, "--plan", str(file)])
    say(told_json(told), [*lines(told), f"Next: {'' if output else f'{again}, then '}{apply}"], as_json=as_json)


@click.command()
@click.option("--from", "origins", metavar="REGION=SIZE[/OBJECTS]", multiple=True, required=True, help="Raw bytes.")
@click.option("--compute", metavar="REGION", required=True, help="Where the ETL runs.")
@click.option("--to", metavar="REGION", help="Where its result is needed; else where it runs.")
@click.option("--reads", type=click.IntRange(min=0), default=1, help="How often the ETL reads each byte; 0 only moves.")
@click.option("--result", metavar="SIZE", default="0B", help="What the ETL makes of all of them.")
@click.option("--deadline", metavar="SPAN", help="Until all has to be there, such as 14d.")
@click.option("--has", "has", multiple=True, metavar="WHAT", help="What a way may need, such as 'private link'.")
@click.option("--compute-moves", is_flag=True, help="The ETL may run where the data is.")
@click.option("--fastest", is_flag=True, help="Choose the fastest feasible way, not the cheapest.")
@click.option("--book", type=click.Path(path_type=Path), help="Own ways and prices, as YAML.")
@as_json
@exits
def ways(
    *,
    origins: tuple[str, ...],
    compute: str,
    to: str | None,
    reads: int,
    result: str,
    deadline: str | None,
    has: tuple[str, ...],
    book: Path | None,
    compute_moves: bool,
    fastest: bool,
    as_json: bool,
) -> None:
    """Cost every way to get bytes to where they are needed, and choose: as a database explains a query.

    lakehouse ways --from eu-west-1=570TB/45600000 --compute us-east-1 --result 100TB --deadline 14d
    """
    from lakehouse_pipeline.config.quantities import read_age
    from lakehouse_pipeline.planning import transfer_text
    from lakehouse_pipeline.planning.price_book import read_book, shipped_book
    from lakehouse_pipeline.planning.transfer import Question, plan_transfer

    question = Question(
        tuple(_origin(each) for each in origins),
        compute=compute,
        destination=to or compute,
        reads=reads,
        result_bytes=_size("--result", result),
        deadline_s=read_age(deadline).total_seconds() if deadline else None,
        has=frozenset(has),
        compute_moves=compute_moves,
        want="fastest" if fastest else "cheapest",
    )
    found = plan_transfer(question, read_book(book) if book else shipped_book())
    say(transfer_text.as_json(found), list(transfer_text.explain(found)), as_json=as_json)


def _write(file: Path, content: bytes) -> None:
    from lakehouse_pipeline.errors import ConfigurationError

    try:
        file.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from None


def _origin(text: str) -> "Origin":
    from lakehouse_pipeline.errors import ConfigurationError
    from lakehouse_pipeline.planning.transfer import Origin

    region, _, rest = text.partition("=")
    size, _, objects = rest.partition("/")
    if not region or not size or not (objects or "1").isdecimal():
        raise ConfigurationError(f"--from {text}: write REGION=SIZE or REGION=SIZE/OBJECTS, as eu-west-1=2TB/4000")
    return Origin(region, _size("--from", size), int(objects or 1))


def _size(option: str, text: str) -> int:
    from lakehouse_pipeline.errors import ConfigurationError
    from lakehouse_pipeline.planning.units import read_bytes

    try:
        return read_bytes(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{option}: {error}") from None
