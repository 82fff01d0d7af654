#!/usr/bin/env bash
# Runs tests where every access to memory is watched: by ThreadSanitizer, and by Miri what it can run.
#
#   tests/sanitizers.sh [threads|miri]
#
# Needs a nightly toolchain with its sources and Miri, which it installs if it can. Where it cannot, it says so and
# ends with status 0: the ordinary tests have run. Nothing of llama.cpp is part of it.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
target=$(rustc -vV | sed -n 's/^host: //p')

has_nightly() {
    rustup toolchain list 2>/dev/null | grep -q '^nightly' || rustup toolchain install nightly --profile minimal
    rustup component add --toolchain nightly rust-src miri
}
if ! has_nightly; then
    echo "skipped: there is no nightly toolchain with rust-src and miri, and none can be installed"
    exit 0
fi

# The standard library too is built with it, so that its locks and channels are known.
if [ "$what" = all ] || [ "$what" = threads ]; then
    export TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/tests/tsan.supp"
    threads=(cargo +nightly test -Zbuild-std --target "$target" --target-dir target/threads --no-default-features)
    RUSTFLAGS=-Zsanitizer=thread "${threads[@]}" --lib --test lanes --test ahead --test lending --test resize \
        --test stats --test store
    # The interface as C uses it: threads of C that each have a cache.
    RUSTFLAGS=-Zsanitizer=thread "${threads[@]}" --test abi
fi

# Miri runs some hundred times slower: the modules that move no bytes, and the C interface.
if [ "$what" = all ] || [ "$what" = miri ]; then
    export MIRIFLAGS=-Zmiri-disable-isolation
    cargo +nightly miri test --target-dir target/miri --no-default-features --lib -- \
        ffi:: log:: policy:: residency:: trace:: drafts:: engine::lane engine::odds engine::prompt \
        --skip nothing_is_lost_however_fast
fi
