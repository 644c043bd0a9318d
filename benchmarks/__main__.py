"""`python -m benchmarks`: measure, and print the results beside the aims."""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.measure import CROWD, DOWNLOADS, FILE_BYTES, IN_FLIGHT, Bench, Compared, Effort, Report

GET_RATIO, CREATE_RATIO, CONTENT_RATIO = 0.5, 0.4, 0.8
IDLE_CORES, POLL_CORES = 0.01, 0.5
FIRST_START_S, START_S = 10, 3

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(width=None if sys.stdout.isatty() else 110)


@cli.command()
def main(
    quick: Annotated[bool, typer.Option(help="About a minute instead of four; rougher numbers.")] = False,
    connections: Annotated[int, typer.Option(min=1, help="Concurrent requests.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of gateway and comparison.")] = 4,
) -> None:
    """Measure one server process with an embedded database against bare routes on the same machine.

    The ratios compare alternating runs; the numbers themselves depend on the machine as much as on the code.
    """
    effort = Effort(rounds, run_s=5, idle_s=15, poll_s=15, connections=connections)
    if quick:
        effort = Effort(min(rounds, 2), run_s=1.5, idle_s=5, poll_s=8, connections=connections)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder, console.status("") as status:
        Path(folder).chmod(0o711)  # the embedded database may run as another user
        report = Bench(Path(folder), effort, status.update).run()
    console.print(_speeds(report), _floods(report), _costs(report))


def _speeds(report: Report) -> Table:
    table = Table(title="Speed of one process, beside bare routes on the same uvicorn")
    for name in ("", "gateway", "p50 ms", "p99 ms", "raw", "bare", "ratio", "aim"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    _add(table, "create", report.create, CREATE_RATIO)
    _add(table, "GET", report.get, GET_RATIO)
    _add(table, f"{FILE_BYTES // 2**20} MiB video file", report.content, CONTENT_RATIO)
    return table


def _add(table: Table, name: str, measured: Compared, aim: float) -> None:
    table.add_row(
        f"{name}, {measured.unit}",
        f"{measured.speed(measured.gateway):,.0f}",
        f"{measured.percentile_ms(50):.1f}",
        f"{measured.percentile_ms(99):.1f}",
        f"{measured.speed(measured.raw):,.0f}",
        f"{measured.speed(measured.bare):,.0f}" if measured.bare else "",
        _verdict(f"{measured.ratio:.2f}", measured.ratio >= aim),
        f">= {aim}",
    )


def _floods(report: Report) -> Table:
    table = Table(title="Creates while a worker submits them")
    for name in (
        "upstream answers in",
        "processes",
        "create, 1/s",
        "p50 ms",
        "p99 ms",
        "accepted upstream, 1/s",
        "CPU ms",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for flood in report.floods:
        percentiles = statistics.quantiles(flood.create.latencies_ms, n=100)
        table.add_row(
            f"{flood.delay_s:g} s",
            f"{flood.processes}",
            f"{flood.create.per_s:,.0f}",
            f"{percentiles[49]:.1f}",
            f"{percentiles[98]:.1f}",
            f"{flood.accepted_per_s:,.0f}",
            f"{flood.cpu_ms:.1f}",
        )
    return table


def _costs(report: Report) -> Table:
    table = Table(title="Costs")
    for name in ("", "measured", "aim"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    idle, polling, start = report.idle_cores, report.polling, report.start
    table.add_row("idle server and worker", _verdict(f"{idle:.2%} of a core", idle < IDLE_CORES), f"< {IDLE_CORES:.0%}")
    table.add_row(
        f"{IN_FLIGHT:,} polled every 5 s (seen: {polling.per_s:.0f}/s)",
        _verdict(f"{polling.cores:.0%} of a core", polling.cores < POLL_CORES),
        f"< {POLL_CORES:.0%}",
    )
    near = report.neighbours
    table.add_row(
        f"create to submit, alone and behind {CROWD:,} jobs", f"{near.alone_ms:.0f}, {near.behind_ms:.0f} ms", ""
    )
    table.add_row(
        f"memory, then {DOWNLOADS} downloads", f"{report.memory.rss_mb:.0f}, {report.memory.peak_mb:.0f} MB", ""
    )
    table.add_row(
        "first start", _verdict(f"{start.first_s:.1f} s", start.first_s < FIRST_START_S), f"< {FIRST_START_S} s"
    )
    table.add_row("later start", _verdict(f"{start.later_s:.1f} s", start.later_s < START_S), f"< {START_S} s")
    return table


def _verdict(text: str, good: bool) -> str:
    return f"[green]{text}[/]" if good else f"[red]{text}[/]"


if __name__ == "__main__":
    cli()
