"""Builds the C engine and its two Cython borders; everything else is in pyproject.toml.

Environment switches, read here only:
  FASTLSTM_NO_OPENMP=1   build without threads
  FASTLSTM_SANITIZE=1    address and undefined-behaviour sanitizers
  FASTLSTM_DEBUG=1       -Og -g, assertions on
"""

import glob
import os

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup


def switch(name):
    return os.environ.get(name, "0") not in ("", "0")


compile_args = ["-std=c11", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden"]
link_args = []
if switch("FASTLSTM_DEBUG"):
    compile_args += ["-Og", "-g", "-UNDEBUG"]
else:
    compile_args += ["-O3"]
if not switch("FASTLSTM_NO_OPENMP"):
    compile_args += ["-fopenmp"]
    link_args += ["-fopenmp"]
if switch("FASTLSTM_SANITIZE"):
    flags = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g"]
    compile_args += flags
    link_args += flags

headers = glob.glob("src_c/**/*.h", recursive=True) + glob.glob("src_c/*.def")
extensions = [
    Extension(
        "fastlstm._core",
        ["fastlstm/_core.pyx", *sorted(glob.glob("src_c/*.c"))],
        include_dirs=["src_c", numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        depends=headers,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    ),
    Extension(
        "fastlstm._blas",
        ["fastlstm/_blas.pyx"],
        include_dirs=["src_c"],
        depends=headers,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    ),
]
setup(ext_modules=cythonize(extensions, language_level=3))
