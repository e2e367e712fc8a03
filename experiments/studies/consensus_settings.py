"""The study behind the length, the dropout and the mixup of consensus: several values of each, and MRL beside it.

    python -m experiments.studies.consensus_settings [--sets emoji generated-100 …] [--views wikipedia_4views.npz]
    python -m experiments.studies.consensus_settings --from-results

Lengths are numbers of steps. Layers 1024-1024-512, noise 0.2 and 0.8, one seed that no result uses. Prints validation
mAP with clean labels, by embedding and by class posterior, at the best epoch and at the last, the mean of both rates. A
setting is good if its last epoch is: then it needs neither clean validation labels nor the right number of epochs. Then
every set is left out once: the setting that the other sets choose, beside the defaults. 56 runs of 1,400 steps on
average per set: 50 minutes on one core (AMD EPYC, 2026-11-29). The runs are kept in `consensus_settings_SET.jsonl`.
"""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.leave_one_out import leave_one_out_table
from experiments.shared.outputs import save
from experiments.shared.protocol import SMOKE, TRIAL_SEED
from experiments.shared.tables import markdown
from experiments.shared.traces import Trace, facts_of, kept_traces, read_traces, trace
from experiments.studies.sets import SETS, load_set
from mrl_jax import Config, InputError
from mrl_jax.config import with_settings

RATES = (0.2, 0.8)
STEPS = (225, 450, 900, 1800, 3600)
POINTS = 12
KNOWN = ("emoji", "wikipedia-views", "generated-100", "generated-300", "emoji-31", "emoji-900")
KINDS = ("embedding", "posterior")


class Setting(NamedTuple):
    """What is tried: a method, its numbers, and the length."""

    method: str
    dropout: float
    hidden_dropout: float
    mixup: float
    steps: int


TRIED = (
    *(Setting("mrl", 0.0, 0.0, 0.0, steps) for steps in STEPS[:4]),
    *(Setting("consensus", dropout, 0.0, 0.0, steps) for steps in STEPS[1:4] for dropout in (0.2, 0.35, 0.5)),
    Setting("consensus", 0.35, 0.0, 0.0, 3600),
    *(Setting("consensus", 0.35, 0.0, 0.5, steps) for steps in STEPS[:2]),
    *(Setting("consensus", dropout, 0.0, 0.5, 900) for dropout in (0.0, 0.1, 0.2)),
    *(Setting("consensus", 0.35, hidden, 0.5, steps) for steps in STEPS[2:] for hidden in (0.0, 0.15, 0.3)),
)


DEFAULTS = Setting("consensus", 0.35, 0.0, 0.5, 900)
LEFT_OUT = (
    f"Every set left out once, with its family: {DEFAULTS.steps} steps, by class posterior at the last epoch, mean of "
    "both noise rates (dropout, hidden_dropout, mixup):"
)


