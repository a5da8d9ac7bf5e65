"""Two people, one DVC remote: completions go both ways, and nobody loses what only they have."""

import shutil
from pathlib import Path

from lema.engine.packs import paths
from tests.e2e.project import Project


def keys(project: Project) -> set[str]:
    return {path.name for path in paths(project.root / "completions")}


def test_packs_go_both_ways(fresh: Project, tmp_path: Path) -> None:
    remote, origin = tmp_path / "remote", tmp_path / "origin.git"
    one = fresh
    refused = one.run("lema", "completions", "push", code=1)
    assert "no DVC remote: dvc remote add --default team" in refused.text
    assert "git pull" in one.run("lema", "completions", "pull", code=1).text
    one.run("dvc", "remote", "add", "--default", "team", str(remote))
    assert "no completions to push yet" in one.run("lema", "completions", "push", code=1).text
    for artifact in ("plan", "source", "questions", "base", "samples"):
        one.make(artifact)
    assert "packs at the remote: 1; commit completions.dvc" in one.run("lema", "completions", "push").text
    one.commit()
    one.run("git", "clone", "-q", "--bare", str(one.root), str(origin))
    one.run("git", "remote", "add", "origin", str(origin))

    one.run("git", "clone", "-q", str(origin), str(tmp_path / "two"))
    two = Project(tmp_path / "two")
    # The other one has bought something before, some of it the same: `dvc pull` would refuse to touch the folder.
    for artifact in ("plan", "source", "questions", "base"):
        two.make(artifact)
    two.change("recipes/tiny.yaml", lambda recipe: recipe["samples"]["samplers"]["hasty"].update(paths=1, seed=9))
    two.make("plan")
    assert two.make("samples").bought == {"samples": (40, 0, 40)}
    own = keys(two)
    assert len(own) == 1
    assert "packs fetched: 1" in two.run("lema", "completions", "pull").text
    assert keys(two) == own | keys(one)
    two.run("git", "checkout", "-q", "recipes")
    two.make("plan")
    assert two.make("samples", "tiny", "--offline").bought == {"samples": (60, 60, 0)}
    assert two.read("samples.parquet") == one.read("samples.parquet")

    # A damaged pack is fetched again.
    path = two.root / "completions" / min(keys(one))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])
    assert path.name in two.run("lema", "completions", "verify", code=1).text
    assert "packs fetched: 1" in two.run("lema", "completions", "pull").text
    two.run("lema", "completions", "verify")
    assert "packs at the remote: 2" in two.run("lema", "completions", "push").text
    two.commit()
    two.run("git", "push", "-q", "origin", "HEAD")

    # The first one has bought more meanwhile; a push before a pull must not forget the other's packs.
    shutil.rmtree(one.root / ".dvc" / "cache")
    one.run("git", "pull", "-q", "origin", "main")
    assert "packs at the remote: 2" in one.run("lema", "completions", "push").text
    assert keys(one) == keys(two)
    assert "would drop 20 copies, 0 failures, 0 unneeded replies" in one.run("lema", "completions", "prune").text
