# The packages alone, the same that `make install` has. The workflow and its results are the folder that it is started in:
#   docker build --tag ablation .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD":/work ablation --profile local --config studies=vggt-eth3d scale=demo
# With GPUs: docker run --gpus all ...; a smaller image without CUDA, where pip finds that build: --build-arg TORCH=cpu
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ARG TORCH=cuda
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY Makefile requirements.txt requirements-cpu.txt requirements-cuda.txt /opt/ablation/
RUN make -C /opt/ablation install PYTHON=python3 VENV=/opt/ablation/venv TORCH=${TORCH} PIP_NO_CACHE_DIR=1
# With --user there is no account: Snakemake asks for a name, and others for a home.
ENV PATH=/opt/ablation/venv/bin:$PATH HOME=/tmp USER=ablation
RUN useradd --create-home ablation
USER ablation
WORKDIR /work
ENTRYPOINT ["snakemake"]
