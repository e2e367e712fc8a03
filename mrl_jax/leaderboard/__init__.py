"""Methods ranked on data of one's own, with paired tests."""

from mrl_jax.leaderboard.board import Leaderboard, leaderboard

__all__ = ["Leaderboard", "leaderboard"]
