"""Claims on sixteen losses against noisy labels."""

import statistics
from typing import Any

from experiments.shared.protocol import TAUS
from experiments.studies.claims.claim import Claim, ends, holds, in_words
from experiments.studies.claims.files import RATES, SETS, methods_of, table

__all__ = ["CLAIMS"]

_WITH = " + contrastive"


def _losses() -> dict[tuple[str, ...], float]:
    """(set, loss, rate) -> mean over seeds."""
    found = table("noisy_label_losses", "map", "set", "loss", "noise_rate")
    return {key: statistics.mean(values) for key, values in found.items()}


def _over_rates(of_set: str) -> dict[str, float]:
    at = _losses()
    names = dict.fromkeys(loss for name, loss, _ in at if name == of_set)
    return {loss: statistics.mean(at[of_set, loss, rate] for rate in RATES) for loss in names}


def losses_alone() -> dict[str, float]:
    at, fields = _losses(), {}
    for name, best in (("wikipedia-views", "rc"), ("emoji", "small-loss")):
        alone = [loss for set_, loss, _ in at if set_ == f"{name}-small" and loss != "defaults" and _WITH not in loss]
        for rate in RATES:
            ours = at[f"{name}-small", "defaults", rate]
            holds(all(at[f"{name}-small", loss, rate] < ours for loss in alone), "the defaults are ahead of all")
        holds(max(alone, key=lambda loss: at[f"{name}-small", loss, "0.8"]) == best, f"{best} is best on {name}")
        key = name[0]
        fields |= {
            f"{key}_best": at[f"{name}-small", best, "0.8"],
            f"{key}_ours": at[f"{name}-small", "defaults", "0.8"],
        }
    return fields


def _losses_together() -> dict[str, Any]:
    at, fields = _losses(), dict[str, Any]()
    close = {"wikipedia-views": ["nce-rce", "rc", "sce", "nce-mae"]}
    close["emoji"] = [*close["wikipedia-views"], "mae", "small-loss", "forward"]
    ahead = dict[tuple[str, str], list[float]]()
    for name, losses in close.items():
        means, key = _over_rates(f"{name}-small"), name[0]
        own = [means[loss + _WITH] for loss in losses]
        others = [value for loss, value in means.items() if _WITH in loss and loss.removesuffix(_WITH) not in losses]
        holds(min(own) > max(others), f"these are the best on {name}")
        lead = means["defaults"] - max(own)
        holds(lead > 0, f"the defaults have the highest mean on {name}")
        fields |= {f"{key}_within": max(own) - min(own), f"{key}_lead": lead}
        for rate in RATES:
            gains = {loss: at[f"{name}-small", loss, rate] - at[f"{name}-small", "defaults", rate] for loss in means}
            ahead[name, rate] = sorted(gain for gain in gains.values() if gain > 0)
            if (name, rate) == ("emoji", "0.8"):
                holds(max(gains, key=lambda x: gains[x]) == f"gmm{_WITH}", "gmm is furthest ahead on emoji at 0.8")
    empty = [("wikipedia-views", rate) for rate in RATES[1:]] + [("emoji", "0.4"), ("emoji", "0.6")]
    holds(not any(ahead[cell] for cell in empty), "none is ahead in the other cells")
    few = ahead["wikipedia-views", "0.2"] + ahead["emoji", "0.2"]
    fields |= {f"{name[0]}_count": in_words(len(ahead[name, "0.2"])) for name in SETS} | ends(few)
    most = ahead["emoji", "0.8"]
    return fields | {"most": in_words(len(most)), "most_low": most[0], "most_high": most[-1]}


def _highest_temperature() -> dict[str, float]:
    like_ce = ("ce", "focal", "label-smoothing", "bootstrap-soft", "elr", "lq")
    for name in SETS:
        methods = methods_of(f"{name}-small")
        holds(all(methods[loss]["chosen"]["tau1"] == max(TAUS) for loss in like_ce), "they choose the highest")
    return {"tau": max(TAUS)}


CLAIMS = (
    Claim(
        "docs/results_settings.md",
        """No loss of labels alone reaches the defaults. At noise 0.8 the best of the sixteen has {w_best:.3f}
        (Wikipedia, `rc`) and {e_best:.3f} (emoji, `small-loss`, which uses the oracle noise rate); the defaults have
        {w_ours:.3f} and {e_ours:.3f}. The defaults are ahead of all sixteen at every rate.""",
        losses_alone,
    ),
    Claim(
        "docs/results_settings.md",
        """On Wikipedia `nce-rce`, `rc`, `sce` and `nce-mae` lie within {w_within:.3f} of each other in the mean. On
        emoji these, `mae`, `small-loss` and `forward` (both use the oracle noise) lie within {e_within:.3f}. The
        defaults have the highest mean on both sets, by {w_lead:.3f} and {e_lead:.3f}, but not in every cell. At noise
        0.2 {w_count} losses on Wikipedia and {e_count} on emoji are ahead, by {low:.3f} to {high:.3f}. On emoji at 0.8
        {most} of the sixteen are ahead, by {most_low:.3f} to {most_high:.3f} (`gmm`).""",
        _losses_together,
    ),
    Claim(
        "docs/results_settings.md",
        "Cross-entropy alone, and losses that are close to it, choose the highest temperature of the grid, {tau:g}.",
        _highest_temperature,
    ),
)
