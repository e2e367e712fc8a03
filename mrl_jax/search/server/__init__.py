"""The page and the JSON API of `python -m mrl_jax.search --serve`. From `limits` to `serving`, imports run upwards."""
