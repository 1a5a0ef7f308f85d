"""Write a C program that calls every public function of the engine with hostile arguments.

    python tests/c_engine_hostile.py src_c OUT.c
    cc -std=c11 -g -fsanitize=address,undefined -fopenmp -Isrc_c -Itests OUT.c src_c/*.c -lm -lpthread -o hostile

Functions, parameters and members of structures come from the headers. Every pointer is NULL in turn, and every
number 0, -1, and the least and the largest of its type, all other arguments being good. What a good argument is stands
in GOOD below: a public function that is not there ends this script with an error, so that no new one is forgotten.
The program exits with 1 if a refusal that is due did not come; the sanitizers end it at anything worse.
"""

import re
import sys
from pathlib import Path

HEADERS = ("fastlstm.h", "fastlstm_experimental.h", "fastlstm_plan.h")

# Function -> its good arguments, by parameter.  Names lead into the fixture below, which is new for every call.
GOOD = {
    "fl_status_text": ["FL_OK"],
    "fl_cell_count": [],
    "fl_cell_name": ["0"],
    "fl_cell_gates": ["0"],
    "fl_isa_name": ["&name"],
    "fl_isa_available": ["0"],
    "fl_flushes_denormals": [],
    "fl_get_num_threads": [],
    "fl_set_num_threads": ["3"],
    "fl_num_threads_here": ["3"],
    "fl_has_openmp": [],
    "fl_weight_size": ["&f.spec", "0", "0"],
    "fl_model_create": ["&f.made", "&f.spec", "f.weights"],
    "fl_model_create_threads": ["&f.made", "&f.spec", "f.weights", "2"],
    "fl_model_free": ["NULL"],
    "fl_model_isa": ["f.m"],
    "fl_model_bytes": ["f.m"],
    "fl_model_cells": ["f.m"],
    "fl_model_kept": ["f.m"],
    "fl_model_own_bias_hh": ["f.m"],
    "fl_team_rest": [],
    "fl_plan_forward": ["f.m", "4", "3", "2", "&f.plan"],
    "fl_plan_backward": ["f.m", "4", "3", "2", "&f.plan"],
    "fl_plan_call": ["f.m", "4", "3", "2", "1", "&f.plan"],
    "fl_plan_estimate": ["f.m", "4", "3", "0", "FL_SPLIT_ROWS", "2", "0"],
    "fl_forward_bytes": ["f.m", "&f.call"],
    "fl_cache_bytes": ["f.m", "4", "3", "0"],
    "fl_cache_find": ["f.m", "4", "3", "0", "1", "0"],
    "fl_forward": ["f.m", "&f.call"],
    "fl_step_bytes": ["f.m", "3"],
    "fl_step": ["f.m", "3", "f.call.x.data", "f.call.hn", "f.call.cn", "f.call.y.data", "f.step", "f.step_bytes"],
    "fl_stream_bytes": ["f.m", "3"],
    "fl_stream_init": ["&f.made_stream", "f.m", "3", "f.stream_memory", "f.stream_bytes"],
    "fl_stream_step": ["f.stream", "f.call.x.data", "f.call.y.data"],
    "fl_stream_get": ["f.stream", "f.call.hn", "f.call.cn"],
    "fl_stream_set": ["f.stream", "f.call.hn", "f.call.cn"],
    "fl_backward_bytes": ["f.m", "&f.call"],
    "fl_backward": ["f.m", "&f.call", "&f.back"],
    "fl_dense_create": ["&f.made_dense", "FL_F32", "5", "7", "f.many", "f.many", "FL_ACT_TANH"],
    "fl_dense_create_threads": ["&f.made_dense", "FL_F32", "5", "7", "f.many", "f.many", "FL_ACT_TANH", "2"],
    "fl_dense_free": ["NULL"],
    "fl_dense_forward": ["f.dense", "3", "f.many", "f.room", "2"],
    "fl_dense_gradient": ["FL_F32", "3", "7", "5", "f.many", "f.many", "f.room", "f.more", "2"],
    "fl_dense_forward_polled": ["f.dense", "3", "f.many", "f.room", "2", "NULL", "NULL"],
    "fl_dense_gradient_polled": ["FL_F32", "3", "7", "5", "f.many", "f.many", "f.room", "f.more", "2", "NULL", "NULL"],
    "fl_poll_force": ["0"],
    "fl_isa_force": ["NULL"],
    "fl_gemm_mode": ["&number"],
    "fl_gemm_force": ["NULL"],
    "fl_map": ["FL_F32", "FL_ACT_TANH", "f.many", "f.room", "9"],
    "fl_team_force": ["FL_TEAM_ADAPTS"],
    "fl_team_disturb": ["&f.disturbance"],
    "fl_rehearse": ["2", "3", "1000.0", "f.step_ns", "f.sizes"],
    "fl_judge_replay": ["2", "1000.0", "f.times", "3", "f.sizes"],
    "fl_num_threads_why": ["&number", "&other"],
    "fl_cgroup_quota": ['""'],
    "fl_quota_force": ["-1"],
    "fl_probe": ["FL_F32", "2", "f.many", "64", "2", "&wide"],
    "fl_teams_active": [],
    "fl_cores_read": ['"/sys/devices/system/cpu"', "f.core"],
    "fl_processors_allowed": [],
    "fl_cores_allowed": [],
    "fl_places_try": ["f.core", "&f.allowed", "3", "f.start", "0", "f.end"],
    "fl_machine_get": ["&f.machine"],
    "fl_machine_set": ["&f.machine"],
    "fl_machine_measure": ["&f.measured", "1", "&number"],
}

