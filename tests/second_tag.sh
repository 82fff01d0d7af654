#!/usr/bin/env bash
# Checks the patches on the tags of vendor/UPSTREAM that are not the default.
#
#   tests/second_tag.sh [whole]
#
# Applies them, has tests/patches.rs police that, and compiles the library against the result and the files that the patches
# touch, which takes minutes. `whole` builds the programs instead, and runs the tests of what is computed with them; where the
# tag's package has no server, without those that need one.
#
# Needs cmake and ninja, or those that an earlier build has put into target/tools.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
tags=$(sed -n 's/^\[\(b[0-9]*\)\]$/\1/p' vendor/UPSTREAM | tail -n +2)

# Compiles what the patches for a tag touch, without optimising.
compile() {
    local root=$target/llama/$1-hooks files=() patch own file
    for patch in patches/*.patch; do
        own=patches/$1/$(basename "$patch")
        [ ! -e "$own" ] || patch=$own
        for file in $(sed -n 's/^+++ b\///p' "$patch"); do
            case $file in *.c | *.cpp) files+=("$(realpath "$root/src")/$file^") ;; esac
        done
    done
    local tools=$PWD/target/tools
    PATH=$tools/cmake/data/bin:$tools/bin:$PATH
    cmake -S "$root/src" -B "$root/check" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG=-O0 \
        -DCMAKE_CXX_FLAGS_DEBUG=-O0 -DGGML_CCACHE=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF >"$root/check.log"
    printf '%s\n' "${files[@]}" | sort -u | xargs ninja -C "$root/check"
}

for tag in $tags; do
    export HOTSET_LLAMA_CPP_TAG=$tag
    if [ "${1:-}" = whole ]; then
        cargo test --release --test exactness --test adapters --test unmapped --test drafts
        cargo test --release --test programs --test device -- --skip server --skip _drafts --skip machines::
    else
        cargo test --release --no-default-features --features cli,hooks --test patches
        compile "$tag"
    fi
done
