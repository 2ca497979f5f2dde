"""Command line: the subcommands and their options, and what is said when one is misspelt.

Only what the user typed comes back (`parse` fills in no defaults), so that a recipe's own values
lie between the defaults and the command line. Nothing here imports torch.
"""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Sequence
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from topospike.errors import ConfigError
from topospike.files.reading import UNREADABLE, shortened
from topospike.recipe import ConversionSettings, MeasureSettings, PruneSettings, Recipe
from topospike.recipe.files import MOST_NESTED, nearest, packaged_recipes, readable
from topospike.registry import suggestion

DESCRIPTION = (
    "Grow sparse, brain-like networks, turn them into spiking networks, and say what they cost."
)
RECIPE_HELP = "name of a packaged recipe ({}) or path of a YAML file"
MOST_CHARACTERS = 20_000
EXPORTS = ("nir", "csr", "onnx", "graphml", "npz", "csv")
DEVICE_HELP = "cpu, cuda, cuda:1, ... (default: an accelerator where there is one)"


def build_parser() -> ArgumentParser:
    """Return the parser of the whole command line."""
    parser = new_parser(DESCRIPTION, prog="topospike", version=version())
    commands = parser.add_subcommands(required=True, dest="command", metavar="command")
    for name, (build, summary) in COMMANDS.items():
        commands.add_subcommand(name, build(summary), help=summary)
    return parser


def parse(arguments: Sequence[str]) -> tuple[str, Namespace]:
    """Return the subcommand and the options that were typed.

    Raises
    ------
    ConfigError
        An unknown command or option (with the nearest one), or a value that does not fit.
    """
    parser = build_parser()
    for argument in arguments:
        check_argument(argument)
    try:
        options = parser.parse_args(list(arguments), defaults=False)
    except ConfigError:
        raise
    except (ArgumentError, *UNREADABLE) as error:
        raise ConfigError(shortened(explain(str(error), arguments), 1000)) from error
    return options.command, options[options.command]


def check_argument(argument: str) -> None:
    """Refuse what the parser's own library does not survive: thousands of nested brackets.

    Examples
    --------
    >>> check_argument("--convert=[{method: dcgs}]")
    >>> check_argument("[" * 50)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: an argument has 50 brackets open at once, ...
    """
    opened = deepest = 0
    for character in argument:
        opened += (character in "[{(") - (character in "]})")
        deepest = max(deepest, opened)
    if deepest > MOST_NESTED:
        raise ConfigError(
            f"an argument has {deepest} brackets open at once, at most {MOST_NESTED} are used: "
            f"{shortened(argument, 60)}."
        )
    if len(argument) > MOST_CHARACTERS:
        raise ConfigError(
            f"an argument has {len(argument)} characters, at most {MOST_CHARACTERS} are used: "
            f"{shortened(argument, 60)}."
        )


def explain(message: str, arguments: Sequence[str]) -> str:
    """Say on one line what was wrong with the arguments, with the nearest right name."""
    command = next((name for name in arguments if not name.startswith("-")), "")
    if command not in COMMANDS:
        hint = suggestion(command, COMMANDS)
        return f"unknown command {command!r}. Known: {', '.join(COMMANDS)}.{hint}"
    _, found, rest = message.partition("unrecognized arguments: ")
    if not found:
        return f"topospike {command}: {readable(message).replace(f'{command}.', '')}"
    name = (rest.split() or [""])[0].partition("=")[0]
    known = [f"--{option}" for option in option_names(command)]
    hint = nearest(name, known) if name.startswith("-") else ""
    if command == "convert" and not hint:
        hint = f" An option of the method is typed as --options.{name.lstrip('-')}."
    return f"topospike {command}: unknown argument {name!r}.{hint}"


def option_names(command: str) -> list[str]:
    """Return the long options of a subcommand, without their dashes."""
    build, summary = COMMANDS[command]
    return ["help", *build(summary).get_defaults().keys()]


def new_parser(
    summary: str, *, prog: str | None = None, version: str | None = None
) -> ArgumentParser:
    """Return a parser that raises instead of exiting and does not guess abbreviations.

    ``--print_config`` is ours: the parser's own would print the options, not the resolved recipe.
    """
    return ArgumentParser(
        prog=prog,
        description=summary,
        version=version,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,
    )


def demo_parser(summary: str) -> ArgumentParser:
    """Options of ``demo``."""
    parser = new_parser(summary)
    add_run_options(parser, folder="runs/demo")
    return parser


def recipe_command_parser(summary: str) -> ArgumentParser:
    """Options of ``run`` and ``train``."""
    parser = new_parser(summary)
    parser.add_argument("recipe", help=RECIPE_HELP.format(", ".join(packaged_recipes())))
    add_run_options(parser, folder="runs/NAME")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="train again where the folder holds a run with other settings",
    )
    return parser


