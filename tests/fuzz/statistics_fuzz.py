"""Statistics files and live counters: what cmp-preload report makes of them."""

import os

import driver
from cmp_preload.pool.library import Library
from cmp_preload.records.collection import Collection
from cmp_preload.reporters import json, text

LIBRARY = Library(os.environ["CMP_TEST_LIBRARY"])


def read(path):
    found = Collection([path], lambda: LIBRARY)
    text.report(found, True)
    text.report(found, False)
    json.report(found)


if __name__ == "__main__":
    driver.main(read)
