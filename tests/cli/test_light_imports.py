"""`glotfuse classify` imports no more than answering takes, and what waits is there when it is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from built import built
from paths import ROOT

FORBIDDEN = (
    *("torch.distributed.tensor", "torch.distributed.fsdp", "torch._inductor", "torch.fx.experimental.symbolic_shapes"),
    *("sympy", "scipy", "sklearn", "statsmodels", "pandas", "pyarrow", "datasets", "matplotlib", "peft", "gguf"),
    *("fastapi", "gradio", "sacrebleu", "lmdb", "glotfuse.training", "glotfuse.runs", "glotfuse.evaluation"),
)
ARGUMENTS = ["A text about a match.", "--json", "--device", "cpu"]

REPORT = """
import json, sys
compiler = sys.modules.get("torch._dynamo")
print(json.dumps({"modules": sorted(sys.modules), "waiting": type(compiler).__name__ == "_WaitingCompiler"}))
"""
ANSWER = """
import sys
sys.argv = ["glotfuse", "classify", *{arguments!r}]
from glotfuse.cli.main import main
try:
    main()
except SystemExit as exit:
    assert not exit.code, exit.code
"""


def python(code: str) -> list[Any]:
    """The lines of JSON that a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("light") / "run"
    built("bert").save_pretrained(folder)
    return folder


def test_answering_imports_nothing_that_it_does_not_use(run_folder: Path) -> None:
    answer, found = python(ANSWER.format(arguments=[str(run_folder), *ARGUMENTS]) + REPORT)
    assert set(answer["probabilities"]) == {"science", "health news"}
    assert set(found["modules"]) & set(FORBIDDEN) == set()
    assert found["waiting"]
    assert len(found["modules"]) < 2200  # 1,810 with transformers 5.23 and torch 2.13; 3,090 with all


def test_the_answers_are_the_same_with_all_imports(run_folder: Path) -> None:
    heavy = "import transformers.modeling_utils, transformers.generation.utils, sys\nassert 'sympy' in sys.modules\n"
    code = ANSWER.format(arguments=[str(run_folder), *ARGUMENTS])
    assert python(code)[0]["probabilities"] == python(heavy + code)[0]["probabilities"]


LIGHT = """
import json, sys
from glotfuse.cli.light_imports import import_lightly
import_lightly()
import torch, transformers.modeling_utils
from transformers.integrations import deepgemm
before = sys.modules["torch._dynamo"]
assert type(before).__name__ == "_WaitingCompiler", before
assert torch.distributed.is_available() and "scipy" not in sys.modules
"""


@pytest.mark.parametrize(
    "use",
    [
        "import torch._dynamo.config as config\nassert config is torch._dynamo.config",
        "before.reset()",
    ],
    ids=["a module of it", "an attribute"],
)
def test_the_compiler_is_there_when_it_is_asked_for(use: str) -> None:
    code = f"""
{use}
import torch._dynamo
assert torch._dynamo is sys.modules["torch._dynamo"] is not before
assert callable(torch._dynamo.explain) and torch._dynamo.config.__spec__.name == "torch._dynamo.config"
marked = [f for f in vars(deepgemm).values() if getattr(f, "_dynamo_marked_constant", False) and
          f.__module__ == deepgemm.__name__]
print(json.dumps([f.__name__ for f in marked]))
"""
    (marked,) = python(LIGHT + code)
    assert marked, "what was decorated while the compiler waited should be marked by it"


def test_what_the_compiler_must_not_compile_it_does_not_compile() -> None:
    code = """
seen = []
@torch.compiler.disable
def plain(x):
    seen.append(torch.compiler.is_compiling())
    return x + 1
assert plain(torch.ones(1)) == 2 and sys.modules["torch._dynamo"] is before
compiled = torch.compile(lambda x: plain(x) * 2, backend="eager")
assert compiled(torch.ones(1)) == 4
print(json.dumps([seen, plain.__name__]))
"""
    assert python(LIGHT + code) == [[[False, False], "plain"]]


def test_what_was_imported_before_stays_as_it_is() -> None:
    code = """
import json, sys, torch, transformers
from glotfuse.cli.light_imports import import_lightly
import_lightly()
from transformers.utils import is_scipy_available, is_torch_distributed_available
print(json.dumps([is_scipy_available(), is_torch_distributed_available(), "torch._dynamo" in sys.modules]))
"""
    assert python(code) == [[True, True, False]]


def test_processes_of_a_launcher_import_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name, value in (("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    code = """
import json, sys
from glotfuse.cli.light_imports import import_lightly
import_lightly()
print(json.dumps("torch" in sys.modules))
"""
    assert python(code) == [False]
