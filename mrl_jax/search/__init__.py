"""Search over embeddings: exact top-k (`exact`, `index`), FAISS (`faiss_index`), and search with a run
(`searcher`).

`python -m mrl_jax.search` is in `__main__`; this file imports nothing, so that the command starts fast.
"""
