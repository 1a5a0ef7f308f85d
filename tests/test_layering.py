"""House rules, as tests: who may import whom, and who owns which hazard. docs/design.md says why.

Runs on the files of a clone or of a source distribution; nothing is imported.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, ENGINE = ROOT / "fastlstm", ROOT / "src_c"

PYTHON = sorted(PACKAGE.rglob("*.py"))
CYTHON = sorted(path for path in PACKAGE.rglob("*.p[yx]*") if path.suffix in (".pyx", ".pxd", ".pxi"))
C = sorted(path for path in ENGINE.rglob("*") if path.suffix in (".c", ".h", ".def"))
BUILD = [ROOT / name for name in ("setup.py", "pyproject.toml", ".ci/run")]
FOLDERS = ("fastlstm", "src_c", "tests", "bench", "examples", ".ci")
LANGUAGES = {".py", ".pyi", ".pyx", ".pxd", ".pxi", ".c", ".h", ".def"}
GENERATED = {"_core.c", "_blas.c"}  # by Cython, when built in place
WRITTEN = [ROOT / "setup.py"]
for folder in FOLDERS:
    found = (ROOT / folder).rglob("*")
    WRITTEN += sorted(path for path in found if path.suffix in LANGUAGES and path.name not in GENERATED)

# Module -> modules of the package it may import; "later": those too, but inside functions only.
ALLOWED = {
    "__init__": {
        "_clone", "_interrupt", "_version", "last", "layers", "module", "network", "runtime", "sequential", "traces",
        "wrappers",
    },
    "benchmark/__init__": set(),
    "convert/__init__": set(),
    "__main__": {"commands"},
    "_clone": set(),
    "_interrupt": set(),
    "_progress": {"_terminal"},
    "_terminal": set(),
    "_version": set(),
    "arguments": {"params", "spec"},
    "attributes": set(),
    "checkpoint": {
        "concurrency", "container", "files", "gradients", "module", "optim", "params", "read_files", "reprs",
        "safetensors_read", "whole_files",
    },
    "concurrency": {"_core"},
    "container": {"attributes", "module", "params"},
    "files": {"module", "params", "read_files", "safetensors_read", "whole_files"},
    "forecast": {"_progress", "whole_files"},
    "foreign": set(),
    "gradients": {"arguments", "params"},
    "functional": {"arguments", "params", "reprs", "spec", "states"},
    "last": {"arguments", "concurrency", "container", "recurrent", "reprs", "spec", "states", "wrappers"},
    "layers": {"attributes", "recurrent"},
    "losses": {"arguments", "params", "spec"},
    "machine": {"_core", "_version", "whole_files"},
    "module": {"_core", "attributes", "concurrency", "params"},
    "network": {"_core", "arguments", "attributes", "concurrency", "params", "reprs", "stateless"},
    "optim": {"arguments", "concurrency", "container", "gradients", "module", "params"},
    "option_checks": set(),
    "params": {"foreign", "traces", "variants"},
    "planning": set(),
    "ragged": {"_core", "params", "reprs"},
    "recurrent": {
        "_core", "attributes", "concurrency", "functional", "module", "params", "ragged", "regularizers", "spec",
        "stream", "variants",
    },
    "read_files": set(),
    "reprs": set(),
    "safetensors_read": {"read_files"},
    "whole_files": {"read_files"},
    # a twin that shares code shares bugs
    "reference": {"params", "reference_activations", "reference_time", "variants"},
    "reference_1997": {"reference_activations", "reference_cells"},
    "reference_activations": set(),
    "reference_cells": {"reference_activations"},
    "reference_gru": {"reference_activations", "reference_cells"},
    "reference_layers": {"reference", "params"},
    "reference_time": {"reference_1997", "reference_cells", "reference_gru"},
    "regularizers": {"arguments"},
    "runtime": {"_core"},
    "sequential": {
        "arguments", "concurrency", "container", "last", "module", "network", "params", "reprs",
        "sequential_stream", "stateless", "wrappers",
    },
    "sequential_stream": {"_core", "arguments", "params", "stream"},
    "spec": {"params", "variants"},
    "stateless": {"arguments", "attributes", "module", "params", "spec", "stream"},
    "states": {"arguments"},
    "stream": {"_core", "arguments", "attributes", "module", "params", "ragged", "reprs", "spec", "states"},
    "traces": {"reprs", "variants"},
    "variants": {"option_checks"},
    "wrappers": {"arguments", "attributes", "concurrency", "container", "params", "recurrent", "reprs", "spec"},
    # fastlstm/convert/: models in and out
    "formats": {
        "files", "read_files", "safetensors_read", "torch_contents", "torch_files", "torch_pickle", "torch_states",
        "whole_files",
    },
    "inspection": {"_terminal", "container", "files"},
    "hdf5_read": set(),
    "keras_files": {"hdf5_read", "read_files"},
    "keras_graphs": set(),
    "keras_layers": {"layers", "network", "onnx_orders"},
    "keras_models": {
        "files", "keras_files", "keras_graphs", "keras_layers", "last", "module", "network", "params", "read_files",
        "sequential", "wrappers",
    },
    "onnx_around": {"onnx_nodes", "onnx_wire"},
    "onnx_build": set(),
    "onnx_fold": {"onnx_room", "onnx_shapes"},
    "onnx_layers": {"layers", "module", "onnx_orders", "variants", "wrappers"},
    "onnx_nodes": {"onnx_wire"},
    "onnx_orders": set(),
    "onnx_read": {
        "params", "onnx_around", "onnx_layers", "onnx_nodes", "onnx_room", "onnx_tensors", "onnx_values", "onnx_wire",
        "read_files",
    },
    "onnx_recurrent": {"onnx_build", "onnx_ways"},
    "onnx_room": set(),
    "onnx_shapes": {"onnx_room"},
    "onnx_tensors": {"onnx_wire", "read_files"},
    "onnx_values": {"onnx_fold", "onnx_nodes", "onnx_room", "onnx_wire"},
    "onnx_ways": {"onnx_orders"},
    "onnx_wire": set(),
    "onnx_write": {
        "files", "last", "layers", "module", "network", "onnx_build", "onnx_recurrent", "onnx_ways", "params",
        "recurrent", "sequential", "whole_files", "wrappers",
    },
    "torch_contents": {"torch_pickle"},
    "torch_files": {"read_files", "safetensors_read", "torch_contents", "torch_pickle"},
    "torch_models": {"files", "layers", "module", "network", "params", "read_files", "sequential", "torch_states"},
    "torch_pickle": set(),
    "torch_states": {"layers", "module", "params", "read_files", "safetensors_read", "torch_contents", "torch_files"},
    # fastlstm/onnx/, for those who import it
    "onnx/__init__": {"onnx_backend", "onnx_operators"},
    "onnx_backend": {"arguments", "onnx_operators", "read_files"},
    "onnx_operators": {"onnx_layers", "wrappers"},
    # fastlstm/torch/: for users of torch
    "torch/__init__": {"torch_accelerate", "torch_layers"},
    "torch_accelerate": {"torch_layers"},
    "torch_function": {"functional"},
    "torch_layers": {"_core", "params", "spec", "torch_function", "torch_panels", "variants"},
    "torch_panels": {"_core", "machine", "ragged"},
    # fastlstm/commands/, the command line: what a command needs is imported when it is run, so that --help is quick
    "commands/__init__": {"_interrupt", "_terminal", "parser"},
    "bench": {"common", "parser"},
    "common": {"parser"},
    "convert_files": {"_terminal", "common", "parser"},
    "csv_read": {"parser"},
    "feed": {"common", "network", "parser", "sequential"},
    "inputs": {"csv_read", "parser", "read_files"},
    "outputs": {"_terminal", "parser", "whole_files"},
    "parser": {"_version"},
    "run": {"_terminal", "common", "parser", "run_bundled"},
    "run_bundled": {"_terminal", "common", "parser"},
    "show": {"common"},
    # fastlstm/benchmark/, imported by the command that needs it
    "case": {"variants", "work"},
    "cases": {"case"},
    "ceilings": {"_core"},
    "command": {
        "_core", "_progress", "_terminal", "cases", "ceilings", "compare", "contestants", "fastlstm", "measure",
        "page", "problem", "processors", "report", "stored", "tables",
    },
    "compare": {"contestants", "report", "stored"},
    "contestants": {"fastlstm", "peer_numpy", "peer_onnxruntime", "peer_openvino", "peer_torch", "problem"},
    "measure": {"_core", "ceilings"},
    "onnx_graph": {"problem"},
    "page": {"cases", "contestants", "processors", "report", "stored", "tables", "whole_files"},
    "peer_numpy": {"problem"},
    "peer_onnxruntime": {"onnx_graph", "problem"},
    "peer_openvino": {"onnx_graph", "problem"},
    "peer_torch": {"problem"},
    "plots": {"contestants", "processors", "whole_files"},
    "problem": {"fastlstm"},
    "processors": set(),
    "report": {"contestants", "fastlstm", "measure", "processors", "whole_files"},
    "stored": {"contestants", "report"},
    "tables": {"cases", "contestants", "report"},
    "work": set(),
}
LATER = {
    "bench": {"benchmark"},
    "command": {"plots"},
    "common": {"convert"},
    "convert_files": {"convert"},
    "formats": {"checkpoint", "keras_models", "onnx_read", "onnx_wire", "onnx_write", "torch_models"},
    "module": {"files", "machine"},
    "page": {"plots"},
    "plots": {"report"},
    "recurrent": {"machine", "planning"},
    "run": {"_progress", "feed", "inputs", "last", "outputs", "sequential", "wrappers"},
    "run_bundled": {"fastlstm", "forecast"},
    "runtime": {"_version", "machine"},
    "show": {"convert", "fastlstm"},
    "stream": {"machine"},
}
REQUIRED = {"numpy"}  # scipy is for _blas alone, which is loaded when a product goes to BLAS
OPTIONAL = {"h5py", "matplotlib", "onnx", "onnxruntime", "openvino", "torch"}  # inside functions only
AT_TOP = {"onnx": {"onnx"}, "torch": {"torch"}}  # folders whose users asked for that library by importing them
# OpenMP's setting; the words of an error about FASTLSTM_ISA; FASTLSTM_MACHINE and where the user's cache folder is
ENVIRONMENT = {"runtime.py", "_core.pyx", "machine.py"}

# Hazard -> the files that may touch it.
C_OWNERS = {
    r"#\s*include\s*<omp\.h>|#\s*pragma\s+omp|\bomp_\w+\s*\(": {"fl_limit.c"},
    r"#\s*include\s*<cpuid\.h>|__get_cpuid|\b__cpuid|xgetbv": {"fl_cpu.c"},
    r"\bgetenv\s*\(": {"fl_dispatch.c", "fl_limit.c"},
    r"\b(malloc|calloc|realloc|posix_memalign|aligned_alloc|_aligned_malloc)\s*\(": {
        "fl_model.c", "fl_dense.c", "fl_workspace.c",
    },
    r"/proc/|/sys/|\bopen\s*\(": {"fl_cores.c", "fl_quota.c"},
    r"\b(v?f?printf|puts|fputs|perror|abort|exit|_Exit|assert)\s*\(": set(),
    r"\b(cblas_\w+|[sd]gemm_)\s*\(": set(),
    r"\b_mm_setcsr|\bfesetround|\bfpcr\b": {"fl_team.c"},
    r"\bsched_setaffinity|\bsched_getcpu": {"fl_places.c"},
    r"\bsched_getaffinity": {"fl_cores.c", "fl_limit.c", "fl_places.c"},
    r"\bpthread_create|\bCreateThread|SYS_futex|\bnanosleep": {"fl_wait.c"},
}
KERNEL_FORBIDDEN = re.compile(r"fl_team|blas|fl_workspace|fl_internal|<std(io|lib)\.h>|<omp\.h>", re.IGNORECASE)
FORBIDDEN_FLAGS = re.compile(r"-Ofast|-ffast-math|-funsafe-math|-march=native|/fp:fast")


def is_kernel(path):
    return path.name.startswith("kernels_") or path.name.endswith(".inc.h") or path.parent.name in ("simd", "cells")


def without_comments(path):
    """The text of a C file with every comment blanked, so that words in prose do not count."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/|//[^\n]*", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL)


