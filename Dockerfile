# Two stages: every wheel is built and checked against the locks, then only the result is kept.
# `make prove-dockerfile` runs these very steps without a container engine.
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements-build.lock requirements.lock ./
RUN pip install --require-hashes -r requirements-build.lock
RUN pip wheel --require-hashes --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
COPY migrations ./migrations
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .
RUN python -m venv --without-pip /opt/tollgate
RUN pip --python /opt/tollgate/bin/python install --no-index --no-deps /wheels/*.whl

FROM python:3.11-slim
RUN groupadd --system --gid 10001 tollgate
RUN useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent tollgate
RUN install -d -o 10001 -g 10001 -m 0750 /data
COPY --from=build /opt/tollgate /opt/tollgate
ENV PATH=/opt/tollgate/bin:$PATH
ENV PYTHONUNBUFFERED=1
ENV TOLLGATE_HOST=0.0.0.0
ENV TOLLGATE_DATABASE_URL=sqlite:////data/tollgate.db
ENV TOLLGATE_LOG_FORMAT=json
VOLUME /data
WORKDIR /data
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=10s --retries=3 CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('TOLLGATE_PORT', '8000') + '/healthz', timeout=3)"]
ENTRYPOINT ["tollgate"]
CMD ["serve"]
