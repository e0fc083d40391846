# mixserve as an image. On the CPU:  docker build -t mixserve .
# With CUDA 13:                      docker build -t mixserve:cu130 --build-arg TORCH_VARIANT=cu130 .
ARG PYTHON_VERSION=3.13

# 1. Everything is installed into a virtual environment; pip and its leftovers stay behind in this stage.
FROM python:${PYTHON_VERSION}-slim AS build
ARG TORCH_VARIANT=cpu
RUN python -m venv /opt/mixserve
ENV PATH=/opt/mixserve/bin:$PATH
# Torch is most of the image and changes seldom: a layer of its own, which a change of our code does not touch.
RUN pip install --no-cache-dir --extra-index-url "https://download.pytorch.org/whl/${TORCH_VARIANT}" "torch>=2.11,<2.14" \
    && python -c "import torch, sys; sys.exit(not torch.__version__.endswith('+${TORCH_VARIANT}'))"
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY alembic alembic
COPY service service
ARG EXTRAS=plots
RUN pip install --no-cache-dir ".[${EXTRAS}]"

# 2. The environment alone, run by a user who may write to /data and nowhere else.
FROM python:${PYTHON_VERSION}-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin mixserve \
    && install --directory --owner mixserve --group mixserve /data
COPY --from=build /opt/mixserve /opt/mixserve
ENV PATH=/opt/mixserve/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MIXSERVE_DATA_DIR=/data
USER mixserve
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
# It listens to all of the container's network only when told that the network is closed: MIXSERVE_AUTH=trusted-network.
ENTRYPOINT ["mixserve"]
CMD ["serve", "--host", "0.0.0.0"]
