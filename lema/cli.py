"""The command line. Every error that a user can cause is printed as a message, never as a traceback."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from lema import __version__
from lema.errors import LemaError, RecipeError

if TYPE_CHECKING:
    from lema.completions.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
completions = typer.Typer(no_args_is_help=True, help="The store of paid completions.")
app.add_typer(completions, name="completions")

CostBy = Literal["stage", "model", "prompt", "day"]
SCHEMA = Path("recipes/schema.json")
# Packages of extras, by the extra that brings them.
EXTRAS = {
    "train": ("accelerate", "gguf", "peft", "safetensors", "tokenizers", "torch", "transformers"),
    "hub": ("datasets", "huggingface_hub"),
    "math": ("latex2sympy2_extended", "math_verify"),
    "qlora": ("bitsandbytes",),
    "vllm": ("vllm",),
}


def main() -> NoReturn:
    """Entry point of `lema`; exit code 2 for errors in recipes and arguments, 1 for a stage that failed."""
    # The user's own parts, `my_pkg.my_mod:func`, are looked up from the project's root.
    sys.path.insert(0, str(Path.cwd()))
    # Threads of torch that wait do not spin: beside another busy process, spinning makes both several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        sys.exit(app())
    except LemaError as error:
        typer.echo(str(error), err=True)
        if isinstance(error, RecipeError):
            typer.echo(f"{len(error.problems)} problem{'s' * (len(error.problems) != 1)}", err=True)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        typer.echo(f"{package} is not installed: pip install -e '.[{extra}]', or make setup", err=True)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == 130:  # typer's exit code of ctrl-C; it prints nothing
            typer.echo("interrupted; what was bought is kept", err=True)
        raise


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lema {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Make for mistake-correction data.

    Recipes are in recipes/, what is built and how fast in params.yaml. Run it in the folder that holds both.
    """


@app.command("check")
def check_command(
    recipes: Annotated[list[Path] | None, typer.Argument(help="Recipes, by name or file; all when absent.")] = None,
) -> None:
    """Report every error in recipes and params.yaml.

    Each has its line and what is allowed there. Loads no model and uses no network.
    """
    from lema.check.check import check as check_recipes

    report = check_recipes(recipes or None, Path.cwd(), os.environ)
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    if report.problems:
        raise RecipeError(report.problems)
    typer.echo("ok")


@app.command()
def schema(
    fresh: Annotated[bool, typer.Option("--check", help="Only check that recipes/schema.json is up to date.")] = False,
) -> None:
    """Print the JSON Schema of recipes, for editors."""
    from lema.recipe.json_schema import schema_text

    text = schema_text()
    if not fresh:
        typer.echo(text, nl=False)
    elif not SCHEMA.is_file() or SCHEMA.read_text(encoding="utf-8") != text:
        typer.echo(f"{SCHEMA} is stale: lema schema > {SCHEMA}", err=True)
        raise typer.Exit(1)


@app.command()
def plan(recipe: Annotated[str, typer.Argument(help="A recipe, in params.yaml or not.")]) -> None:
    """Show what a recipe would rebuild, and the cost (dry run).

    For every artifact: whether it is stale and why, its requests to models, how many of them are in the store, and
    what the others cost. Sends nothing.
    """
    from lema.pipeline import dry_run, estimate

    typer.echo(estimate.plan_table(dry_run.DryRun(recipe)))


@app.command()
def cost(
    recipe: Annotated[str | None, typer.Argument(help="A recipe; all when absent.")] = None,
    by: Annotated[CostBy, typer.Option(help="How requests are grouped.")] = "stage",
    settled: Annotated[
        str | None,
        typer.Option("--settle", metavar="DOLLARS", help="The amount billed for requests in doubt; 0 if nothing."),
    ] = None,
) -> None:
    """Report what was bought here and what the store saved.

    From the ledger of this machine; uses no network.
    """
    from lema.completions.cost import cost_report, settle_by_bill

    _require_project()
    typer.echo(cost_report(recipe, by, Path.cwd()) if settled is None else settle_by_bill(recipe, settled))


@app.command("make")
def make_command(
    artifact: Annotated[str, typer.Argument(help="A stage of dvc.yaml: plan, source, questions...")],
    target: Annotated[str, typer.Argument(metavar="RECIPE[/ARM]", help="The recipe; mix and adapter need an arm.")],
    offline: Annotated[bool, typer.Option("--offline", help="Fail if a completion is not in the store.")] = False,
    with_inputs: Annotated[bool, typer.Option("--with-inputs", help="First build missing and stale inputs.")] = False,
) -> None:
    """Make one artifact: the command of every stage in dvc.yaml.

    Its inputs must be there; --with-inputs builds them first, with DVC if params.yaml names the recipe.
    """
    recipe, _, arm = target.partition("/")
    if with_inputs:
        from lema.pipeline.repro import make_with_inputs

        raise typer.Exit(make_with_inputs(artifact, recipe, arm or None, offline=offline))
    from lema.pipeline.run import make as make_artifact

    make_artifact(artifact, recipe, arm or None, offline=offline)


