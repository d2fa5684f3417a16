"""`python -m clients`: run the programs, and print one table; 1 if any figure differs."""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from clients.registry import CLIENTS
from clients.run import Result, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m clients", description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of names; without any, all")
    wanted = tuple(parser.parse_args().names) or ("",)
    console = Console()
    chosen = [client for client in CLIENTS if client.name.startswith(wanted)]
    if not chosen:
        parser.error("there are " + ", ".join(client.name for client in CLIENTS))
    results = []
    for client in chosen:
        with console.status(client.name):
            result = run(client)
        results.append(result)
        for problem in result.problems:
            console.print(f"{client.name}: {problem}", markup=False, highlight=False)
    console.print(table(results))
    return int(any(result.problems for result in results))


def table(results: list[Result]) -> Table:
    """Both sides of each program in one row; what it never tells is counted apart."""
    shown = Table("client", "version")
    for title in ("served", "metered", "tokens served", "tokens metered", "not told"):
        shown.add_column(title, justify="right")
    shown.add_column("ok")
    for result in results:
        sides = (result.served, result.metered)
        shown.add_row(
            result.client.name,
            result.version,
            *(str(len(side)) for side in sides),
            *(f"{sum(one.input_tokens + one.output_tokens for one in side):,}" for side in sides),
            str(result.untold),
            "no" if result.problems else "yes",
        )
    return shown


if __name__ == "__main__":
    sys.exit(main())