def add_run_options(parser: ArgumentParser, *, folder: str) -> None:
    """Add what every command that trains has: the folder, and every key of a recipe."""
    parser.add_argument("--folder", type=str, help=f"the run folder (default: {folder})")
    parser.add_argument("--print_config", action="store_true", help="print the recipe and stop")
    add_common_options(parser)
    parser.add_class_arguments(Recipe, as_group=True)


def add_common_options(parser: ArgumentParser) -> None:
    """Add what every command that computes has."""
    parser.add_argument("--device", type=str, help=DEVICE_HELP)
    add_debug(parser)


def add_debug(parser: ArgumentParser) -> None:
    """Add ``--debug``."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def prune_parser(summary: str) -> ArgumentParser:
    """Options of ``prune``."""
    parser = new_parser(summary)
    parser.add_argument("folder", type=str, help="a run folder with a trained dense network")
    parser.add_argument(
        "--sparsity", type=float, help="of linear layers (default: sparsity.linear of the run)"
    )
    parser.add_argument(
        "--conv_sparsity", type=float, help="of convolutions (default: sparsity.conv of the run)"
    )
    parser.add_argument("--to", type=str, help="folder of the pruned run (default: FOLDER-METHOD)")
    parser.add_class_arguments(PruneSettings, as_group=True)
    add_common_options(parser)
    return parser


def convert_parser(summary: str) -> ArgumentParser:
    """Options of ``convert``."""
    parser = new_parser(summary)
    parser.add_argument("folder", type=str, help="a run folder with trained networks")
    parser.add_class_arguments(ConversionSettings, as_group=True)
    add_common_options(parser)
    return parser


def simulate_parser(summary: str) -> ArgumentParser:
    """Options of ``simulate``."""
    parser = new_parser(summary)
    parser.add_argument("folder", type=str, help="a run folder with converted networks")
    parser.add_argument(
        "--method", type=str, help="only one conversion, by its name (default: all)"
    )
    parser.add_argument(
        "--stream", type=str, help="show frames instead: a folder of pictures, or an array (.npy)"
    )
    parser.add_argument("--steps", type=int, default=2, help="time steps a frame is shown for")
    parser.add_argument("--first", type=int, help="the same for the first frame (default: 4 more)")
    parser.add_class_arguments(MeasureSettings, as_group=True)
    add_common_options(parser)
    return parser


def analyse_parser(summary: str) -> ArgumentParser:
    """Options of ``analyse``."""
    parser = new_parser(summary)
    parser.add_argument("paths", type=str, nargs="+", help="run folders or saved topologies (.npz)")
    parser.add_argument(
        "--random", action="store_true", help="compare with random links, as many in every layer"
    )
    parser.add_argument(
        "--folder", type=str, help="where a comparison goes (default: runs/comparison)"
    )
    parser.add_argument("--figures", action="store_true", help="draw disks, degrees, adjacency")
    parser.add_argument(
        "--chain", type=str, nargs="+", help="layers to join into one graph, input side first"
    )
    parser.add_argument("--nulls", type=int, help="random graphs of each null model (default: 20)")
    parser.add_argument("--weighting", type=str, help="RA2 (default), RA1, EBC or none")
    parser.add_argument("--reduction", type=str, help="ISO (default), ncISO, LE, MCE or ncMCE")
    parser.add_argument("--angles", type=str, help="equidistant (default), circular or original")
    parser.add_argument("--bootstrap", type=int, help="samples for the p of the power law")
    parser.add_argument("--consistency", type=int, help="draws of the structural consistency")
    add_debug(parser)
    return parser


def report_parser(summary: str) -> ArgumentParser:
    """Options of ``report``."""
    parser = new_parser(summary)
    parser.add_argument("folders", type=str, nargs="+", help="run folders")
    add_debug(parser)
    return parser


def verify_parser(summary: str) -> ArgumentParser:
    """Options of ``verify``."""
    parser = new_parser(summary)
    parser.add_argument("folder", type=str, help="a run folder")
    parser.add_argument(
        "--accept", action="store_true", help="seal the files as they are: the edits are meant"
    )
    add_debug(parser)
    return parser


def reproduce_parser(summary: str) -> ArgumentParser:
    """Options of ``reproduce``."""
    parser = new_parser(summary)
    parser.add_argument(
        "target",
        type=str,
        help="table1 to table4, fig3, fig4, fig5, figA1, tableA4, all of these; ch-snn; cht-mlp; "
        "llama60m; methods; controls",
    )
    parser.add_argument(
        "runs",
        type=str,
        nargs="*",
        help="methods: run folders whose networks are converted (default: the demo's, trained)",
    )
    parser.add_argument("--scale", type=str, help="full, cpu or smoke (default: cpu)")
    parser.add_argument(
        "--row",
        type=str,
        nargs="+",
        help="only rows with these parts, such as cifar10/vgg16 cht (default: every row)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds of every row (default: 0)")
    parser.add_argument(
        "--methods", type=str, nargs="+", help="methods: which ones (default: the main three)"
    )
    parser.add_argument("--images", type=int, help="methods: test images (default: all)")
    parser.add_argument(
        "--recipe", type=str, help="controls: whose network is trained (default: the scale's)"
    )
    parser.add_argument("--folder", type=str, help="default: runs/reproduce")
    parser.add_argument(
        "--table_only", action="store_true", help="write the tables from what was run before"
    )
    add_common_options(parser)
    return parser


def export_parser(summary: str) -> ArgumentParser:
    """Options of ``export``."""
    parser = new_parser(summary)
    parser.add_argument("folder", type=str, help="a run folder with trained networks")
    parser.add_argument("--to", type=Literal[EXPORTS], required=True, help="what to write")
    parser.add_argument("--network", type=str, help="dense, or the sparse one (default)")
    parser.add_argument("--method", type=str, help="nir, csr: which conversion (default: first)")
    parser.add_argument("--output", type=str, help="where (default: FOLDER/export/NETWORK...)")
    parser.add_argument(
        "--neuron", type=Literal["if", "lif"], help="nir: lif for snnTorch (default: if)"
    )
    parser.add_argument(
        "--binary_axons", action="store_true", help="nir: multi-threshold neurons as 2n axons"
    )
    add_common_options(parser)
    return parser


def chip_parser(summary: str) -> ArgumentParser:
    """Options of ``chip``."""
    parser = new_parser(summary)
    parser.add_argument("folder", type=str, help="a run folder with a conversion by qcfs")
    parser.add_argument("--network", type=str, help="dense, or the sparse one (default)")
    parser.add_argument("--method", type=str, help="which conversion (default: qcfs)")
    parser.add_argument(
        "--part", type=str, help="a module alone (classifier), given what reaches it in the ANN"
    )
    parser.add_argument("--arch", type=str, help="loihi, or a YAML file (default: loihi)")
    parser.add_argument("--images", type=int, help="test images, each by itself (default: 4)")
    parser.add_argument("--timesteps", type=int, help="T (default: the conversion's)")
    add_common_options(parser)
    return parser


def sweep_parser(summary: str) -> ArgumentParser:
    """Options of ``sweep``."""
    parser = new_parser(summary)
    parser.add_argument("recipe", help=RECIPE_HELP.format(", ".join(packaged_recipes())))
    parser.add_argument(
        "--space",
        type=str,
        nargs="+",
        help="what varies: KEY=VALUE,VALUE or KEY=LOW:HIGH[:log]; train.learning_rate=0.1,0.01",
    )
    parser.add_argument("--search", type=str, help="grid or optuna (default: grid)")
    parser.add_argument("--samples", type=int, help="trials of a search by optuna (default: 20)")
    parser.add_argument(
        "--select", type=str, help="by validation images, or by test images: paper (validation)"
    )
    parser.add_argument("--judge", type=str, help="ann, or a conversion method (default: ann)")
    parser.add_argument("--address", type=str, help="of a Ray cluster, or auto (default: local)")
    parser.add_argument("--cpus", type=float, help="of each trial (default: 1)")
    parser.add_argument("--gpus", type=float, help="of each trial, such as 0.25 (default: 0)")
    parser.add_argument("--retries", type=int, help="of a trial that failed (default: 2)")
    add_run_options(parser, folder="runs/sweep-NAME")
    return parser


def version() -> str:
    """Return the version of the package, read only when asked for."""
    from topospike import __version__

    return __version__


COMMANDS = {
    "demo": (demo_parser, "Train, convert, measure and report a small example on digits."),
    "run": (recipe_command_parser, "Run a recipe from data to report; continues a stopped run."),
    "train": (recipe_command_parser, "Run the training stages of a recipe."),
    "prune": (prune_parser, "Prune the dense network of a run folder, into a folder of its own."),
    "convert": (convert_parser, "Convert the trained networks of a run folder."),
    "simulate": (simulate_parser, "Measure the converted networks: accuracy, energy, every step."),
    "analyse": (analyse_parser, "Analyse sparse topologies as networks, several side by side."),
    "report": (report_parser, "Write report.html of run folders."),
    "verify": (verify_parser, "Say which files of a run folder are as the run wrote them."),
    "export": (export_parser, "Write a network as NIR, CSR weights, a graph, or ONNX."),
    "chip": (chip_parser, "Run a converted network on a simulated neuromorphic chip."),
    "sweep": (sweep_parser, "Run a recipe with many settings, on one machine or a cluster."),
    "reproduce": (reproduce_parser, "Run rows of the paper's tables, and compare with print."),
}
