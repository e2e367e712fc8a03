"""Search over embeddings: exact top-k (`index`), FAISS (`faiss_index`), and a run as a search engine (`searcher`).

`python -m mrl_jax.search` is in `__main__`; importing the package alone brings nothing, so that it starts fast.
"""