def configs_of(setting: Setting, instances: int, smoke: bool) -> list[Config]:
    """The configurations of a setting, one per noise rate."""
    small: dict[str, Any] = SMOKE if smoke else {}
    batches = -(-instances // small.get("batch_size", Config().batch_size))
    numbers = ("dropout",) if setting.method == "mrl" else ("dropout", "hidden_dropout", "mixup")
    options = tuple(f"{name}={getattr(setting, name):g}" for name in numbers)
    own = {"epochs": max(1, round(setting.steps / batches)), "method_options": options}
    changes = {"method": setting.method, "seed": TRIAL_SEED, **own, **small}
    return [with_settings(Config(), **changes, noise_rate=rate) for rate in RATES]


def traces_of(name: str, args: Any) -> dict[Setting, list[Trace]]:
    """The runs of every setting on a set, one per noise rate; with `from_results` those settings that are complete.

    Raises:
        InputError: nothing is stored and nothing may be trained, or the set cannot be loaded.
    """
    path, tried = args.out / f"consensus_settings_{name}.jsonl", TRIED[::4] if args.smoke else TRIED
    if args.from_results:
        traces = read_traces(path)
        if not traces:
            raise InputError(f"no results in {path}; run without --from-results to make them")
        facts = traces[0].record["data"]
        found = {s: kept_traces(configs_of(s, facts["instances"], args.smoke), facts, traces) for s in tried}
        return {s: [t for t in own if t is not None] for s, own in found.items() if all(own)}
    data = load_set(name, args.views)
    count = facts_of(data)["instances"]
    configs = [c for s in tried for c in configs_of(s, count, args.smoke)]
    if len(set(configs)) < len(configs):  # --smoke: all lengths are the same
        configs = list(dict.fromkeys(configs))
    of_config = dict(zip(configs, trace(configs, data, path, points=POINTS), strict=True))
    return {s: [of_config[c] for c in configs_of(s, count, args.smoke)] for s in tried}


def _means(traces: Sequence[Trace], kind: str) -> tuple[float, float]:
    """Validation mAP of the best epoch and of the last one, the mean of the noise rates."""
    best, last = (statistics.mean(t.score(by, kind, "valid_clean") for t in traces) for by in ("clean", "last"))
    return best, last


def left_out(sets: dict[str, dict[Setting, list[Trace]]]) -> str:
    """What the choice is worth on a set that has no part in it, as Markdown; "" if too little has been run."""
    valid, test = (
        {
            name: {
                s: statistics.mean(t.score("last", "posterior", what) for t in traces)
                for s, traces in found.items()
                if s.method == "consensus" and s.steps == DEFAULTS.steps
            }
            for name, found in sets.items()
        }
        for what in ("valid_clean", "test")
    )
    return leave_one_out_table(LEFT_OUT, valid, test, DEFAULTS, lambda s: ", ".join(map(str, s[1:-1])))


def _label(s: Setting) -> str:
    if s.method == "mrl":
        return "MRL"
    return f"consensus, dropout {s.dropout:g}" + (f", of units {s.hidden_dropout:g}, mixup" if s.mixup else "")


def draw(sets: dict[str, dict[Setting, list[Trace]]]) -> Figure:
    """Validation mAP of the last epoch (line) and of the best one (dots) against the number of steps."""
    figure = Figure(figsize=(4.2 * len(sets), 4.6), layout="constrained")
    known, lines = list(dict.fromkeys(s[:-1] for s in TRIED)), {}
    for axes, (name, found) in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets.items(), strict=True):
        for tried in dict.fromkeys(s[:-1] for s in found):
            own = [s for s in found if s[:-1] == tried]
            steps, means = [s.steps for s in own], [_means(found[s], "posterior") for s in own]
            color = f"C{known.index(tried)}"
            (line,) = axes.plot(steps, [last for _, last in means], "x-", color=color)
            axes.plot(steps, [best for best, _ in means], "o", color=color)
            lines[_label(own[0])] = line
        axes.set(title=name, xlabel="steps", ylabel="validation mAP by class posterior", xscale="log")
        axes.set_xticks(STEPS, list(map(str, STEPS)))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    title = "line and crosses: last epoch; dots: best epoch"
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=2, fontsize=8, title=title)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print and draw."""
    args = checked(parser(__doc__, SETS, seeds=False, smoke="tiny networks, few settings").parse_args(argv))
    names = args.sets or [n for n in KNOWN if args.views or n != "wikipedia-views"]
    if args.from_results and not args.sets:
        names = [n for n in KNOWN if (args.out / f"consensus_settings_{n}.jsonl").exists()]
    sets = {name: traces_of(name, args) for name in names}
    if not sets:
        raise InputError(f"no results in {args.out}; run without --from-results to make them")
    head = [f"{kind}, {epoch}" for kind in KINDS for epoch in ("best epoch", "last epoch")]
    rows, lines = [["set", *Setting._fields, *head]], []
    for name, found in sets.items():
        for setting, traces in found.items():
            values = [x for kind in KINDS for x in _means(traces, kind)]
            rows.append([name, *map(str, setting), *(f"{x:.3f}" for x in values)])
            lines += [
                [
                    name,
                    *setting,
                    t.config.noise_rate,
                    *(t.score(by, k, "valid_clean") for k in KINDS for by in ("clean", "last")),
                ]
                for t in traces
            ]
    save(
        args.out / "consensus_settings",
        markdown(rows) + left_out(sets),
        ["set", *Setting._fields, "noise_rate", *head],
        lines,
        draw(sets),
    )


if __name__ == "__main__":
    run_main(main)
