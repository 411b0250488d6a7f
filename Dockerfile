# syntax=docker/dockerfile:1
# The command `unskew`, for serving and for batch jobs. A transformation is built where its author
# works, not here: the registry holds what it was built to.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package unskew \
    && cp target/release/unskew /usr/local/bin/unskew

# glibc, certificates, and neither a shell nor a package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/unskew /usr/local/bin/unskew
# The feature repository is mounted here; `unskew.yaml` suffices where its registry is shared.
WORKDIR /repository
USER 65532:65532
ENV UNSKEW_LOG_FORMAT=json
EXPOSE 6566 6567
ENTRYPOINT ["/usr/local/bin/unskew"]
CMD ["serve", "--host", "0.0.0.0"]
