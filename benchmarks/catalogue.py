"""The table of models, read off the registry: ``rnnbench list models``, and models/README.md, which a test keeps current.

What can be built is built: causality, state and parameters are those of a predictor, what a model accepts is what it does not
refuse among the kinds of task that the contract is checked on.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from benchmarks.checking import KINDS, Kind
from benchmarks.execution.isolated import Ended, isolated
from models import registry
from models.contract import ModelEntry, Predictor
from models.sequences import Actions, Binary, Classes, Real, RealInput, Transcript
from models.sizing import backbone_parameters, size_to_budget

BUDGET = 20_000
HEADER = (
    "model",
    "family",
    "what it is",
    "causal",
    "streams",
    "state",
    f"parameters at {BUDGET:,}",
    "accepts",
    "source",
)

HEADING = f"""# The models

Written by `rnnbench list models --markdown`, from the registry.

- **causal**: an output uses inputs up to its own step only; *as the task asks* where a model has both forms.
- **streams**: whether it runs step by step, and how what it carries grows.
- **state**: numbers carried for one sequence after t steps, where every step asks for a class. H width, L layers, S states,
  W window, D = 32 features between encoder, backbone and read-out, C channels, V symbols, K outputs, T the task's longest
  sequence; other names are options.
- **parameters**: of the backbone, at a budget of {BUDGET:,}, and the width that meets it; models without a width have the size
  that their fit gives them.
- **accepts**: inputs, then what it can be asked for.

"""


class Row(NamedTuple):
    """One model, as text; in the order of HEADER."""

    model: str
    family: str
    summary: str
    causal: str
    streams: str
    state: str
    parameters: str
    accepts: str
    source: str


def rows() -> list[Row]:
    """Every registered model, plug-ins included."""
    return [_row_of(entry) for entry in registry.entries().values()]


def markdown() -> str:
    """The whole of models/README.md."""
    table = [HEADER, ("---",) * len(HEADER), *((f"`{row.model}`", *row[1:]) for row in rows())]
    lines = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table)
    return HEADING + "\n".join(lines) + "\n"


def _row_of(entry: ModelEntry) -> Row:
    """A plug-in is built in a process of its own, and one that cannot be has a row with the reason."""
    if entry.name not in registry.plugins():
        return _row(entry)
    try:
        return isolated(partial(_row, entry), "rnnb-list")
    except Ended as error:
        unknown = ["?"] * (len(HEADER) - 3)
        return Row(entry.name, str(entry.family), f"broken: {error}", *unknown)


def _row(entry: ModelEntry) -> Row:
    taken = [kind for kind in KINDS if entry.refuses(*kind) is None]
    typical = taken[0]._replace(inputs=type(taken[0].inputs)(8, 100, 32))
    config, _ = size_to_budget(entry, *typical, entry.config, BUDGET)
    built = [registry.build(entry, *kind, config, seed=0) for kind in taken]
    forms = {predictor.causal for predictor in built}
    count = backbone_parameters(entry, *typical, config) if entry.width else 0
    return Row(
        model=entry.name,
        family=entry.family,
        summary=entry.summary,
        causal="as the task asks" if len(forms) == 2 else "yes" if True in forms else "no",
        streams=_streams([predictor for predictor in built if predictor.causal]),
        state=entry.state.replace("*", "·"),
        parameters=f"{count:,} ({entry.width} {getattr(config, entry.width)})" if entry.width else "by its fit",
        accepts=_accepts(taken),
        source=entry.source,
    )


def _streams(causal: list[Predictor]) -> str:
    if not causal:
        return "no"
    constant = all(predictor.state_bytes(1) == predictor.state_bytes(10**6) for predictor in causal)
    return "in constant state" if constant else "in a state that grows to a bound"


def _accepts(taken: list[Kind]) -> str:
    asked = {
        "a class": lambda target: isinstance(target, Classes) and target.scope == "sequence",
        "tags": lambda target: isinstance(target, Classes) and target.scope == "step" and not target.future,
        "the next symbol": lambda target: isinstance(target, Classes) and target.future,
        "yes/no vectors": lambda target: isinstance(target, Binary) and not target.future,
        "the next frame": lambda target: isinstance(target, Binary) and target.future,
        "values": lambda target: isinstance(target, Real) and not target.future,
        "forecasts": lambda target: isinstance(target, Real) and target.future,
        "transcripts": lambda target: isinstance(target, Transcript),
        "actions": lambda target: isinstance(target, Actions),
    }
    inputs = {"numbers" if isinstance(kind.inputs, RealInput) else "symbols" for kind in taken}
    targets = [name for name, fits in asked.items() if any(fits(kind.target) for kind in taken)]
    return f"{' and '.join(sorted(inputs))}: {'anything' if len(targets) == len(asked) else ', '.join(targets)}"
