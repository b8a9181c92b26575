# What one does here. `just` lists it; https://just.systems

python := "tests/python/.venv/bin/python"
offramp := "cargo run --release --"

[private]
default:
    @just --list --unsorted

# Everything that CI checks, and the licences of what it stands on
check: && deny
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

# Licences, duplicates and sources of the dependencies
deny:
    @cargo deny --version > /dev/null 2>&1 || { echo "cargo-deny is missing: cargo install --locked cargo-deny"; exit 1; }
    cargo deny check licenses bans sources

# Known vulnerabilities of the dependencies (needs the network)
advisories:
    cargo deny check advisories

# Feed a reader files that nobody would write, until it fails or for as long as OPTIONS say (fuzz/README.md)
fuzz NAME *OPTIONS:
    @cargo fuzz --version > /dev/null 2>&1 || { echo "cargo-fuzz is missing: cargo install --locked cargo-fuzz"; exit 1; }
    mkdir -p fuzz/target/corpus/{{ NAME }}
    HF_HUB_OFFLINE=1 RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{ NAME }} fuzz/target/corpus/{{ NAME }} fuzz/seeds/{{ NAME }} -- \
        -dict=fuzz/dictionaries/{{ NAME }}.dict -timeout=10 -rss_limit_mb=2048 -max_len=32768 {{ OPTIONS }}

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

# Clients that nobody here wrote, against the server (tests/clients/README.md)
clients *OPTIONS: build
    python3 tests/clients/run.py --offramp target/release/offramp --work target/clients {{ OPTIONS }}

# The server under load (bench/serve/README.md): same_text, cancel, memory, health, speculation
load NAME *OPTIONS: build
    python3 bench/serve/{{ NAME }}.py --offramp target/release/offramp {{ OPTIONS }}

# The Python wheel, target/wheels/release, tested in an environment of its own (docs/python.md)
wheel:
    crates/python/test --release
