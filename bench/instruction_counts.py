"""Count the instructions of six representative calls, and compare them with the counts kept in the tree.

    python bench/instruction_counts.py            compare with bench/instruction_counts.json, status 1 beyond 3 %
    python bench/instruction_counts.py --update   write the file anew

Valgrind counts instructions, not time: the same number on a quiet machine and on a busy one, so that a slower path
shows in a review. It emulates a processor with AVX2, so the AVX2 kernels are what is counted. Counts belong to one
compiler: with another one than the file names, they are printed and not compared.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "src_c"
KEPT = HERE / "instruction_counts.json"
FLAGS = ["-std=c11", "-O3", "-fno-math-errno", "-ffp-contract=off"]
MARGIN = 0.03


def compiler_version():
    words = subprocess.check_output(["gcc", "--version"], text=True)
    return "gcc " + re.search(r"\) (\d+\.\d+)", words)[1]


def build(folder):
    program = Path(folder) / "instruction_driver"
    files = [str(HERE / "instruction_driver.c"), *map(str, sorted(SOURCES.glob("*.c")))]
    link = ["-lm", "-lpthread", "-Wl,-z,now", "-o", str(program)]
    subprocess.run(["gcc", *FLAGS, f"-I{SOURCES}", *files, *link], check=True)
    return program


def count(program, case, folder):
    """Instructions inside the engine's three calls; building the model and the input are not counted, nor is the
    resolution of symbols, which -z now has done before."""
    out = Path(folder) / f"{case}.out"
    collect = [f"--toggle-collect={name}" for name in ("fl_forward", "fl_backward", "fl_step")]
    command = ["valgrind", "-q", "--tool=callgrind", *collect, f"--callgrind-out-file={out}", str(program), case]
    subprocess.run(command, check=True)
    return int(re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.M)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write the counts to instruction_counts.json")
    arguments = parser.parse_args()
    missing = [tool for tool in ("gcc", "valgrind") if shutil.which(tool) is None]
    if missing:
        print(f"SKIP: {' and '.join(missing)} not installed")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        cases = subprocess.check_output([program], text=True).split()
        found = {case: count(program, case, folder) for case in cases}
    version = compiler_version()
    if arguments.update:
        KEPT.write_text(json.dumps({"compiler": version, "instructions": found}, indent=1) + "\n")
    kept = json.loads(KEPT.read_text())
    worse = 0
    for case, number in found.items():
        before = kept["instructions"].get(case, 0)
        change = number / before - 1 if before else float("inf")
        print(f"{case:16} {number:>10,} instructions, kept {before:>10,}: {change:+.1%}")
        worse += abs(change) > MARGIN
    if version != kept["compiler"]:
        print(f"not compared: built with {version}, kept with {kept['compiler']}")
        return 0
    if worse:
        print(f"{worse} of {len(found)} differ by more than {MARGIN:.0%}; if that is meant, run with --update")
    return int(worse > 0)


if __name__ == "__main__":
    sys.exit(main())
