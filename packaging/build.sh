#!/bin/sh
# Builds the package for Linux on x86-64: a tarball, and a wheel with the same files.
#
#   packaging/build.sh [FOLDER]     where they go with their SHA-256, else target/package
#
# It needs what building from source needs, and binutils. The compiler of C and C++ is zig, which brings libc++ and knows
# each version of glibc, so the programs run on any distribution with glibc 2.28 and later. LLVM's OpenMP runtime goes
# with them. Compiling takes some 20 minutes on two cores; a second time it takes as long as what changed.
set -eu

glibc=2.28
triple=x86_64-unknown-linux-gnu

here=$(cd "$(dirname "$0")" && pwd)
package=$(dirname "$here")
cd "$package"
target=${CARGO_TARGET_DIR:-$package/target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
out=${1:-$target/package}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$target/packaging

fail() {
    echo "packaging: error: $1" >&2
    exit 1
}

value_of() { sed -n "s/^$1 = \"\(.*\)\"/\1/p" Cargo.toml | head -n 1; }

version=$(value_of version)
summary=$(value_of description)
name=hotset-$version-linux-x86_64
# Without the version, so that the latest one has an address that stays.
archive="hotset-linux-x86_64.tar.gz"
wheel_file=hotset-$version-py3-none-manylinux_2_28_x86_64.whl
programs="llama-cli llama-server llama-bench llama-perplexity llama-completion"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

# zig, what calls it for cargo, and what checks and writes wheels.
install_tools() {
    stamp=$work/tools.txt
    if cmp -s "$here/requirements.txt" "$stamp"; then return; fi
    rm -rf "$work/venv" "$stamp"
    python3 -m venv "$work/venv"
    "$work/venv/bin/python" -m pip install -q --no-deps --only-binary=:all: --require-hashes -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$stamp"
}

# libomp.so and its licence. The wheel is for one version of Python, which the library is not.
fetch_openmp() {
    openmp=$work/openmp
    if [ -f "$openmp/libomp.so" ]; then return; fi
    rm -rf "$work/pyomp" "$openmp"
    mkdir -p "$openmp/include"
    "$work/venv/bin/python" -m pip download -q --no-deps --only-binary=:all: --require-hashes --python-version 3.11 \
        --platform manylinux_2_28_x86_64 -d "$work/pyomp" -r "$here/openmp.txt"
    "$work/venv/bin/python" -m zipfile -e "$work"/pyomp/*.whl "$work/pyomp/files"
    cp "$here/omp.h" "$openmp/include/"
    cp "$work"/pyomp/files/*.dist-info/licenses/LICENSE-OPENMP.txt "$openmp/"
    cp "$work/pyomp/files/numba/openmp/libs/openmp/lib/libomp.so" "$openmp/"
    rm -rf "$work/pyomp"
}

# cargo, with zig for C and C++
build() {
    flags="-fopenmp -I$work/openmp/include"
    # Messages name sources by where they are in their trees.
    paths="-ffile-prefix-map=$target/$triple/llama=llama"
    PATH=$work/venv/bin:$PATH \
    CARGO_TARGET_DIR=$target \
    CARGO_PROFILE_RELEASE_DEBUG=0 \
    RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo --remap-path-prefix=$package=hotset" \
    CFLAGS=$paths CXXFLAGS=$paths \
    ZIG_GLOBAL_CACHE_DIR=$work/zig \
    XDG_CACHE_HOME=$work/cache \
    HOTSET_PORTABLE=1 \
    CMAKE_ARGS="-DOpenMP_C_FLAGS='$flags' -DOpenMP_CXX_FLAGS='$flags' -DOpenMP_C_LIB_NAMES=omp
        -DOpenMP_CXX_LIB_NAMES=omp -DOpenMP_omp_LIBRARY=$work/openmp/libomp.so" \
        cargo-zigbuild zigbuild --locked --release --target "$triple.$glibc" "$@"
}

compile() {
    # The library is for engines from C: it has nothing of llama.cpp, which it would want from whoever links it.
    build --no-default-features --lib
    cp "$target/$triple/release/libhotset.a" "$work/"
    build --bin hotset
}

# The files, as they lie below a prefix.
collect() {
    built=$target/$triple/release
    lib=$stage/lib/hotset
    doc=$stage/share/doc/hotset
    rm -rf "$stage"
    mkdir -p "$stage/bin" "$lib" "$stage/include" "$doc"
    cp "$built/hotset" "$built"/libggml*.so* "$work/openmp/libomp.so" "$lib/"
    llama=$(echo "$target/$triple"/llama/*-portable-rpc)
    cp "$llama/build/bin/ggml-rpc-server" "$lib/"
    strip --strip-unneeded "$lib"/*
    chmod 755 "$lib"/*
    # One program is all of them but the last: it looks at the name that it is called by.
    for program in hotset $programs; do ln -s ../lib/hotset/hotset "$stage/bin/$program"; done
    ln -s ../lib/hotset/ggml-rpc-server "$stage/bin/ggml-rpc-server"
    strip --strip-debug -o "$stage/lib/libhotset.a" "$work/libhotset.a"
    cp include/hotset.h "$stage/include/"
    mkdir -p "$doc/docs"
    cp README.md LICENSE "$doc/"
    cp docs/*.md "$doc/docs/"
    cp models/README.md "$doc/MODEL.md"
    cargo metadata --format-version 1 --locked --filter-platform "$triple" |
        "$work/venv/bin/python" "$here/licenses.py" "$llama/src" \
            "$(sed -n 's/^FETCHCONTENT_SOURCE_DIR_BORINGSSL:[A-Z]*=//p' "$llama/build/CMakeCache.txt")" \
            "$("$work/venv/bin/python" -c 'import ziglang; print(*ziglang.__path__)')" \
            "$work/openmp/LICENSE-OPENMP.txt" "$(rustc --print sysroot)" >"$doc/THIRD-PARTY.txt"
    describe
    find "$stage" -type f ! -path "$lib/*" -exec chmod 644 {} +
    find "$stage" -type d -exec chmod 755 {} +
}

# Man pages and completions, which the program writes itself.
describe() {
    hotset=$lib/hotset
    "$hotset" help man >/dev/null 2>&1 || return 0
    man=$stage/share/man/man1
    bash=$stage/share/bash-completion/completions
    zsh=$stage/share/zsh/site-functions
    fish=$stage/share/fish/vendor_completions.d
    mkdir -p "$man" "$bash" "$zsh" "$fish"
    "$hotset" man "$man"
    "$hotset" completions bash >"$bash/hotset"
    "$hotset" completions zsh >"$zsh/_hotset"
    "$hotset" completions fish >"$fish/hotset.fish"
}

# What is linked has to be of the system's oldest, or in the package.
check() {
    newest=$(objdump -T "$lib"/* | sed -n 's/.*(\{0,1\}GLIBC_\([0-9.]*\).*/\1/p' | sort -uV | tail -n 1)
    [ "$(printf '%s\n' "$newest" "$glibc" | sort -V | tail -n 1)" = "$glibc" ] ||
        fail "something needs glibc $newest, and the package is for $glibc"
    for file in "$lib"/*; do
        for needed in $(objdump -p "$file" | sed -n 's/^ *NEEDED *//p'); do
            case $needed in
                libc.so.6 | libm.so.6 | libdl.so.2 | librt.so.1 | libpthread.so.0 | ld-linux-x86-64.so.2) ;;
                *) [ -f "$lib/$needed" ] || fail "$(basename "$file") needs $needed, which is not in the package" ;;
            esac
        done
    done
    "$work/venv/bin/python" -m ziglang cc -target "x86_64-linux-gnu.$glibc" -I "$stage/include" examples/engine.c \
        "$stage/lib/libhotset.a" -lunwind -lpthread -ldl -lm -o "$work/engine"
    "$work/engine" models/polyglot-moe.gguf 108 100 8 lru | grep -q "all bytes right" || fail "the library does not work"
    echo "packaging: needs glibc $newest"
}

