# docker build --tag mrl_jax .                                                    the CPU
# docker build --tag mrl_jax:cuda --build-arg EXTRAS=cuda13,serve,report,export .   NVIDIA GPUs; the host has the driver
# docker build --tag mrl_jax:serve --target serve .                               the search page, with a health check
# docs/install.md says how to run them.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG EXTRAS=serve,report,export
WORKDIR /src
COPY pyproject.toml setup.cfg setup.py requirements.txt README.md LICENSE ./
COPY mrl_jax mrl_jax
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint requirements.txt ".[${EXTRAS}]"

FROM ${BASE} AS base
LABEL org.opencontainers.image.title="mrl_jax" \
      org.opencontainers.image.description="Learning cross-modal retrieval from noisy labels, in JAX and Flax" \
      org.opencontainers.image.licenses="Apache-2.0"
# Volumes mounted on these folders then belong to the user.
RUN useradd --uid 1000 --create-home mrl && install --directory --owner=mrl /mrl /home/mrl/.cache
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /mrl
ENTRYPOINT ["python", "-m", "mrl_jax"]

FROM base AS serve
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["search", "--serve", "--host", "0.0.0.0", "--port", "8000", "--workdir", "/mrl/run"]

# The last one is built where no target is named.
FROM base AS run
CMD ["--help"]
