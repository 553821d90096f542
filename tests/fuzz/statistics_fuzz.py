"""Statistics files and live counters: what cmp-preload report makes of them."""

import json
import os

import driver
from cmp_preload import report
from cmp_preload.library import Library

LIBRARY = Library(os.environ["CMP_TEST_LIBRARY"])


def read(path):
    found = report.Found([path], lambda: LIBRARY)
    report.as_text(found, True)
    report.as_text(found, False)
    json.dumps(found.as_json())


if __name__ == "__main__":
    driver.main(read)