# What may be NULL without a refusal: parameters, and members of structures.
NULL_ALLOWED = {
    "fl_isa_force.name", "fl_gemm_force.name", "fl_machine_set.machine", "fl_machine_measure.team",
    "fl_num_threads_why.threads", "fl_num_threads_why.bound", "fl_probe.data", "fl_probe.flops",
    "fl_rehearse.step_ns", "fl_rehearse.sizes", "fl_dense_create.bias", "fl_dense_create_threads.bias",
    "fl_dense_gradient.bias",
    "fl_dense_forward_polled.poll", "fl_dense_forward_polled.poll_data", "fl_dense_gradient_polled.bias",
    "fl_dense_gradient_polled.poll", "fl_dense_gradient_polled.poll_data", "fl_call.poll", "fl_call.poll_data",
    "fl_stream_get.h", "fl_stream_get.c", "fl_stream_set.h", "fl_stream_set.c",
    "fl_call.lengths", "fl_call.reset", "fl_call.h0", "fl_call.c0", "fl_call.dropout", "fl_call.masks", "fl_call.blas",
    "fl_weights.bias_ih", "fl_weights.bias_hh", "fl_backward_call.dhn", "fl_backward_call.dcn", "fl_backward_call.dx",
}
NULL_ALLOWED_IN = {"fl_forward": {"fl_call.cache"}}

# Arrays of so many elements cannot be made here: these are tried with NULL in place of all arrays.
TRUE_SIZES = {
    "fl_map.n": ("INT_MAX",), "fl_dense_forward.rows": ("INT_MAX",), "fl_dense_gradient.rows": ("INT_MAX",),
    "fl_dense_forward_polled.rows": ("INT_MAX",), "fl_dense_gradient_polled.rows": ("INT_MAX",),
    "fl_judge_replay.steps": ("INT_MAX", "INT64_MAX"), "fl_places_try.workers": ("INT_MAX",),
    "fl_probe.bytes": ("PTRDIFF_MAX",),
}
# Would take hours, or describe arrays that are not there.
LEFT_OUT = {
    "fl_rehearse.steps": ("INT_MAX", "INT64_MAX"), "fl_probe.n": ("INT_MAX",),
    "fl_sequence.step": ("-1", "INT_MAX"), "fl_sequence.row": ("-1", "INT_MAX"),
    "fl_disturbance.steps": ("INT_MAX", "INT64_MAX"), "fl_disturbance.workers": ("INT_MAX",),
}
# Numbers that are taken: more threads than there are mean as many as may be; flags are true or false.
TAKEN = {
    "threads": {"INT_MAX"}, "awake": {"-1", "INT_MAX", "INT_MIN"}, "bytes": {"PTRDIFF_MAX"},
    "workspace_bytes": {"PTRDIFF_MAX", "SIZE_MAX"}, "memory_bytes": {"PTRDIFF_MAX", "SIZE_MAX"}, "one_ns": {"NAN"},
}
# SIZE_MAX when refused
QUERIES = {"fl_forward_bytes", "fl_cache_bytes", "fl_step_bytes", "fl_stream_bytes", "fl_backward_bytes"}

