# Of a clone, with Spack 1.0 or later:
#   spack repo add CLONE/scripts/packaging/spack/spack_repo/cmp
#   spack external find cuda     (or Spack downloads the whole toolkit, for its headers)
#   spack install cmp-preload    (what the clone has committed)
#   spack load cmp-preload
# With what is not committed: spack dev-build -d CLONE cmp-preload@VERSION
from spack_repo.builtin.build_systems.cmake import CMakePackage, generator

from spack.package import *


class CmpPreload(CMakePackage):
    """A tiered, thread-cached CUDA memory pool under unmodified programs."""

    # The clone that this lies in. Not the bare path: of a shallow clone git would then not end.
    git = f"file://{ancestor(__file__, 8)}"

    license("Apache-2.0")

    version("0.2.0")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.22:", type="build")
    depends_on("ninja", type="build")
    depends_on("cuda@12:13", type="build")  # the headers alone
    depends_on("python@3.8:", type="run")

    requires("platform=linux")

    generator("ninja")

    def cmake_args(self):
        return [
            self.define("CMP_TESTS", False),
            self.define("CMP_CUDA_INCLUDE", self.spec["cuda"].prefix.include),
        ]

    def test_run(self):
        """A program runs under the library."""
        cmp_preload = Executable(self.prefix.bin.join("cmp-preload"))
        cmp_preload("--version")
        cmp_preload("run", "--", "true")