make_tarball() {
    tar -C "$work/stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" |
        gzip -9n >"$out/$archive.new"
    mv "$out/$archive.new" "$out/$archive"
}

make_wheel() {
    wheel=$work/wheel
    info=$wheel/hotset-$version.dist-info
    module=$wheel/hotset
    rm -rf "$wheel"
    mkdir -p "$info/licenses" "$wheel/hotset-$version.data/data"
    cp -R "$here/wheel/hotset" "$wheel/"
    cp -R "$lib" "$module/programs"
    cp -R "$stage/include" "$module/include"
    mkdir "$module/lib"
    cp "$stage/lib/libhotset.a" "$module/lib/"
    cp -R "$stage/share" "$wheel/hotset-$version.data/data/share"
    rm -r "$wheel/hotset-$version.data/data/share/doc"
    cp "$here/wheel/WHEEL" "$here/wheel/entry_points.txt" "$info/"
    cp "$doc/LICENSE" "$doc/THIRD-PARTY.txt" "$doc/MODEL.md" "$info/licenses/"
    sed -e "s/@VERSION@/$version/" -e "s/@SUMMARY@/$summary/" "$here/wheel/METADATA" >"$info/METADATA"
    # A page of an index has no files beside it that links and pictures could lead to.
    sed -E -e '/^!\[/d' -e 's/\[([^]]*)\]\(([^)h]|h[^t])[^)]*\)/\1/g' README.md >>"$info/METADATA"
    find "$wheel" -name __pycache__ -exec rm -r {} +
    "$work/venv/bin/python" -m wheel pack "$wheel" --dest-dir "$out" >/dev/null
    "$work/venv/bin/auditwheel" show "$out/$wheel_file"
}

main() {
    install_tools
    fetch_openmp
    compile
    stage=$work/stage/$name
    collect
    check
    make_tarball
    make_wheel
    cp install.sh "$out/"
    cd "$out"
    for file in "$archive" "$wheel_file"; do
        sha256sum "$file" >"$file.sha256"
        echo "packaging: $out/$file: $(($(wc -c <"$file") / 1048576)) MiB"
    done
}

# All of it has been read when the first command runs.
main