VALUES = {
    "int": ("0", "-1", "INT_MAX", "INT_MIN"),
    "int32_t": ("0", "-1", "INT_MAX", "INT_MIN"),
    "int64_t": ("0", "-1", "INT_MAX", "INT64_MAX", "INT64_MIN"),
    "size_t": ("0", "1", "PTRDIFF_MAX", "SIZE_MAX"),
    "double": ("0", "-1", "NAN", "INFINITY"),
}
REFUSED = {"-1", "INT_MIN", "INT64_MAX", "INT64_MIN", "SIZE_MAX", "PTRDIFF_MAX", "NAN", "INFINITY"}

# Structures whose members are tried too -> where the fixture has one; with more, all of them in turn.
STRUCTS = {
    "fl_spec": ["f.spec"],
    "fl_weights": ["f.weights[0]", "f.weights[1]"],
    "fl_call": ["f.call"],
    "fl_backward_call": ["f.back"],
    "fl_disturbance": ["f.disturbance"],
    "fl_machine": ["f.machine"],
}
# Members of members, as the headers nest them.
NESTED = {"fl_options", "fl_function", "fl_sequence", "fl_gradients", "fl_blas_t"}
AFTER = {"fl_team_disturb": "fl_rehearse(2, 3, 1000.0, NULL, NULL); fl_team_disturb(NULL);"}

FIXTURE = r"""
#define _GNU_SOURCE
#include <limits.h>

#include "fl_internal.h"
#include "c_engine_naive.inc.h"
#include "c_engine_calls.inc.h"

typedef struct fixture {
    problem p;
    fl_spec spec;
    fl_weights weights[MAX_SLOTS];
    fl_model *m, *made;
    fl_dense *dense, *made_dense;
    fl_call call;
    fl_backward_call back;
    gradients grads;
    fl_plan plan;
    fl_blas_t blas;
    fl_machine machine, measured;
    fl_disturbance disturbance;
    fl_processors allowed;
    float *many, *room, *more;
    void *step, *stream_memory;
    size_t step_bytes, stream_bytes;
    fl_stream *stream, *made_stream;
    int32_t delay_us[6], sizes[3], start[3], end[3];
    int64_t next[2], step_ns[3];
    double times[3];
    uint16_t core[FL_PROCESSORS];
} fixture;
static fixture f;

/* kind: 0 an LSTM, 1 the same by way of BLAS, 2 a clockwork network, 3 an LSTM of 1997; the latter two for fl_spec */
static void set_up(int kind)
{
    static const int64_t periods[] = {1, 2, 4};
    memset(&f, 0, sizeof f);
    f.p = make(FL_F32, 2, 1, (int[]){6, 6, 0, 4, 3}, 0);
    f.spec = f.p.spec;
    if (kind == 2) {
        f.spec.cell = FL_CELL_CLOCKWORK;
        f.spec.options.period_count = 3;
        f.spec.options.periods = periods;
    } else if (kind == 3) {
        f.spec.cell = FL_CELL_LSTM_1997;
        f.spec.options.block_size = 3;
    }
    for (int s = 0; s < 2; s++) {
        f.weights[s] = f.p.weights[s];
        if (kind == 3) f.weights[s].bias_hh = NULL;
        if (kind == 3) f.weights[s].weight_hh = draw(FL_F32, 18 * 18, 1);
    }
    fl_gemm_force(kind == 1 ? "blas" : NULL);
    f.m = model_of(&f.p);
    fl_gemm_force(NULL);
    result r = prepare(&f.p, f.m, 2, 1);
    f.blas = PLAIN_BLAS;
    r.call.blas = &f.blas;
    r.call.workspace_bytes = fl_forward_bytes(f.m, &r.call);
    check(fl_forward(f.m, &r.call) == FL_OK, "the good call is refused");
    const size_t bytes = fl_backward_bytes(f.m, &r.call);
    if (bytes > r.call.workspace_bytes) {
        r.call.workspace_bytes = bytes;
        r.call.workspace = take(bytes);
    }
    f.call = r.call;
    f.grads = take_gradients(&f.p);
    f.back = (fl_backward_call){.dy = {f.p.dy, 18, 6}, .dhn = f.p.dhn, .dcn = f.p.dcn, .dx = f.grads.dx,
                                .dh0 = f.grads.dh0, .dc0 = f.grads.dc0, .gradients = f.grads.slot};
    f.step_bytes = fl_step_bytes(f.m, 3);
    f.step = take(f.step_bytes);
    f.stream_bytes = fl_stream_bytes(f.m, 3);
    f.stream_memory = take(f.stream_bytes);
    fl_stream_init(&f.stream, f.m, 3, take(f.stream_bytes), f.stream_bytes);
    f.many = draw(FL_F32, 64, 1);
    f.room = take(64 * sizeof *f.room);
    f.more = take(64 * sizeof *f.more);
    fl_dense_create(&f.dense, FL_F32, 5, 7, f.many, f.many, FL_ACT_TANH);
    fl_machine_get(&f.machine);
    f.disturbance = (fl_disturbance){f.delay_us, 3, 2, f.next};
    f.allowed.word[0] = 7;
    for (int p = 0; p < FL_PROCESSORS; p++) f.core[p] = (uint16_t)p;
    for (int i = 0; i < 3; i++) f.start[i] = i;
}

static void clear(const char *what)
{
    fl_model_free(f.m);
    fl_model_free(f.made);
    fl_dense_free(f.dense);
    fl_dense_free(f.made_dense);
    fl_machine_set(NULL);
    fl_set_num_threads(0);
    fl_num_threads_here(3); /* also where INT_MAX threads are asked for */
    fl_team_force(FL_TEAM_ADAPTS);
    fl_quota_force(-1);
    fl_poll_force(0);
    release(what);
}

static void refused(int got, const char *what) { check(got != FL_OK, "%s is not refused", what); }
static void no_size(size_t got, const char *what) { check(got == SIZE_MAX, "%s gives %zu bytes", what, got); }
"""


