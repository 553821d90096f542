"""Unpacks the headers and the shared runtime of NVIDIA's CUDA packages.

  unpack_headers.py FOLDER_OF_WHEELS TARGET

makes TARGET/include (cuda.h, driver_types.h, crt/, ...) and TARGET/lib (libcudart.so.N).
"""

import pathlib
import sys
import zipfile


def main() -> int:
    wheels, target = map(pathlib.Path, sys.argv[1:3])
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                parts = pathlib.PurePosixPath(name).parts
                if name.endswith("/") or ".." in parts:
                    continue
                if "include" in parts:
                    rest = parts[parts.index("include"):]
                elif "lib" in parts and parts[-1].startswith("libcudart.so"):
                    rest = ("lib", parts[-1])
                else:
                    continue
                place = target.joinpath(*rest)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(archive.read(name))
    if not (target / "include" / "cuda.h").exists():
        print(f"no cuda.h in the packages of {wheels}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
