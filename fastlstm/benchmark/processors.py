"""Names of processors: what the system tells about this one, and the name of its kind."""

import platform
import re
from pathlib import Path

# (family, first model, last model) -> the cores' name; of AMD's and of Intel's processors.
AMD = {
    (23, 0x00, 0x2F): "Zen", (23, 0x30, 0xFF): "Zen 2",
    (25, 0x00, 0x0F): "Zen 3", (25, 0x10, 0x1F): "Zen 4", (25, 0x20, 0x5F): "Zen 3", (25, 0x60, 0xFF): "Zen 4",
    (26, 0x00, 0xFF): "Zen 5",
}
INTEL = {
    60: "Haswell", 63: "Haswell", 69: "Haswell", 70: "Haswell", 61: "Broadwell", 71: "Broadwell", 79: "Broadwell",
    86: "Broadwell", 78: "Skylake", 94: "Skylake", 142: "Kaby Lake", 158: "Coffee Lake", 165: "Comet Lake",
    125: "Ice Lake", 126: "Ice Lake", 106: "Ice Lake server", 108: "Ice Lake server", 140: "Tiger Lake",
    141: "Tiger Lake", 151: "Alder Lake", 154: "Alder Lake", 183: "Raptor Lake", 186: "Raptor Lake",
    191: "Raptor Lake", 143: "Sapphire Rapids", 207: "Emerald Rapids", 173: "Granite Rapids", 174: "Granite Rapids",
    170: "Meteor Lake",
}
SERVERS_OF_85 = ((10, "Cooper Lake"), (5, "Cascade Lake"), (0, "Skylake server"))  # from which stepping on
ARM = {0xD0C: "Neoverse N1", 0xD40: "Neoverse V1", 0xD49: "Neoverse N2", 0xD4F: "Neoverse V2", 0xD08: "Cortex-A72"}
# The keys of /proc/cpuinfo: on x86, on ARM.
KEYS = {"vendor": ("vendor_id", "CPU implementer"), "family": ("cpu family", "CPU architecture"),
        "model": ("model", "CPU part"), "stepping": ("stepping", "CPU revision")}


def identity(path="/proc/cpuinfo"):
    """processor (its name), vendor, family, model, stepping of the first processor; None where not told."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    found = {"processor": told.get("model name") or platform.processor() or "unknown"}
    for name, keys in KEYS.items():
        value = next((told[key] for key in keys if key in told), None)
        found[name] = _number(value) if name != "vendor" else value
    return found


def _number(text):
    try:
        return int(text, 0)
    except (TypeError, ValueError):
        return None


def name_of(machine):
    """The name of a processor's kind, such as "AMD Zen 3"; of one that is not known, the name the system gives.

    machine: a dict with what `identity` gives; all but "processor" may be missing.
    """
    vendor, family, model = (machine.get(key) for key in ("vendor", "family", "model"))
    kind = None
    if vendor == "AuthenticAMD" and model is not None:
        kind = next((f"AMD {core}" for (f, low, high), core in AMD.items() if f == family and low <= model <= high), "")
    elif vendor == "GenuineIntel" and family == 6:
        step = machine.get("stepping") or 0
        found = next(name for least, name in SERVERS_OF_85 if step >= least) if model == 85 else INTEL.get(model)
        kind = found and f"Intel {found}"
    elif vendor == "0x41":
        kind = model in ARM and f"ARM {ARM[model]}"
    return kind or re.sub(r"\s+", " ", re.sub(r"\((R|TM|r|tm)\)|\bCPU\b|@.*", " ", machine["processor"])).strip()


def file_stem(machine, threads, isa=None):
    """The name of a file of results, without its suffix: "amd-zen3-1-thread". isa: one that was asked for by name."""
    kind = re.sub(r" (?=\d+$)", "", name_of(machine)).lower()
    words = [re.sub(r"[^a-z0-9]+", "-", kind).strip("-") or "unknown", *([isa] if isa else [])]
    return "-".join([*words, str(threads), "thread" if threads == 1 else "threads"])
