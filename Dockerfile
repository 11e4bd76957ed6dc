# qctl in an image without Python. First: scripts/build-binary. Then, for example:
#     docker build -t qctl --build-arg BASE=debian:13-slim .
# BASE needs only the C library (glibc), at least as new as that of the machine that built.
ARG BASE=debian:13-slim
FROM ${BASE}
ADD dist/qctl.tar.gz /opt/qctl/
ENV PATH=/opt/qctl:/usr/local/bin:/usr/bin:/bin HOME=/tmp LANG=C.UTF-8
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["/opt/qctl/qctl"]
