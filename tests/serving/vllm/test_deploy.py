"""The example deployments: valid files, and only options that `glotfuse serve` has."""

from __future__ import annotations

from typing import Any

import pytest
import typer
import yaml

from glotfuse.cli.main import app
from paths import ROOT

FOLDER = ROOT / "examples" / "deploy"


def options() -> set[str]:
    serve: Any = typer.main.get_command(app)
    return {name for parameter in serve.commands["serve"].params for name in parameter.opts}


def test_the_compose_file_starts_glotfuse_with_options_that_it_has() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf8"))["services"]
    assert set(services) == {"vllm", "glotfuse"}
    check_arguments(services["glotfuse"]["command"])
    assert "--enable-prompt-embeds" in services["vllm"]["command"]
    assert "ports" not in services["vllm"]


def test_the_kubernetes_files_fit_together() -> None:
    found = {}
    for file in sorted((FOLDER / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text("utf8")):
            found[document["kind"], document["metadata"]["name"]] = document
    glotfuse, vllm = (container(found["Deployment", name]) for name in ("glotfuse", "vllm"))
    check_arguments(glotfuse["args"])
    assert "--enable-prompt-embeds" in vllm["args"]
    assert (glotfuse["livenessProbe"]["httpGet"]["path"], glotfuse["readinessProbe"]["httpGet"]["path"]) == (
        "/health",
        "/ready",
    )
    assert "--lm-name=lm" in glotfuse["args"]
    assert "--served-model-name=lm" in vllm["args"]
    grace = next(int(x.split("=")[1]) for x in glotfuse["args"] if x.startswith("--grace="))
    assert found["Deployment", "glotfuse"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > grace
    for name in ("glotfuse", "vllm"):
        labels = found["Deployment", name]["spec"]["template"]["metadata"]["labels"]
        assert found["Service", name]["spec"]["selector"] == labels
        for volume in found["Deployment", name]["spec"]["template"]["spec"]["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in found
    assert found["HorizontalPodAutoscaler", "glotfuse"]["spec"]["scaleTargetRef"]["name"] == "glotfuse"
    sender = found["NetworkPolicy", "vllm"]["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert sender == found["Deployment", "glotfuse"]["spec"]["template"]["metadata"]["labels"]


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(only)


def check_arguments(arguments: list[str]) -> None:
    known = options()
    unknown = [each for each in arguments if each.startswith("--") and each.split("=")[0] not in known]
    assert not unknown, unknown
    assert not arguments[0].startswith("--")


def test_the_page_names_options_that_exist() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text("utf8")
    commands = [line for line in page.splitlines() if line.startswith("glotfuse serve")]
    assert commands
    for line in commands:
        check_arguments(line.split()[2:])


@pytest.mark.parametrize("name", ["Dockerfile"])
def test_the_image_installs_the_serve_extra(name: str) -> None:
    assert ".[serve]" in (FOLDER / name).read_text("utf8")
