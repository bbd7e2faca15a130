"""`make bench`: every case with its yardstick, one JSON line each, and a table at the end."""

import argparse
import sys
from collections.abc import Callable, Iterator

from tests.bench.bench_memory import memory
from tests.bench.bench_metadata import metadata
from tests.bench.bench_pages import pages
from tests.bench.bench_start import start
from tests.bench.bench_stores import stores
from tests.bench.bench_transfer import downloads, latency, uploads
from tests.bench.measure import Result, table
from tests.bench.subjects import Missing

CASES: dict[str, Callable[[bool], Iterator[Result]]] = {
    "download": downloads,
    "upload": uploads,
    "latency": latency,
    "metadata": metadata,
    "memory": memory,
    "start": start,
    "pages": pages,
    "stores": stores,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller and fewer runs")
    parser.add_argument(
        "case",
        nargs="*",
        choices=[[], *CASES],
        metavar="case",
        help=f"{', '.join(CASES)}; all, if none is named",
    )
    args = parser.parse_args()
    results: list[Result] = []
    for name in args.case or CASES:
        try:
            for result in CASES[name](args.quick):
                results.append(result)
                print(result.as_json(), flush=True)
        except Missing as error:
            print(f"{name}: {error}", file=sys.stderr)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
