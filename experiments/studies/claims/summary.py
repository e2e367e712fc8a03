"""Claims on the page of findings, which says in short what the other pages of results have in full."""

from experiments.studies.claims import consensus, defaults, losses, temperatures
from experiments.studies.claims.claim import Claim

__all__ = ["CLAIMS"]

_PAGE = "docs/results.md"

CLAIMS = (
    Claim(
        _PAGE,
        """At noise 0.2, 0.4, 0.6 and 0.8, about {at0:.0f}, {at1:.0f}, {at2:.0f} and {at3:.0f} % of the training labels
        are wrong.""",
        consensus.wrong_shares,
    ),
    Claim(
        _PAGE,
        "MRL falls with noise 0.8 on emoji from {best:.2f} to {last:.2f}; consensus ends at {ours:.2f}.",
        consensus.memorising,
    ),
    Claim(
        _PAGE,
        """Of {cells} cells (set, length, kind and rate of noise), {above} lie above the best row of MRL, by up to
        {gain:.3f}; {below} lie below it by more than one standard error, by {most:.3f} at most.""",
        consensus.best_of_mrl,
    ),
    Claim(
        _PAGE,
        """The last epoch of consensus lies at most {ours:.3f} below the best one by clean labels with every length and
        noise at the default learning rate; that of MRL up to {mrl:.3f}.""",
        consensus.falls,
    ),
    Claim(
        _PAGE,
        """MRL with both does not fall, but lies {e_low:.3f} to {e_high:.3f} below consensus on emoji and {w_low:.3f} to
        {w_high:.3f} on Wikipedia.""",
        consensus.control,
    ),
    Claim(
        _PAGE,
        """It lies {e_low:.3f} to {e_high:.3f} below consensus on emoji and {w_low:.3f} to {w_high:.3f} on Wikipedia,
        and falls with noise 0.8 on emoji from {clean:.3f} at its best epoch to {last:.3f}.""",
        consensus.elrcmr,
    ),
    Claim(
        _PAGE,
        """On Wikipedia the two are equal at noise 0.2 and 0.4, and the defaults are ahead by {six:.3f} and {eight:.3f}
        at 0.6 and 0.8.""",
        defaults.defaults_on_wikipedia,
    ),
    Claim(
        _PAGE,
        "On emoji the defaults are {low:.3f} to {high:.3f} behind the recipe at its best β.",
        defaults.defaults_on_emoji,
    ),
    Claim(
        _PAGE,
        "with few wrong labels on emoji, the robust loss alone is ahead of MRL by {low:.3f} to {high:.3f}.",
        defaults.losses_alone_on_emoji,
    ),
    Claim(
        _PAGE,
        """At noise 0.8 the best of the sixteen has {w_best:.3f} on Wikipedia and {e_best:.3f} on emoji; the defaults
        have {w_ours:.3f} and {e_ours:.3f}.""",
        losses.losses_alone,
    ),
    Claim(
        _PAGE,
        """τ = 1, the paper's value, loses {low:.2f} to {high:.2f} mAP on 100 classes and more; 0.1, the best value
        there, loses {ten:.2f} on 10 classes. With the default rule, MRL is ahead of cross-entropy with the contrastive
        loss at its best temperature on all {sets} sets, by {ce_low:.2f} to {ce_high:.2f}.""",
        temperatures.fixed_temperatures,
    ),
    Claim(
        _PAGE,
        "is the best of {cosine} settings with the cosine schedule, in the mean of {sets} sets;",
        defaults.best_with_cosine,
    ),
)
