"""Programs: what cmp-preload run and doctor read of a file before it is started."""

import os

import driver
from cmp_preload.pool import program_file


def read(path):
    elf = program_file.read_elf(path)
    assert elf is None or elf.bits in (32, 64)
    if elf is not None:
        assert len(elf.interpreter) <= 4096 and all(len(name) <= 256 for name in elf.needed)
    program_file.links_static_runtime(path)
    program_file.script_interpreter(path)
    os.chmod(path, 0o700)
    reason = program_file.why_not_preloaded(path)
    assert reason is None or reason.isprintable()


if __name__ == "__main__":
    driver.main(read)