def imports(path):
    """(name, at module level) of every import; modules of this package without their prefix."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(node) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.removeprefix("fastlstm.") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "") if node.level else node.module.removeprefix("fastlstm").removeprefix(".")
            package = node.level or node.module.split(".")[0] == "fastlstm"
            names = [module] if module else [alias.name for alias in node.names if package]
        else:
            continue
        yield from ((name.removeprefix("convert."), id(node) not in inner) for name in names)


def test_the_lists_are_not_empty():
    assert {"setup.py", "test_layering.py", "fl_team.c", "_core.pyx"} <= {path.name for path in WRITTEN}
    assert len(C) > 25
    assert all(path.is_file() for path in BUILD)


# ---- Python -----------------------------------------------------------------------------------------------------


def key(path):
    """The stem of a file; with its folder where that is all there is to tell: benchmark/__init__."""
    return f"{path.parent.name}/{path.stem}" if path.stem == "__init__" and path.parent != PACKAGE else path.stem


def test_every_module_has_its_place():
    assert {key(path) for path in PYTHON} == set(ALLOWED)


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.name)
def test_imports_within_the_package(path):
    ours = {p.stem for p in PYTHON} | {"_core", "_blas", "benchmark", "commands", "convert", "fastlstm"}
    for name, top in imports(path):
        if name in ours:
            allowed = ALLOWED[key(path)] if top else ALLOWED[key(path)] | LATER.get(key(path), set())
            assert name in allowed, f"{path.name} may not import {name}{'' if top else ', even inside a function'}"


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.name)
def test_imports_from_elsewhere(path):
    ours = {p.stem for p in PYTHON} | {"_core", "_blas", "benchmark", "commands", "convert", "fastlstm"}
    for name, top in imports(path):
        root = name.split(".")[0]
        if name in ours or root in sys.stdlib_module_names:
            continue
        optional = AT_TOP.get(path.parent.name, set()) if top else OPTIONAL
        assert root in REQUIRED | optional, f"{path.name} imports {name}, at module level: {top}"


def test_reference_is_numpy_and_names_only():
    twins = {path.stem for path in PYTHON if path.stem.startswith("reference")}
    assert len(twins) >= 7
    for stem in sorted(twins):
        names = {name for name, _ in imports(PACKAGE / f"{stem}.py")}
        assert names <= twins | {"numpy", "params", "variants", "typing", "functools", "itertools"}, stem


def test_blas_lives_in_one_file():
    for path in [*PYTHON, *CYTHON]:
        if path.name != "_blas.pyx":
            assert not re.search(r"cython_blas|\bc?blas_[sd]gemm", path.read_text(encoding="utf-8")), path.name


def test_who_reads_the_environment():
    texts = {path.name: path.read_text(encoding="utf-8") for path in [*PYTHON, *CYTHON]}
    assert {name for name, text in texts.items() if re.search(r"\benviron\b|\bgetenv\b", text)} <= ENVIRONMENT


def test_who_changes_the_filters_of_warnings():
    """They belong to the process: a library that changes them for a moment changes them for all threads."""
    found = set()
    for path in PYTHON:
        names = {node.attr for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Attribute)}
        if names & {"catch_warnings", "simplefilter", "filterwarnings", "resetwarnings"}:
            found.add(path.name)
    assert found <= {"common.py", "contestants.py"}  # programs of their own


def test_nothing_maps_files():
    """Of a file that another process cuts short, a mapping ends the process."""
    for path in PYTHON:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"safe_open|memmap|mmap_mode|ACCESS_READ|mmap\((?!-1)", text), path.name


# ---- C ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hazard", C_OWNERS)
def test_one_owner_per_hazard(hazard):
    found = {path.name for path in C if re.search(hazard, without_comments(path))}
    assert found <= C_OWNERS[hazard]


@pytest.mark.parametrize("hazard", [hazard for hazard, owners in C_OWNERS.items() if owners])
def test_the_owner_still_owns_it(hazard):
    """Guards the search above against an expression that finds nothing."""
    assert {path.name for path in C if re.search(hazard, without_comments(path))}


def test_kernels_know_nothing_of_the_rest():
    kernels = [path for path in C if is_kernel(path)]
    assert len(kernels) >= 12
    for path in kernels:
        for line in without_comments(path).splitlines():
            if line.lstrip().startswith("#") and "include" in line:
                assert not KERNEL_FORBIDDEN.search(line), f"{path.name}: {line}"


def test_translation_units_are_the_c_files_at_the_top():
    assert [path for path in C if path.suffix == ".c" and path.parent != ENGINE] == []
    for path in C:
        assert not re.search(r'#\s*include\s*"[^"]+\.c"', without_comments(path)), path.name


# ---- everywhere -------------------------------------------------------------------------------------------------


def test_no_flags_that_change_arithmetic():
    for path in [*BUILD, *WRITTEN]:
        lines = path.read_text(encoding="utf-8").splitlines()
        used = [line for line in lines if FORBIDDEN_FLAGS.search(line) and "never" not in line]
        assert path.name == "test_layering.py" or not used, f"{path.name}: {used}"


def test_file_names_are_unique():
    names = [path.name for path in WRITTEN if path.name not in ("__init__.py", "__init__.pyi", "conftest.py")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_file_is_readable(path):
    lines = path.read_text(encoding="utf-8").split("\n")
    faults = [f"line {n}: {len(line)} characters" for n, line in enumerate(lines, 1) if len(line) > 120]
    faults += [f"line {n}: a tab" for n, line in enumerate(lines, 1) if "\t" in line]
    faults += [f"line {n}: blanks at its end" for n, line in enumerate(lines, 1) if line != line.rstrip()]
    limit = 600 if path.parent.name == "tests" else 400
    faults += [f"{len(lines)} lines, {limit} at most: split it"] if len(lines) > limit else []
    assert not faults


def test_every_enum_that_is_named_exists():
    texts = {path: path.read_text(encoding="utf-8") for path in [*C, *CYTHON, *(ROOT / "docs").glob("*.md")]}
    defined = {name for text in texts.values() for name in re.findall(r"\benum (fl_\w+)\s*\{", text)}
    for path, text in texts.items():
        named = set(re.findall(r"\benum (fl_\w+)", text))
        assert named <= defined, f"{path.name} names {sorted(named - defined)}"


def test_the_files_that_an_instruction_set_takes_are_those_that_the_design_tells():
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    [told] = re.findall(r"^\* \*\*an instruction set\*\*:(.*?)^\* ", text, re.MULTILINE | re.DOTALL)
    told = set(re.findall(r"[\w/<>.]+\.\w+", told.replace("<name>", "neon")))
    takes = {
        str(path.relative_to(ENGINE)) for path in C
        if "neon" in path.name or re.search(r"neon(?!\.h>)", without_comments(path), re.I)
    }
    takes |= {f"tests/{path.name}" for path in (ROOT / "tests").glob("*.py") if '"neon"' in path.read_text("utf-8")}
    takes -= {"tests/test_layering.py", "tests/test_bad_input.py"}
    assert takes == told
