"""The packages' front doors: quick to import, complete, and honest about what they hold."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib

import pytest

from paths import ROOT

HEAVY = ("torch", "transformers", "datasets", "gguf", "pydantic")


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    path = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n"
    done = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_glotfuse_is_quick_and_loads_nothing_heavy():
    code = f"""
import time
start = time.perf_counter()
import glotfuse
seconds = time.perf_counter() - start
dir(glotfuse), glotfuse.__version__
print(seconds, [name for name in {HEAVY} if name in sys.modules])
"""
    answers = [run(code).split(" ", 1) for _ in range(3)]  # the best of three: the machine may be busy
    assert min(float(seconds) for seconds, _ in answers) < 0.2
    assert {heavy for _, heavy in answers} == {"[]"}


@pytest.mark.parametrize("module", ["glotfuse.backbones", "glotfuse.backbones.bundled.store"])
def test_bundled_models_are_found_without_torch(module: str):
    code = f"import {module}\nprint([n for n in ('torch', 'transformers', 'gguf') if n in sys.modules])"
    assert run(code) == "[]"


def test_recipes_and_tasks_are_reached_without_torch():
    code = "import glotfuse\nglotfuse.load_recipe, glotfuse.get_task\nprint('torch' in sys.modules)"
    assert run(code) == "False"


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        (
            "glotfuse",
            {
                "FusedLM": "glotfuse.api",
                "Recipe": "glotfuse.recipes.config",
                "load_recipe": "glotfuse.recipes.loading",
                "get_task": "glotfuse.tasks.registry",
                "task_from_files": "glotfuse.tasks.registry",
                "register_mixer": "glotfuse.fusion.mixers",
                "register_projector": "glotfuse.fusion.projectors",
                "GlotfuseError": "glotfuse.errors",
            },
        ),
        (
            "glotfuse.backbones",
            {
                "LM": "glotfuse.backbones.lm",
                "BackboneIdentity": "glotfuse.backbones.identity",
                "BackboneOptions": "glotfuse.backbones.loading",
                "Encoder": "glotfuse.backbones.encoder",
                "PrefixCache": "glotfuse.backbones.prefix_cache",
                "add_adapter": "glotfuse.backbones.lora",
                "load_encoder": "glotfuse.backbones.loading",
                "load_lm": "glotfuse.backbones.loading",
                "merge_adapter": "glotfuse.backbones.lora",
            },
        ),
    ],
)
def test_every_public_name_is_listed_and_is_the_one_of_its_module(package: str, homes: dict[str, str]):
    module = importlib.import_module(package)
    assert {name for name in module.__all__ if not name.startswith("__")} == set(homes)
    assert set(module.__all__) <= set(dir(module))
    for name, home in homes.items():
        expected = getattr(importlib.import_module(home), name)
        assert getattr(module, name) == expected


def test_dir_lists_the_public_names_before_their_first_use():
    public = "['FusedLM', 'GlotfuseError', 'Recipe', 'get_task', 'load_recipe', "
    public += "'register_mixer', 'register_projector', 'task_from_files']"
    code = "import glotfuse\nprint([n for n in dir(glotfuse) if n[:2] != '__' and n != 'lazy'])"
    assert run(code) == public


def test_a_name_that_does_not_exist_is_an_attribute_error():
    import glotfuse

    with pytest.raises(AttributeError, match="module 'glotfuse' has no attribute 'FusdLM'"):
        glotfuse.FusdLM  # noqa: B018
    with pytest.raises(ImportError):
        from glotfuse import FusdLM  # noqa: F401


def test_the_version_is_that_of_the_project_file():
    import glotfuse

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    assert glotfuse.__version__ == project["version"]
