# Simile's images: --target upload, searcher (the index job's too) or embedder.
# docs/images.md tells what is in them and how to build others.

# Any image with Python 3.11 that has apt while building.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
# The embedder's: cpu (ONNX Runtime, OpenVINO) or cuda (torch).
ARG DEVICE=cpu

# --- What builds; nothing of it is shipped but /opt/simile ---------------------------------------

FROM ${BASE} AS build
WORKDIR /src
COPY tools/system.sh tools/
RUN sh tools/system.sh build
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin simile \
    && mkdir /data
# Two environments, so that the one that is shipped holds no pip.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/simile
COPY pyproject.toml constraints.txt ./
COPY tools/image/requirements.py tools/image/install.sh tools/image/
RUN python3 tools/image/requirements.py pyproject.toml /requirements \
        upload searcher embedder embedder-cpu lite fast tracing
# Setuptools is pinned, too, where it builds wheels.
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1

FROM build AS wheel
COPY README.md LICENSE ./
COPY services services
COPY clients/python/src clients/python/src
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    /opt/pip/bin/pip wheel --no-deps --wheel-dir /wheels .

# Upload's libraries are in all images, and what makes messages quick and traces possible.
FROM build AS libraries
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    sh tools/image/install.sh upload fast tracing

FROM libraries AS upload-installed
COPY --from=wheel /wheels /wheels
RUN --mount=type=bind,source=tools/image,target=/image sh /image/finish.sh

FROM libraries AS searcher-libraries
# Runs on every x86-64 server since 2015 or so; other processors get their compiler's default.
ARG X86_64_LEVEL=x86-64-v3
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    sh tools/image/install.sh searcher

FROM searcher-libraries AS searcher-installed
COPY --from=wheel /wheels /wheels
RUN --mount=type=bind,source=tools/image,target=/image sh /image/finish.sh

# --- What ships ----------------------------------------------------------------------------------

# No RUN from here on: files are copied, nothing else changes.
FROM ${BASE} AS runtime
COPY --from=build /etc/passwd /etc/group /etc/
COPY --from=build --chown=10001:10001 /data /data
# Bytecode is compiled while building, of the base's own modules too: a read-only root keeps none.
ENV PATH=/opt/simile/bin:$PATH \
    PYTHONPYCACHEPREFIX=/opt/simile/bytecode \
    HOME=/tmp \
    SIMILE_ROOT=/data \
    SIMILE_ADMIN_HOST=0.0.0.0
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Simile" \
    org.opencontainers.image.description="Self-hosted image similarity search" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.vendor="The Simile authors" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# A number, since Kubernetes can't tell whether a name is root's.
USER 10001:10001
WORKDIR /tmp
EXPOSE 9090
ENTRYPOINT ["simile"]
CMD ["--help"]

FROM runtime AS upload
LABEL org.opencontainers.image.title="Simile upload"
ENV SIMILE_UPLOAD_HOST=0.0.0.0
EXPOSE 8080
COPY --from=upload-installed /opt/simile /opt/simile
CMD ["upload"]

FROM runtime AS searcher
LABEL org.opencontainers.image.title="Simile searcher and index builder"
COPY --from=searcher-installed /opt/simile /opt/simile
CMD ["searcher"]

# --- The embedder --------------------------------------------------------------------------------

FROM libraries AS embedder-cpu-libraries
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    sh tools/image/install.sh embedder-cpu

FROM embedder-cpu-libraries AS embedder-cpu-installed
COPY --from=wheel /wheels /wheels
RUN --mount=type=bind,source=tools/image,target=/image sh /image/finish.sh

FROM libraries AS embedder-cuda-installed
# An index with torch's wheels of another kind: for processors alone, for another CUDA.
ARG TORCH_INDEX
# Wheels of some gigabytes; a cache of pip's would hold them once more.
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=$TORCH_INDEX sh tools/image/install.sh embedder
COPY --from=wheel /wheels /wheels
RUN --mount=type=bind,source=tools/image,target=/image sh /image/finish.sh

# What makes the exports stays behind: weights and libraries.
FROM embedder-cpu-libraries AS export
# The extra that exports: lite (EfficientNet-Lite) or embedder (any network, with 3 GB of torch).
ARG EXPORTER=lite
ARG TORCH_INDEX
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=$TORCH_INDEX sh tools/image/install.sh "$EXPORTER"
COPY --from=wheel /wheels /wheels
RUN /opt/pip/bin/pip --python /opt/simile/bin/python install --no-deps --no-index /wheels/*.whl
ARG MODELS=efficientnet_lite0
RUN for model in $MODELS; do \
        SIMILE_EMBEDDER_MODEL=$model /opt/simile/bin/simile model export --models-dir /models || exit 1; \
    done \
    && rm -f /models/*/speeds.json

# `--build-context models=FOLDER` puts a folder of yours in its place.
FROM scratch AS models
COPY --from=export /models /

FROM runtime AS embedder-cpu
LABEL org.opencontainers.image.title="Simile embedder (CPU)"
COPY --from=embedder-cpu-installed /opt/simile /opt/simile

FROM runtime AS embedder-cuda
LABEL org.opencontainers.image.title="Simile embedder (CUDA)"
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=embedder-cuda-installed /opt/simile /opt/simile

# hadolint ignore=DL3006
FROM embedder-${DEVICE} AS embedder
ENV SIMILE_EMBEDDER_MODELS_DIR=/opt/simile/models
COPY --from=models / /opt/simile/models
CMD ["embedder"]
