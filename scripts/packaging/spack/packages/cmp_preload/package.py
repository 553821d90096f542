# Of a clone, with Spack 1.0 or later:
#   spack repo add CLONE/scripts/packaging/spack
#   spack install cmp-preload          (with `spack develop --path CLONE cmp-preload` in an environment)
from spack.package import *
from spack_repo.builtin.build_systems.cmake import CMakePackage


class CmpPreload(CMakePackage):
    """A tiered, thread-cached CUDA memory pool under unmodified programs."""

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