def without_comments(text):
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)
    text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\w+\s*\(\s*\*\s*(\w+)\s*\)\s*\([^()]*\)", r"void *\1", text)  # a function to be called
    return re.sub(r'extern\s+"C"\s*\{', "", text)


def read_structs(text):
    """Name -> list of (type without const, stars, name, array length or None)."""
    found = {}
    for body, name in re.findall(r"typedef struct \w+\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*(\w+)\s*;", text):
        members = []
        for line in body.split(";"):
            match = re.match(r"\s*(?:const\s+)?(unsigned char|unsigned long|\w+)\s+(.*)$", line.strip(), re.DOTALL)
            if not match:
                if line.strip():
                    raise SystemExit(f"{name}: cannot read the member {line.strip()!r}")
                continue
            for part in match[2].split(","):
                one = re.fullmatch(r"\s*((?:\*\s*(?:const\s*)?)*)(\w+)\s*(?:\[(.*)\])?\s*", part, re.DOTALL)
                if not one:
                    raise SystemExit(f"{name}: cannot read the member {part.strip()!r}")
                members.append((match[1], one[1].count("*"), one[2], one[3]))
        found[name] = members
    return found


def read_functions(text):
    """Name -> (return type, list of (type without const, stars, name))."""
    while re.search(r"\{[^{}]*\}", text):
        text = re.sub(r"\{[^{}]*\}", " ", text)
    found = {}
    for returned, name, parameters in re.findall(r"(?:^|;|\})\s*([\w\s*]+?)\b(fl_\w+)\s*\(([^()]*)\)(?=\s*;)", text):
        if returned.strip().startswith("typedef"):
            continue
        each = []
        for part in parameters.split(","):
            if part.strip() in ("void", ""):
                continue
            one = re.fullmatch(r"\s*(?:const\s+)?((?:enum\s+)?\w+)\s*((?:\*\s*)*)(\w+)\s*", part)
            if not one:
                raise SystemExit(f"{name}: cannot read the parameter {part.strip()!r}")
            each.append((one[1], one[2].count("*"), one[3]))
        found[name] = (" ".join(returned.split()), each)
    return found


def check_complete(functions):
    """SystemExit unless GOOD has every function with as many arguments as it has parameters."""
    unknown, gone = sorted(set(functions) - set(GOOD)), sorted(set(GOOD) - set(functions))
    if unknown:
        raise SystemExit(f"public functions without good arguments in GOOD of {Path(__file__).name}: {unknown}")
    if gone:
        raise SystemExit(f"GOOD of {Path(__file__).name} has functions that no header declares: {gone}")
    for name, (_, parameters) in functions.items():
        if len(parameters) != len(GOOD[name]):
            raise SystemExit(f"{name} has {len(parameters)} parameters, GOOD {len(GOOD[name])} arguments")


