#!/bin/sh
# Compares, for each library of llama.cpp's code for processors that this one can run, a model with hotset off and with
# experts streamed from disk: the tokens of a text, and the logits of another one.
#
#   packaging/variants.sh PACKAGE [PROGRAMS]
#
# PACKAGE is the unpacked tarball. MODEL is the model, the bundled one if unset: no processor repacks that one, but
# most repack one of  random_model --type q4_k --size 100MB --width 512 --layers 4.  PROGRAMS are those of a build from source for x86-64 with AVX2 and no more, whose
# compiler is another one: the same is said of them and the variant `haswell`, and what differs is no failure.
set -eu

package=$(cd "$1" && pwd)
programs=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
model=${MODEL:-$here/../models/polyglot-moe.gguf}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

head -c 6000 "$here/../docs/design.md" >"$scratch/text"
prompt="Il file di configurazione"

# compute NAME DIR ARGS...: the programs of a folder, with the settings that are in the environment
compute() {
    name=$1
    dir=$2
    shift 2
    "$dir/llama-completion" -m "$model" -p "$prompt" -n 96 --temp 0 --seed 1 -no-cnv -t 2 "$@" \
        >"$scratch/$name.tokens" 2>"$scratch/$name.log" &&
        "$dir/llama-perplexity" -m "$model" -f "$scratch/text" -c 256 -b 256 -t 2 "$@" \
            --save-all-logits "$scratch/$name.logits" >>"$scratch/$name.log" 2>&1
}

same() { cmp -s "$scratch/$1.tokens" "$scratch/$2.tokens" && cmp -s "$scratch/$1.logits" "$scratch/$2.logits"; }

check() {
    if same "$2" "$3"; then
        echo "$1: same tokens and logits"
    else
        echo "$1: DIFFERENT tokens or logits"
        failed=1
    fi
}

for library in "$package"/lib/hotset/libggml-cpu-*.so; do
    variant=$(basename "$library" .so)
    variant=${variant#libggml-cpu-}
    dir=$scratch/$variant
    mkdir "$dir"
    for file in "$package"/lib/hotset/*; do
        case $file in
            */libggml-cpu-*) ;;
            *) ln "$file" "$dir/" 2>/dev/null || cp "$file" "$dir/" ;;
        esac
    done
    ln "$library" "$dir/" 2>/dev/null || cp "$library" "$dir/"
    for program in completion perplexity; do ln -s hotset "$dir/llama-$program"; done
    if ! HOTSET=off compute "$variant-off" "$dir"; then
        if grep -q "no CPU backend found" "$scratch/$variant-off.log"; then
            echo "$variant: not for this processor"
        else
            echo "$variant: FAILED: $(tail -n 1 "$scratch/$variant-off.log")"
            failed=1
        fi
        continue
    fi
    HOTSET=off compute "$variant-stock" "$dir" --no-repack
    if same "$variant-off" "$variant-stock"; then order="repacking changes nothing"; else order=repacked; fi
    export HOTSET_RAM=30%
    HOTSET_REPACK=on compute "$variant-on" "$dir"
    check "$variant, $order, 30 % in memory" "$variant-off" "$variant-on"
    HOTSET_REPACK=off compute "$variant-plain" "$dir"
    unset HOTSET_RAM
    check "$variant, as the file has it, 30 % in memory" "$variant-stock" "$variant-plain"
    grep -q "streams* [0-9]* experts" "$scratch/$variant-on.log" || { echo "$variant: nothing was streamed"; failed=1; }
done

if [ -n "$programs" ]; then
    HOTSET=off compute source "$programs"
    for of in tokens logits; do
        if cmp -s "$scratch/source.$of" "$scratch/haswell-off.$of"; then what=same; else what=other; fi
        echo "haswell against the build from source: $what $of"
    done
    for name in source haswell-off; do grep "Final estimate" "$scratch/$name.log"; done
fi
exit $failed
