#!/bin/sh
# Installs hotset for the user who runs it: no root, no compiler.
#
#   install.sh [SOURCE]       SOURCE: the address or the path of hotset-linux-x86_64.tar.gz, or of what it is in;
#                             its SHA-256 is in a file beside it, with .sha256 after the name
#   install.sh --uninstall    removes it again
#
# Variables: HOTSET_URL is SOURCE; PREFIX is where it goes, ~/.local if unset. Files are in PREFIX/lib/hotset, links to
# them in PREFIX/bin, share, include and lib. An installed version is replaced in one step once the new one has run.
set -eu

url=
archive=hotset-linux-x86_64.tar.gz
draft=

say() { printf 'hotset: %s\n' "$1"; }

fail() {
    printf 'hotset: error: %s\n' "$1" >&2
    exit 1
}

clean() { if [ -n "$draft" ]; then rm -rf "$draft"; fi; }
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Says what to do where the package does not run.
check_platform() {
    from_source="build it from source with Rust and a C++ compiler: cargo install --path ."
    case $(uname -s) in
        Linux) ;;
        Darwin) fail "the package is for Linux; on macOS $from_source" ;;
        MINGW* | MSYS* | CYGWIN* | Windows*)
            fail "the package is for Linux; on Windows run this in WSL 2, with the models on its own file system" ;;
        *) fail "the package is for Linux, and this is $(uname -s): $from_source" ;;
    esac
    case $(uname -m) in
        x86_64 | amd64) ;;
        *) fail "the package is for x86-64, and this is $(uname -m): $from_source" ;;
    esac
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null) ||
        fail "the package needs glibc 2.28 or later, which is not here: $from_source"
    oldest=$(printf '%s\n2.28\n' "${glibc#glibc }" | sort -V | head -n 1)
    [ "$oldest" = 2.28 ] || fail "the package needs glibc 2.28 or later, and this is $glibc: $from_source"
}

# get FROM TO
get() {
    case $1 in
        http://* | https://*)
            if command -v curl >/dev/null; then
                curl --fail --silent --show-error --location --output "$2" "$1" || fail "$1: not fetched"
            elif command -v wget >/dev/null; then
                wget -q -O "$2" "$1" || fail "$1: not fetched"
            else
                fail "$1: found neither curl nor wget"
            fi ;;
        *) cp "${1#file://}" "$2" || fail "$1: not copied" ;;
    esac
}

sum_of() {
    if command -v sha256sum >/dev/null; then
        sha256sum "$1"
    elif command -v shasum >/dev/null; then
        shasum -a 256 "$1"
    else
        fail "found neither sha256sum nor shasum"
    fi
}

# Gets the archive as $draft/$archive.
fetch() {
    source=$1
    case $source in
        *.tar.gz) ;;
        *) source=${source%/}/$archive ;;
    esac
    say "getting $source"
    get "$source" "$draft/$archive"
    get "$source.sha256" "$draft/sha256"
    wanted=$(cut -d ' ' -f 1 "$draft/sha256")
    found=$(sum_of "$draft/$archive" | cut -d ' ' -f 1)
    [ "$found" = "$wanted" ] || fail "$source has SHA-256 $found, and $source.sha256 says $wanted: nothing was changed"
}

# What gets a link below PREFIX, as paths in the package.
linked() {
    (cd "$1" && find bin include lib/libhotset.a share/man share/bash-completion share/zsh share/fish \
        ! -type d 2>/dev/null) || true
}

# The text of a link from PREFIX/$1 to the package.
target_of() { printf '%slib/hotset/%s' "$(printf '%s' "$1" | sed -e 's|[^/]*$||' -e 's|[^/]*/|../|g')" "$1"; }

install() {
    check_platform
    mkdir -p "$prefix/bin" "$prefix/lib"
    draft=$(mktemp -d "$prefix/lib/.hotset.XXXXXX")
    fetch "$1"
    tar -xzf "$draft/$archive" -C "$draft"
    rm "$draft/$archive" "$draft/sha256"
    set -- "$draft"/hotset-*/
    version=$("$1/bin/hotset" --version) || fail "what was fetched does not run here: nothing was changed"
    chmod 755 "$1"
    new=hotset-${version#hotset }.$$
    mv "$1" "$prefix/lib/$new"
    old=$(readlink "$prefix/lib/hotset" 2>/dev/null) || old=
    if [ -e "$prefix/lib/hotset" ] && [ -z "$old" ]; then
        rm -rf "${prefix:?}/lib/$new"
        fail "$prefix/lib/hotset is not from this script: nothing was changed"
    fi
    if [ -n "$old" ]; then unlink_all "$prefix/lib/$new"; fi
    ln -s "$new" "$draft/link"
    mv -T "$draft/link" "$prefix/lib/hotset"
    linked "$prefix/lib/$new" | while read -r path; do make_link "$path"; done
    case $old in hotset-*) rm -rf "${prefix:?}/lib/$old" ;; esac
    say "$version is in $prefix/lib/hotset"
    case :$PATH: in
        *":$prefix/bin:"*) ;;
        *) say "$prefix/bin is not in PATH: add it by  export PATH=\"$prefix/bin:\$PATH\"" ;;
    esac
    say "try it:  hotset demo"
}

is_ours() { [ "$(readlink "$prefix/$1" 2>/dev/null)" = "$(target_of "$1")" ]; }

make_link() {
    if [ -e "$prefix/$1" ] || [ -L "$prefix/$1" ]; then
        is_ours "$1" || say "kept $prefix/$1, which is not from here; the other one is $prefix/lib/hotset/$1"
        return
    fi
    mkdir -p "$(dirname "$prefix/$1")"
    ln -s "$(target_of "$1")" "$prefix/$1"
}

# Removes the links of what is installed, but those that the package in $1 has too.
unlink_all() {
    linked "$prefix/lib/hotset" | while read -r path; do
        if is_ours "$path" && ! { [ -n "$1" ] && { [ -e "$1/$path" ] || [ -L "$1/$path" ]; }; }; then
            rm "$prefix/$path"
        fi
    done
}

uninstall() {
    old=$(readlink "$prefix/lib/hotset" 2>/dev/null) || fail "there is no hotset in $prefix/lib"
    unlink_all ""
    rm "$prefix/lib/hotset"
    case $old in hotset-*) rm -rf "${prefix:?}/lib/$old" ;; esac
    say "removed it from $prefix; models, and what it keeps of them, are where they were"
}

main() {
    prefix=${PREFIX:-${HOME:?}/.local}
    case ${1:-} in
        --uninstall) uninstall ;;
        -h | --help) usage ;;
        -*) fail "$1: neither --uninstall nor where the package is" ;;
        *)
            from=${1:-${HOTSET_URL:-$url}}
            [ -n "$from" ] || fail "say where $archive is: install.sh SOURCE, or HOTSET_URL=SOURCE"
            install "$from" ;;
    esac
}

usage() {
    cat <<EOF
install.sh [SOURCE]       installs hotset; SOURCE: the address or the path of $archive, or of what it is in
install.sh --uninstall    removes it again
Variables: HOTSET_URL (SOURCE), PREFIX (where it goes; ~/.local if unset)
EOF
}

# All of it has been read when the first command runs, also through a pipe.
main "$@"