def case(name, returned, arguments, what, due, before="", kind=0):
    """One call as a line of C; due: whether it must be refused."""
    call = f"{name}({', '.join(arguments)})"
    text = '"' + what.replace('"', "'") + '"'
    if due and returned == "enum fl_status":
        call = f"refused({call}, {text})"
    elif due and name in QUERIES:
        call = f"no_size({call}, {text})"
    return f"    set_up({kind}); {before}{call}; {AFTER.get(name, '')}clear({text});"


def kinds_of(struct):
    return (0, 2, 3) if struct == "fl_spec" else (0, 1) if struct in ("fl_call", "fl_backward_call") else (0,)


def paths(structs, struct, at):
    """(type, stars, path, name with its structure) of every member, through what is nested."""
    for kind, stars, name, length in structs[struct]:
        places = [f"{at}{name}"] if length is None else [f"{at}{name}[{i}]" for i in range(2)]
        for place in places:
            if kind in NESTED and stars == 0:
                yield from paths(structs, kind, place + ".")
                continue
            yield kind, stars, place, f"{struct}.{name}"
            if kind in NESTED and stars == 1:
                yield from paths(structs, kind, "f.blas." if kind == "fl_blas_t" else place + "->")


def member_cases(structs, functions, name):
    returned, parameters = functions[name]
    for struct, _, _ in parameters:
        for base in STRUCTS.get(struct, ()):
            for kind, stars, path, full in paths(structs, struct, base + "."):
                values = ("NULL",) if stars else VALUES.get(kind)
                if values is None:
                    raise SystemExit(f"{full}: no values for the type {kind}")
                for value in values:
                    if value in LEFT_OUT.get(full, ()):
                        continue
                    before = f"{path} = {value}; "
                    for model in kinds_of(struct):
                        due = stars == 1 and must_refuse_null(name, full, model)
                        yield case(name, returned, GOOD[name], f"{name} with {path} = {value}", due, before, model)


def must_refuse_null(name, full, model):
    struct, _, _ = full.partition(".")
    if full in NULL_ALLOWED or full in NULL_ALLOWED_IN.get(name, ()):
        return False
    if full == "fl_blas_t.sgemm":
        return model == 1 and name in ("fl_forward", "fl_backward")
    # of weights and gradients only these two are there in every layer
    if struct in ("fl_weights", "fl_gradients"):
        return full.endswith(("weight_ih", "weight_hh"))
    return struct in ("fl_call", "fl_backward_call", "fl_sequence") and name in ("fl_forward", "fl_backward")


def argument_cases(functions, name):
    returned, parameters = functions[name]
    yield case(name, returned, GOOD[name], f"{name} with good arguments", False)
    for i, (kind, stars, parameter) in enumerate(parameters):
        full = f"{name}.{parameter}"
        values = ("NULL",) if stars else VALUES.get("int" if kind.startswith("enum") else kind)
        if values is None:
            raise SystemExit(f"{full}: no values for the type {kind}")
        for value in values:
            if value in LEFT_OUT.get(full, ()):
                continue
            arguments = list(GOOD[name])
            arguments[i] = f"(enum fl_status){value}" if kind.startswith("enum") else value
            if value in TRUE_SIZES.get(full, ()):
                arguments = ["NULL" if parameters[j][1] else a for j, a in enumerate(arguments)]
            due = full not in NULL_ALLOWED if stars else value in REFUSED - TAKEN.get(parameter, set())
            yield case(name, returned, arguments, f"{name} with {parameter} = {value}", due)


def generate(folder):
    """The whole program. SystemExit when a header has something that this script does not know."""
    text = "\n".join(without_comments(Path(folder, header).read_text(encoding="utf-8")) for header in HEADERS)
    functions, structs = read_functions(text), read_structs(text)
    check_complete(functions)
    lines, calls = [FIXTURE], []
    for name in sorted(functions):
        cases = [*argument_cases(functions, name), *member_cases(structs, functions, name)]
        lines += [f"static void try_{name}(void)", "{", "    int number = 0, other = 0;", "    double wide = 0;",
                  "    const char *name = NULL;", "    (void)number, (void)other, (void)wide, (void)name;"]
        lines += [*cases, "}", ""]
        calls.append(f"    try_{name}();")
    lines += ["int main(void)", "{", "    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);", "    fl_num_threads_here(3);"]
    lines += [*calls,
              f'    printf("{len(functions)} functions, %d passed, %d failed\\n", passed, failed);',
              "    return failed != 0;", "}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[2].strip())
    Path(sys.argv[2]).write_text(generate(sys.argv[1]), encoding="utf-8")
