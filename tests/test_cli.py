"""What the command line makes of errors."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lema import __version__, cli


@pytest.mark.parametrize("missing", ["torch.nn", "lema.gone"])
def test_a_missing_extra_is_a_message_and_another_missing_module_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    def app() -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises((SystemExit, ModuleNotFoundError)) as ended:
        cli.main()
    if missing == "lema.gone":
        assert ended.type is ModuleNotFoundError
    else:
        assert (ended.type, ended.value.code) == (SystemExit, 1)
        assert capsys.readouterr().err == "torch is not installed: pip install -e '.[train]', or make setup\n"


def test_extras_are_those_of_pyproject() -> None:
    import tomllib

    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    declared = tomllib.loads(text)["project"]["optional-dependencies"]
    assert set(cli.EXTRAS) <= set(declared)


@pytest.mark.parametrize(
    "command",
    ["check", "plan demo", "cost", "make plan demo", "repro", "completions prune --keep demo"]
    + [f"completions {name}" for name in ("stats", "verify", "prune", "seal", "push", "pull")],
)
def test_a_folder_that_is_no_project_is_said_to_be_none(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEMA_HOME", raising=False)
    monkeypatch.setattr(sys, "argv", ["lema", *command.split()])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "params.yaml: is not here" in capsys.readouterr().err


def test_help_and_version() -> None:
    said = CliRunner().invoke(cli.app, ["--help"]).output
    lines = said.partition("Commands:")[2].splitlines()[1:]
    assert len(lines) > 9
    assert [line for line in lines if line.endswith("...")] == []  # each fits a terminal of 80 columns
    assert CliRunner().invoke(cli.app, ["--version"]).output == f"lema {__version__}\n"


def test_an_interruption_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lema.completions.cost.cost_report", interrupted)
    monkeypatch.setattr(sys, "argv", ["lema", "cost"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; what was bought is kept\n"
