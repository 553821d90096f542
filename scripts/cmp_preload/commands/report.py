"""cmp-preload report: what statistics and traces of one or many processes say."""

from __future__ import annotations

from cmp_preload.console.arguments import Parser, add_operands
from cmp_preload.console.errors import Failure
from cmp_preload.records.collection import Collection
from cmp_preload.reporters import json, page, text

ABOUT = """Says how runs went and what to do. FILE is what CMP_STATS or cmp-preload run --reports left: the
JSON of a process that ended, or FILE.live of one that runs or was killed; or a trace (CMP_TRACE,
cmp-preload run --trace), or a CSV of RMM's logging resource. A folder stands for all statistics and
traces in it."""


def parser_of(_library=None) -> Parser:
    parser = Parser("report", ABOUT, "FILE...")
    parser.add_argument(
        "--html", metavar="PAGE", help="write one page with plots"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument(
        "--all", action="store_true", help="every process and size, not only the busiest"
    )
    add_operands(parser, "files", "*", "FILE")
    return parser


def main(arguments: list[str], find_library) -> int:
    parsed = parser_of().parse(arguments)
    if not parsed.files:
        raise Failure("which file? Give statistics files or traces, or a folder of them", 2)
    found = Collection(parsed.files, find_library)
    if parsed.html is not None:
        page.write(parsed.html, found, parsed.all)
    print(json.report(found) if parsed.json else text.report(found, parsed.all))
    return 0
