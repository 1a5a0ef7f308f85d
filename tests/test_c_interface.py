"""The script that calls every public function of the engine with hostile arguments knows all of them."""

import platform
import shutil

import c_engine_hostile as hostile
import pytest
from test_layering import ENGINE


@pytest.fixture
def headers(tmp_path):
    """A folder with copies of the public headers, to be spoilt."""
    for name in hostile.HEADERS:
        shutil.copy(ENGINE / name, tmp_path / name)
    return tmp_path


def add(folder, text):
    path = folder / hostile.HEADERS[0]
    written = path.read_text(encoding="utf-8")
    assert "void fl_team_rest(void);" in written
    path.write_text(written.replace("void fl_team_rest(void);", f"void fl_team_rest(void);\n{text}"), encoding="utf-8")


def test_every_function_and_pointer_has_its_case(headers):
    program = hostile.generate(headers)
    assert program.count("static void try_fl_") == len(hostile.GOOD) >= 56
    for case in ("fl_map with x = NULL", "fl_step with batch = INT64_MAX", "fl_isa_available with index = INT_MIN",
                 "fl_forward with f.call.y.data = NULL", "fl_model_create with f.spec.options.periods = NULL",
                 "fl_backward with f.back.gradients->weight_hh = NULL", "fl_cache_find with direction = -1"):
        assert f'"{case}"' in program, case


@pytest.mark.parametrize("text", [
    "enum fl_status fl_new(const fl_model *model, int64_t rows);",
    "int fl_new(void);",
    "const char *\nfl_new(int a,\n       double *b);",
    "size_t fl_new(struct fl_model *const *model);",
])
def test_a_function_that_the_script_does_not_know_fails_it(headers, text):
    add(headers, text)
    with pytest.raises(SystemExit, match="fl_new"):
        hostile.generate(headers)


def test_a_function_that_is_gone_or_has_another_parameter_fails_it(headers):
    path = headers / hostile.HEADERS[1]
    whole = path.read_text(encoding="utf-8")
    for there, instead, words in (("int fl_teams_active(void);", "", "no header declares.*fl_teams_active"),
                                  ("void fl_quota_force(int processors);", "void fl_quota_force(int a, int b);",
                                   "fl_quota_force has 2 parameters, GOOD 1")):
        assert there in whole
        path.write_text(whole.replace(there, instead), encoding="utf-8")
        with pytest.raises(SystemExit, match=words):
            hostile.generate(headers)


def test_a_member_of_a_new_type_fails_it(headers):
    path = headers / hostile.HEADERS[0]
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("int64_t awake_ns;", "float awake_ns;"), encoding="utf-8")
    with pytest.raises(SystemExit, match="awake_ns: no values for the type float"):
        hostile.generate(headers)


def test_info_says_whether_denormals_are_flushed(monkeypatch):
    from fastlstm import _core, runtime

    assert _core.flushes_denormals() == (platform.machine() in ("x86_64", "AMD64", "aarch64", "arm64"))
    monkeypatch.setattr(_core, "flushes_denormals", lambda: True)
    assert runtime.config()["denormals"] == "flushed to zero"
    monkeypatch.setattr(_core, "flushes_denormals", lambda: False)
    assert "slow" in runtime.config()["denormals"]
