"""Rows and JSON: what a run leaves behind. tables.py is what it prints.

A row is a dict, the same in memory and in the file; `document` names all its parts. Times are microseconds per call.
"""

import datetime
import json
import math
import os
import platform

import numpy as np

import fastlstm as fl

from ..whole_files import write_whole
from .contestants import OWN, OWN_SINGLE, PLAIN, is_own
from .measure import SPARE_CORES
from .processors import identity

FORMAT = "fastlstm bench 2"
READABLE = ("fastlstm bench 1", FORMAT)  # the first had one rate a cache, no date, no slots that were taken again
AIM = 1.15  # of a case of the family: its time relative to that of a plain LSTM, work for work


def row(case, field, timings, ceilings, threads):
    """One case as a dict. timings: name -> `measure.Timing`."""
    own = timings[OWN].median
    rivals = {name: timing.median for name, timing in timings.items() if not is_own(name)}
    best = min(rivals, key=rivals.get, default=None)
    found = {
        **case._asdict(), "flops": case.flops, "bytes": case.bytes, "held": case.held,
        **ceiling_of(case, own, ceilings, threads),
        "gflops": case.flops / own * 1e-9, "gbytes": case.bytes / own * 1e-9,
        "best_rival": best, "ratio": rivals[best] / own if best else None,
        "results": {name: _timing(timing) for name, timing in timings.items()},
        "refused": field.refused, "dropped": field.dropped,
    }
    if PLAIN in timings:
        found["us_per_step"] = own * 1e6 / case.steps
        found["work"] = case.flops / case.plain.flops
        found["of_plain_rate"] = own / (found["work"] * timings[PLAIN].median)
    if OWN_SINGLE in timings:
        one, many = timings[OWN_SINGLE], timings[OWN]
        found["scaling"] = one.median / many.median
        found["probe_scaling"] = many.probe_rate / one.probe_rate
    return found


def ceiling_of(case, seconds, ceilings, threads):
    """The part of a row that depends on the ceilings. seconds: fastlstm's time."""
    roof = ceilings.roofline(case, threads)
    return {"roofline_us": roof.seconds * 1e6, "bound": roof.bound, "share": roof.seconds / seconds}


def _timing(timing):
    return {
        "median_us": timing.median * 1e6, "low_us": timing.low * 1e6, "high_us": timing.high * 1e6,
        "spread": timing.spread, "undisturbed": timing.clean, "cores": timing.cores, "taken_again": timing.again,
        "slots_us": [slot.seconds * 1e6 for slot in timing.slots], "slots_clean": [slot.clean for slot in timing.slots],
    }


def machine():
    """The machine and the process, for the file."""
    return {
        "fastlstm": fl.__version__, "isa": fl.isa(), **identity(), "processors": os.cpu_count(),
        "machine": platform.machine(), "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(), "numpy": np.__version__,
    }


def document(rows, ceilings, peers, settings, notes):
    """Everything, ready for JSON. peers: name -> version, or why it is absent; settings: what the run was asked for."""
    flops = [{"of": dtype, "threads": n, "best": rate, "typical": ceilings.typical[dtype, n]}
             for (dtype, n), rate in ceilings.peak.items()]
    levels = [{"of": level, "threads": n, "best": rate} for (level, n), rate in ceilings.bandwidth.items()]
    sets = [{"bytes": nbytes, "threads": n, "best": rate, "typical": ceilings.typical[nbytes, n]}
            for n, reading in ceilings.reading.items() for nbytes, rate in reading]
    return {
        "format": FORMAT, "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine(), "peers": peers, "settings": settings,
        "ceilings": {
            "cache_bytes": ceilings.sizes, "cache_guessed": ceilings.guessed, "flops_per_second": flops,
            "bytes_per_second": levels, "reading": sets,
        },
        "notes": notes, "slots": slots(rows), "groups": summaries(rows), "results": rows,
    }


def slots(rows):
    """How many slots of time the rows stand on, how many more were taken again, how many stay disturbed."""
    timings = [timing for row in rows for timing in row["results"].values()]
    return {
        "taken": sum(len(timing["slots_us"]) for timing in timings),
        "taken_again": sum(timing["taken_again"] for timing in timings),
        "disturbed": sum(not clean for timing in timings for clean in timing["slots_clean"]),
    }


def slots_text(found):
    """A sentence about `slots`, as a list; empty where none was taken again."""
    if not found["taken_again"]:
        return []
    return [f"{found['taken_again']} times a slot of time was disturbed and taken again; "
            f"{found['disturbed']} of {found['taken']} slots stay disturbed"]


def write_json(path, found):
    """Write a `document`."""
    write_whole(path, [json.dumps(found, indent=1).encode(), b"\n"])


def geometric_mean(values):
    """exp of the mean logarithm; None of nothing."""
    values = [value for value in values if value]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def summary(rows):
    """Of one group: geometric means of ratio, share, scaling, of_plain_rate; the worst cases; how many miss the aim."""
    ratios = [r for r in rows if r["ratio"]]
    worst = min(ratios, key=lambda r: r["ratio"], default=None)
    measured = [r for r in rows if "of_plain_rate" in r]
    slowest = max(measured, key=lambda r: r["of_plain_rate"], default=None)
    return {
        "cases": len(rows), "ratio": geometric_mean(r["ratio"] for r in rows),
        "worst": worst and worst["name"], "worst_ratio": worst and worst["ratio"],
        "share": geometric_mean(r["share"] for r in rows),
        "scaling": geometric_mean(r.get("scaling") for r in rows),
        "relative_scaling": geometric_mean(r["scaling"] / r["probe_scaling"] for r in rows if "scaling" in r),
        "of_plain_rate": geometric_mean(r["of_plain_rate"] for r in measured),
        "slowest": slowest and slowest["name"], "slowest_of_plain_rate": slowest and slowest["of_plain_rate"],
        "past_aim": sum(r["of_plain_rate"] > AIM for r in measured),
    }


def summaries(rows):
    """Group -> `summary`."""
    groups = dict.fromkeys(r["group"] for r in rows)
    return {group: summary([r for r in rows if r["group"] == group]) for group in groups}


def warnings_of(rows, threads):
    """Sentences about what takes validity from the figures, found in the rows."""
    found = []
    for r in rows:
        for name, words in r["dropped"].items():
            found.append(f"DROPPED {name} from {r['group']} {r['name']}: {words}")
    count = sum(len(r["results"]) for r in rows)
    noisy = sum(not t["undisturbed"] for r in rows for t in r["results"].values())
    if noisy:
        words = "something else ran while they, or another contestant of their case, were timed"
        found.append(f"{noisy} of {count} times are marked ~: {words}")
    greedy = {}
    for r in rows:
        for name, t in r["results"].items():
            allowed = 1 if name == OWN_SINGLE else threads
            # processor time is counted in ticks: as many threads as processors seem to use more now and then
            if t["cores"] > allowed + SPARE_CORES and not 1 < allowed == os.cpu_count():
                greedy[name] = max(greedy.get(name, 0), t["cores"])
    found += [f"{name} used {cores:.1f} cores where {threads} were asked for" for name, cores in greedy.items()]
    refused = dict.fromkeys(f"{name}: {words}" for r in rows for name, words in r["refused"].items())
    return found + [f"not in every case: {words}" for words in refused]
