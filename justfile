# What one does here. `just` lists it; https://just.systems

python := "tests/python/.venv/bin/python"
offramp := "cargo run --release --"

[private]
default:
    @just --list --unsorted

# Everything that CI checks
check:
    .ci/run

# The binary, target/release/offramp
build:
    cargo build --release

# All tests
test:
    cargo test --workspace

# Warnings are errors
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Format in place
fmt:
    cargo fmt --all

# The documentation of every room, target/doc
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences, advisories and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# A very small model in about a minute, its exit table and a story
first-minute:
    {{ offramp }} train recipes/first-minute.toml

# 24 layers on TinyStories (prepare data/tinystories first, as the recipe says)
train-first-light:
    {{ offramp }} train recipes/first-light.toml

# The Python environment of the recipes below
python:
    python3 -m venv tests/python/.venv
    {{ python }} -m pip install torch transformers safetensors numpy

# Remake tests/fixtures from torch and transformers (all, or those named)
fixtures *NAMES:
    {{ python }} tests/python/make_fixtures.py {{ NAMES }}

# Compare a folder that offramp wrote with stock transformers
check-transformers MODEL: build
    {{ python }} tests/python/check_transformers.py {{ MODEL }} --offramp target/release/offramp

# Run the Python of a model's card, and compare its exits with offramp's
check-card MODEL: build
    {{ python }} tests/python/check_card.py {{ MODEL }} --offramp target/release/offramp
