#!/usr/bin/env bash
# Runs tests where every access to memory is watched: by ThreadSanitizer, and by Miri what it can run.
#
#   tests/sanitizers.sh [threads|miri]
#
# Ends with the first thing that is wrong. Needs a nightly toolchain with its sources and Miri, which it installs if it
# can. Where it cannot, it says so and ends with status 0: the ordinary tests have run. Nothing of llama.cpp is part
# of it.
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
    export TSAN_OPTIONS=halt_on_error=1
    # What a process has allocated is not what it would be: the tests that look at it are left out.
    RUSTFLAGS=-Zsanitizer=thread cargo +nightly test -Zbuild-std --target "$target" --target-dir target/threads \
        --no-default-features --lib --test lanes --test ahead --test lending --test resize --test stats -- \
        --skip memory::
    # The C interface as C uses it.
    runtime=$(find "$(rustc +nightly --print sysroot)" -name 'librustc*_rt.tsan.a')
    library=$(ls -t target/threads/"$target"/debug/deps/libhotset*.a | head -1)
    for name in abi profile warm sizes statuses; do
        program=target/threads/$name
        cc -std=c99 -ffunction-sections -I include tests/c/$name.c "$library" -Wl,--whole-archive "$runtime" \
            -Wl,--no-whole-archive -Wl,--gc-sections -rdynamic -lpthread -ldl -lm -lrt -o "$program"
        case $name in
            abi | sizes) "$program" tests/data/it.trace.gz ;;
            profile) "$program" "$(mktemp -d)" ;;
            # The sanitizer needs more memory than the program would leave it.
            statuses) "$program" "$(mktemp -d)" watched ;;
            warm) "$program" ;;
        esac
        echo "$name: ok"
    done
fi

# Miri runs some thousand times slower and makes no folders: the C interface, the modules that move no bytes, and traces
# that are read from memory, without what would take many minutes.
if [ "$what" = all ] || [ "$what" = miri ]; then
    export MIRIFLAGS=-Zmiri-disable-isolation
    miri() {
        cargo +nightly miri test --target-dir target/miri --no-default-features "$@"
    }
    miri --lib -- ffi:: policy:: residency:: draft_tokens:: engine::lane engine::prompt sync::
    miri --test trace -- events:: lines_ data_that
fi