@app.command("repro", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def repro_command(context: typer.Context) -> None:
    """Build what is out of date: `dvc repro` with one Ray.

    Takes names of recipes, or arguments of `dvc repro`, such as a stage: lema repro scores@demo. A recipe that
    params.yaml does not name is built without DVC: completions are kept, but its files in data/ are in no dvc.lock, so
    they are neither versioned nor pushed.
    """
    from lema.pipeline.repro import repro as run_dvc

    raise typer.Exit(run_dvc(context.args))


@app.command()
def ls(kind: Annotated[str, typer.Argument(help="tasks, filters, backends or prompts; all when absent.")] = "") -> None:
    """List the parts that a recipe can name."""
    from lema.report.show import list_parts

    typer.echo(list_parts(kind, Path.cwd()))


@app.command()
def show(
    artifact: Annotated[str, typer.Argument(help="An artifact of rows.")],
    target: Annotated[str, typer.Argument(metavar="RECIPE[/ARM]")],
    n: Annotated[int, typer.Option("--n", "-n", help="Number of rows.")] = 3,
    where: Annotated[list[str] | None, typer.Option(help="field=value; can be repeated.")] = None,
) -> None:
    """Print rows of an artifact in a readable form."""
    from lema.report.show import open_tables, show_rows

    recipe, _, arm = target.partition("/")
    typer.echo(show_rows(artifact, open_tables(artifact, recipe, arm or None), n=n, where=where or []))


@app.command("merge")
def merge_command(
    target: Annotated[str, typer.Argument(metavar="RECIPE/ARM", help="The arm of the adapter.")],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    seed: Annotated[int | None, typer.Option(help="Which training, if there are several.")] = None,
) -> None:
    """Merge an adapter into the student and write the model.

    The folder can be loaded by transformers, vLLM and others.
    """
    from lema.pipeline.providers import merge_student as merge_model

    recipe, _, arm = target.partition("/")
    merge_model(recipe, arm or None, out, seed)
    typer.echo(f"{target} is in {out}")


def _store() -> "Store":
    """The store of the project; an error outside a project."""
    from lema.pipeline.stage_runner import completion_store

    _require_project()
    return completion_store()


def _require_project() -> None:
    from lema.recipe.load import load_params

    if not Path("params.yaml").exists() and "LEMA_HOME" not in os.environ:
        load_params(Path("params.yaml"))  # raises RecipeError


@completions.command()
def stats() -> None:
    """Count the completions in the store."""
    for name, value in _store().stats().items():
        typer.echo(f"{name:<12} {value}")


@completions.command()
def verify() -> None:
    """Read all of the store and report what is wrong with it.

    One line a fault; exit code 1 if there is any.
    """
    from lema.completions.upkeep import verify_store

    found = verify_store(_store())
    for name in ("packs", "journals", "completions", "copies", "failures"):
        typer.echo(f"{name:<12} {getattr(found, name)}")
    for fault in found.faults:
        typer.echo(fault, err=True)
    raise typer.Exit(1 if found.faults else 0)


@completions.command()
def prune(
    keep: Annotated[
        list[str] | None, typer.Option(metavar="RECIPE", help="Also drop what no row of these recipes refers to.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only report what would be done.")] = False,
) -> None:
    """Drop from packs what is never served.

    That is duplicates of a reply, and records of failures; no reply that could be served, unless --keep allows it.
    """
    from lema.completions.upkeep import prune_packs
    from lema.pipeline.sync import needed_completions

    store = _store()
    keys, labels = needed_completions(keep) if keep else (None, set())
    found = prune_packs(store, needed=keys, labels=labels, really=yes)
    what = f"{found.copies} copies, {found.failures} failures, {found.unneeded} unneeded replies in {found.packs} packs"
    typer.echo(f"dropped {what}" if yes else f"would drop {what}; --yes does it")


@completions.command()
def seal() -> None:
    """Seal the journals of runs that ended or were killed into packs."""
    made = _store().seal()
    typer.echo("\n".join(f"sealed {pack.name}" for pack in made) or "nothing to seal")


@completions.command()
def push() -> None:
    """Upload all packs to the DVC remote.

    They are listed in completions.dvc; commit it to git.
    """
    from lema.pipeline.sync import push_packs

    typer.echo(f"packs at the remote: {push_packs(_store())}; commit completions.dvc")


@completions.command()
def pull() -> None:
    """Fetch the packs that completions.dvc lists.

    Packs that only you have stay.
    """
    from lema.pipeline.sync import pull_packs

    _require_project()
    typer.echo(f"packs fetched: {pull_packs()}")
