# One image for every process: the command says which. It holds no tests, no compiler and no root.
FROM python:3.11.14-slim-trixie AS packages
COPY .ci/requirements-run.txt /tmp/requirements.txt
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r /tmp/requirements.txt

FROM python:3.11.14-slim-trixie
RUN groupadd --gid 10001 sightline \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin sightline \
    && install -d -o sightline -g sightline -m 0700 /var/lib/sightline
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY server server
COPY graph graph
COPY jobs jobs
COPY db db
COPY rules rules
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8080 \
    DATA_DIR=/var/lib/sightline
USER sightline
EXPOSE 8080
STOPSIGNAL SIGTERM
CMD ["python", "-m", "server", "api"]
