#!/bin/sh
# Stock and hotset beside each other: compare.sh LOGITS OUT MODEL...
#
# LOGITS is the program of logits.c, RUN what runs it (RUN="qemu-aarch64-static -cpu max -L /usr/aarch64-linux-gnu"), TOKENS how
# many it generates (16). For each model a line for each setting: whether tokens and all logits are those of stock.
set -eu
logits=$1
out=$2
shift 2
tokens=${TOKENS:-16}
mkdir -p "$out"

run() { # NAME REPACK [VARIABLE=VALUE...]
    file=$out/$1
    repack=$2
    shift 2
    # shellcheck disable=SC2086
    env "$@" $RUN "$logits" "$model" "$tokens" "$repack" "$file.f32" >"$file.txt" 2>"$file.err" || {
        echo "$file: failed: $(tail -n 1 "$file.err")"
        return 1
    }
}

check() { # STOCK NAME
    same="the same"
    cmp -s "$out/$1.txt" "$out/$2.txt" || same="OTHER TOKENS"
    cmp -s "$out/$1.f32" "$out/$2.f32" || same="OTHER LOGITS"
    echo "$2: $same, $(wc -c <"$out/$2.f32") bytes of logits; $(grep -o '[0-9]* of [0-9]* experts fit' "$out/$2.err"),$(
        sed -n 's/^ *hits *[0-9]* (\([^)]*\)).*/ \1 hits/p' "$out/$2.err")"
}

for model in "$@"; do
    name=$(basename "$model" .gguf)
    run "$name-stock-plain" 0 HOTSET=off
    run "$name-stock-repacked" 1 HOTSET=off
    layouts=$(sed -n 's/.*repack tensor .*_exps.weight with //p' "$out/$name-stock-repacked.err" | sort -u | tr '\n' ' ')
    # Where they differ, the comparison can tell one from the other.
    others="other logits than"
    cmp -s "$out/$name-stock-plain.f32" "$out/$name-stock-repacked.f32" && others="the same logits as"
    echo "$name: stock repacks experts as ${layouts:-nothing }and has $others with --no-repack"
    for ram in 30% 1% 100%; do
        run "$name-plain-$ram" 0 "HOTSET_RAM=$ram" && check "$name-stock-plain" "$name-plain-$ram"
        run "$name-repacked-$ram" 1 "HOTSET_RAM=$ram" HOTSET_REPACK=on && check "$name-stock-repacked" "$name-repacked-$ram"
    done
done
