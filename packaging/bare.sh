#!/bin/sh
# What packaging/test.sh does on a bare system, as a user: each command is shown before it runs.
set -eu
cd "$HOME"
packages=$HOME/packages
begin=$(date +%s)

fail() {
    echo "FAILED: $1"
    exit 1
}

show() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# try_programs: those that PATH finds
try_programs() {
    show hotset --version
    show llama-cli --version 2>&1
    llama-cli --version 2>&1 | grep -q '^version: ' || fail "llama-cli is not that program"
    show hotset demo
    show python3 "$packages/ask.py" llama-server -m "$packages/polyglot-moe.gguf" -c 512
    show python3 "$packages/ask.py" hotset run --ram 30% --tool server -- -m "$packages/polyglot-moe.gguf" -c 512
}

echo "$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release), $(getconf GNU_LIBC_VERSION), user $(id -un)"
for program in cc gcc c++ clang cargo rustc cmake ninja make curl; do
    if command -v $program; then fail "$program is here"; fi
done
echo "no compiler, cargo, cmake, make or curl"

printf '\n== pip\n'
show python3 -m venv venv
show venv/bin/pip install --quiet --no-index "$packages"/hotset-*.whl
of_system=$PATH
PATH=$HOME/venv/bin:$of_system
try_programs
show python -m hotset policies
PATH=$of_system
show venv/bin/pip uninstall --quiet --yes hotset
left=$(find venv -name '*hotset*' -o -name 'llama-*' -o -name '*ggml*')
[ -z "$left" ] || fail "pip left $left"

printf '\n== install.sh\n'
show sh packages/install.sh "$packages"
PATH=$HOME/.local/bin:$of_system
try_programs
PATH=$of_system
# A second time: the new one takes the place of the old one, and there is one.
show sh packages/install.sh "$packages/hotset-linux-x86_64.tar.gz"
[ "$(find .local/lib -maxdepth 1 -name '*hotset-*' | wc -l)" = 1 ] || fail "the old one is still there"
version=$(.local/bin/hotset --version)
# It would run, and is not what the checksum is of.
mkdir other
cp "$packages/hotset-linux-x86_64.tar.gz" other/
printf '%064d  hotset-linux-x86_64.tar.gz\n' 0 >other/hotset-linux-x86_64.tar.gz.sha256
if show sh packages/install.sh other; then fail "an archive with another checksum was installed"; fi
[ "$(.local/bin/hotset --version)" = "$version" ] || fail "what was installed is gone"
[ "$(find .local/lib -maxdepth 1 | wc -l)" = 4 ] || fail "something was left: $(ls -A .local/lib)"
# Somebody's own program stays.
rm .local/bin/llama-cli
echo mine >.local/bin/llama-cli
show sh packages/install.sh other/.. 2>/dev/null && fail "no archive, and yet installed"
show sh packages/install.sh "$packages"
[ "$(cat .local/bin/llama-cli)" = mine ] || fail "another llama-cli was replaced"
rm .local/bin/llama-cli
show sh packages/install.sh --uninstall
# What is learnt of a model is the user's.
left=$(find .local ! -type d ! -path '.local/share/hotset/*')
[ -z "$left" ] || fail "uninstalling left $left"

printf '\nall of it took %s s\n' $(($(date +%s) - begin))
