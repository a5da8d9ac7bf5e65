"""The shipped recipe `smoke`, from source to report: a tiny student is trained, sampled, fine-tuned and scored."""

import csv
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ARMS
from tests.e2e.project import Project

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = pytest.mark.slow


def test_from_source_to_report(smoke: Project) -> None:
    data = smoke.root / "data" / "smoke"
    page, text = ((data / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    scores = json.loads((data / "scores.json").read_text(encoding="utf-8"))
    assert list(scores["models"]) == ["base", *ARMS]
    assert {model["n"] for model in scores["models"].values()} == {20}
    assert list(scores["pairs"]) == ["cot-minus-base", "lema-minus-base", "lema-minus-cot"]
    for arm in ARMS:
        assert arm in page
        assert arm in text
        assert losses(data / "curves" / f"{arm}.csv")
        record = json.loads((data / "adapters" / arm / "training.json").read_text(encoding="utf-8"))
        assert record["examples"] > 0
        assert (data / "adapters" / arm / "adapter_model.safetensors").stat().st_size > 0
    assert "src=" not in page.replace('src="data:', "")
    assert "<script" not in page
    assert smoke.run("dvc", "repro").ran == []


def test_a_second_clone_has_the_report_without_running_a_stage(smoke: Project, tmp_path: Path) -> None:
    here = smoke.copy(tmp_path / "here")
    here.run("dvc", "remote", "add", "-q", "-d", "share", str(tmp_path / "share"))
    here.commit()
    here.run("dvc", "push", "-q")
    here.run("dvc", "push", "-q", "--run-cache")
    here.run("git", "clone", "-q", str(here.root), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull", "-q")
    again = clone.run("dvc", "repro", "--pull")
    assert (again.ran, again.bought) == ([], {})
    assert not (clone.root / ".lema" / "journal").exists()
    assert not (clone.root / "completions").exists()
    assert clone.run("lema", "completions", "stats").text.split()[:2] == ["completions", "0"]
    for name in ("report.html", "adapters/lema/adapter_model.safetensors", "answers.parquet"):
        assert (clone.root / "data" / "smoke" / name).read_bytes() == (here.root / "data" / "smoke" / name).read_bytes()


def losses(curve: Path) -> list[float]:
    with curve.open(encoding="utf-8") as lines:
        return [float(row["loss"]) for row in csv.DictReader(lines)]


def test_dvc_knows_the_scores_and_the_curves(smoke: Project) -> None:
    shown: Any = json.loads(smoke.run("dvc", "metrics", "show", "--json").text)
    assert "data/smoke/scores.json" in shown[""]["data"]
    plots = json.loads(smoke.run("dvc", "plots", "show", "--json").text)
    assert {f"curves/{arm}.csv" for arm in ARMS} <= {"/".join(re.split(r"[/\\]", name)[-2:]) for name in plots["data"]}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")
def test_a_browser_shows_the_report(smoke: Project, tmp_path: Path) -> None:
    page = smoke.root / "data" / "smoke" / "report.html"
    headline = re.search(r"<h1[^>]*>(.*?)</h1>", page.read_text(encoding="utf-8"), re.DOTALL)
    assert headline is not None
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom")
    shown = subprocess.run(
        [str(CHROMIUM), *options, page.resolve().as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    body = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", shown.partition("<body")[2])).split())
    assert " ".join(html.unescape(re.sub(r"<[^>]+>", " ", headline[1])).split()) in body
    assert all(arm in body for arm in ("base", *ARMS))
