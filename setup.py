"""Builds the C engine and its two Cython borders; everything else is in pyproject.toml.

Environment switches, read here only:
  FASTLSTM_NO_OPENMP=1   build without threads
  FASTLSTM_SANITIZE=1    address and undefined-behaviour sanitizers; the first error ends the process
  FASTLSTM_DEBUG=1       -Og -g, assertions and symbols kept
"""

import contextlib
import glob
import os
import sys
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

PROBE = "int main(void) { return 0; }\n"
PROBE_OPENMP = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"


def switch(name):
    return os.environ.get(name, "0") not in ("", "0")


NO_OPENMP, SANITIZE, DEBUG = (switch(f"FASTLSTM_{name}") for name in ("NO_OPENMP", "SANITIZE", "DEBUG"))


def openmp_flags(msvc):
    """(compiler flags, linker flags) that turn OpenMP on."""
    if msvc:
        return ["/openmp:llvm"], []  # plain /openmp lacks what the engine asks for; untested
    if sys.platform == "darwin":  # Apple's clang has no libomp of its own, Homebrew keeps it aside; untested
        prefixes = [p for p in ("/opt/homebrew/opt/libomp", "/usr/local/opt/libomp") if os.path.isdir(p)]
        return (
            ["-Xpreprocessor", "-fopenmp", *(f"-I{p}/include" for p in prefixes)],
            [*(f"-L{p}/lib" for p in prefixes), "-lomp"],
        )
    return ["-fopenmp"], ["-fopenmp"]


def flags(msvc):
    """(compiler flags, linker flags) for the switches; never -ffast-math, -Ofast or -march=native."""
    if msvc:  # untested: this project's own checks run on Linux
        compiler = ["/std:c11", "/experimental:c11atomics", "/fp:precise", "/Od" if DEBUG else "/O2"]
        linker = ["synchronization.lib"]  # WaitOnAddress
    else:
        compiler = ["-std=c11", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden"]
        linker = []
        if DEBUG:
            compiler += ["-Og", "-g", "-UNDEBUG"]
        elif SANITIZE:
            compiler += ["-O1", "-g"]
        else:
            compiler += ["-O3", "-g0"]  # Python's own flags bring -g, which makes the file five times as large
            linker += ["-Wl,-s"] if sys.platform == "linux" else []
        if SANITIZE:
            sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
            compiler += sanitizers
            linker += sanitizers
    if not NO_OPENMP:
        extra = openmp_flags(msvc)
        compiler += extra[0]
        linker += extra[1]
    return compiler, linker


@contextlib.contextmanager
def silence():
    """Without standard error, also for programs started inside: a probe's complaints would bury our one line."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class Build(build_ext):
    """build_ext that knows its compiler: asks it for OpenMP, in words if it has none, then sets the flags."""

    def build_extensions(self):
        msvc = self.compiler.compiler_type == "msvc"
        compiler, linker = flags(msvc)
        if not self._builds(PROBE, [], []):
            raise SystemExit("fastlstm: no working C compiler: install gcc or clang (or name one in CC).")
        if not NO_OPENMP and not self._builds(PROBE_OPENMP, *openmp_flags(msvc)):
            raise SystemExit(
                "fastlstm: this C compiler has no OpenMP: install libgomp (gcc), libomp-dev (clang) or, on macOS, "
                "libomp (brew install libomp); or set FASTLSTM_NO_OPENMP=1 to build without threads."
            )
        stamp = self._stamp(compiler, linker)
        for extension in self.extensions:
            extension.extra_compile_args = compiler
            extension.extra_link_args = linker
            extension.depends = [*extension.depends, stamp]
        super().build_extensions()

    def _builds(self, source, compiler, linker):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "probe.c")
            path.write_text(source, encoding="utf-8")
            try:
                with silence():
                    objects = self.compiler.compile([str(path)], output_dir=folder, extra_postargs=compiler)
                    self.compiler.link_executable(objects, "probe", output_dir=folder, extra_postargs=linker)
            except (CCompilerError, ExecError, PlatformError):
                return False
        return True

    def _stamp(self, *settings):
        """A file that is newer than the objects when they were built with other settings.

        setuptools compares dates only: without it, a switch would leave the old objects in place.
        """
        path = Path(self.build_temp, "settings.txt")
        text = repr((*settings, [os.environ.get(name) for name in ("CC", "CFLAGS", "LDFLAGS")]))
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return str(path)


# setuptools rebuilds for `sources` and `depends` only: every header and every list belongs here.
HEADERS = sorted(glob.glob("src_c/**/*.h", recursive=True) + glob.glob("src_c/**/*.def", recursive=True))

EXTENSIONS = [
    Extension(
        "fastlstm._core",
        ["fastlstm/_core.pyx", *sorted(glob.glob("src_c/*.c"))],
        include_dirs=["src_c", numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        depends=HEADERS,
    ),
    Extension("fastlstm._blas", ["fastlstm/_blas.pyx"], include_dirs=["src_c"], depends=HEADERS),
]

if __name__ == "__main__":
    setup(
        cmdclass={"build_ext": Build},
        ext_modules=cythonize(EXTENSIONS, language_level=3, build_dir="build/cython"),
    )
