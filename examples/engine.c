// A toy engine that reads the experts of a GGUF file through a cache of hotset.
//   cc -O2 -I include examples/engine.c target/release/libhotset.a -lpthread -ldl -lm -o engine
//   ./engine MODEL.gguf N_SLOTS N_TOKENS TOP_K POLICY...
// An engine has a router, and multiplies. This one draws lots, in which some experts win more often than others, and
// where it would multiply it compares the bytes it would multiply with to those in the file.
#define _XOPEN_SOURCE 700
#include "hotset.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_LAYERS_MAX = 1024, N_PARTS_MAX = 3, TOP_K_MAX = 64 };
// An expert is its part of each of these tensors: gate, up and down, as many as the layer has.
static struct part { uint64_t offset, n_bytes; } parts[N_LAYERS_MAX][N_PARTS_MAX]; // of expert 0, others follow
static uint32_t n_layers, n_experts[N_LAYERS_MAX]; // a dense layer has 0
static uint64_t data_start, part_bytes;            // where offsets count from; the largest part
static int      model;

static _Noreturn void die(const char * what, const char * why) {
    fprintf(stderr, "engine: %s: %s\n", what, why);
    exit(1);
}

static void check(hotset_status status) {
    if (status != HOTSET_STATUS_OK) die(hotset_status_text(status), hotset_last_error());
}

static uint64_t number(FILE * file, size_t n_bytes) {
    uint64_t value = 0; // little-endian, as this machine
    if (fread(&value, n_bytes, 1, file) != 1) die("model", "cut off");
    return value;
}

static void skip(FILE * file, uint64_t type) {
    static const uint8_t n_bytes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    if (type > 12) die("model", "a value of a type that is not known");
    if (type == 9) for (uint64_t of = number(file, 4), n = number(file, 8); n > 0; n--) skip(file, of); // a list
    else fseek(file, type == 8 ? (long) number(file, 8) : n_bytes[type], SEEK_CUR); // or a text
}

static uint64_t weights_bytes(uint64_t type, uint64_t n) {
    static const struct { uint8_t type; uint16_t n, n_bytes; } blocks[] = {
        { 0, 1, 4 }, { 1, 1, 2 }, { 2, 32, 18 }, { 3, 32, 20 }, { 6, 32, 22 }, { 7, 32, 24 }, { 8, 32, 34 },
        { 10, 256, 84 }, { 11, 256, 110 }, { 12, 256, 144 }, { 13, 256, 176 }, { 14, 256, 210 }, { 39, 32, 17 },
    };
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        if (blocks[i].type == type) return n / blocks[i].n * blocks[i].n_bytes;
    }
    die("model", "experts of a type that is not known");
}

static void read_name(FILE * file, char name[128]) {
    const uint64_t n = number(file, 8);
    if (n > 127 || fread(name, 1, n, file) != n) die("model", "a name is too long");
    name[n] = 0;
}

static void open_model(const char * path) {
    char name[128];
    uint64_t alignment = 32;
    FILE * file = fopen(path, "rb");
    if (file == NULL || number(file, 8) != 0x346554747) die(path, "no GGUF file of version 3");
    const uint64_t n_tensors = number(file, 8);
    for (uint64_t n = number(file, 8); n > 0; n--) {
        read_name(file, name);
        const uint64_t type = number(file, 4);
        if (strcmp(name, "general.alignment") == 0) alignment = number(file, 4);
        else skip(file, type);
    }
    for (uint64_t i = 0; i < n_tensors; i++) {
        uint64_t n[4] = { 1, 1, 1, 1 };
        uint32_t l; char part;
        read_name(file, name);
        for (uint64_t d = 0, n_dims = number(file, 4); d < n_dims && d < 4; d++) n[d] = number(file, 8);
        const uint64_t type = number(file, 4), offset = number(file, 8);
        const char * end = strstr(name, "_exps.weight");
        if (end == NULL || end[12] != 0 || sscanf(name, "blk.%u.ffn_%c", &l, &part) != 2) continue;
        if (l >= N_LAYERS_MAX) die(path, "too many layers");
        const int p = part == 'g' ? 0 : part == 'u' ? 1 : 2; // gate or gate_up, up, down
        parts[l][p]  = (struct part) { offset, weights_bytes(type, n[0] * n[1]) };
        part_bytes   = parts[l][p].n_bytes > part_bytes ? parts[l][p].n_bytes : part_bytes;
        n_experts[l] = (uint32_t) n[2];
        n_layers     = l < n_layers ? n_layers : l + 1;
    }
    data_start = ((uint64_t) ftell(file) + alignment - 1) / alignment * alignment;
    model = fileno(file);
    if (n_layers == 0) die(path, "no experts");
}

static size_t read_expert(uint32_t l, uint32_t expert, uint8_t * to) { // returns its bytes
    size_t n_read = 0;
    for (int p = 0; p < N_PARTS_MAX; p++) {
        const size_t n = parts[l][p].n_bytes;
        const off_t at = (off_t) (data_start + parts[l][p].offset + expert * n);
        if (pread(model, to + n_read, n, at) != (ssize_t) n) die("model", "cut off");
        n_read += n;
    }
    return n_read;
}

static void route(uint32_t l, uint32_t top_k, uint64_t * seed, int32_t * ids) {
    for (uint32_t k = 0, is_new = 1; k < top_k; k += is_new, is_new = 1) {
        *seed = *seed * 6364136223846793005 + 1442695040888963407;
        const double lot = (double) (*seed >> 33) / (1u << 31);
        ids[k] = (int32_t) (lot * lot * lot * n_experts[l]);
        for (uint32_t i = 0; i < k; i++) is_new &= ids[i] != ids[k];
    }
}

static void generate(uint32_t n_slots, uint32_t n_tokens, uint32_t top_k, const char * policy) {
    const struct hotset_cache_params params = { sizeof(params), n_experts, n_layers, n_slots, policy, NULL };
    struct hotset_counts counts = { .size = sizeof(counts) };
    struct hotset_fill fills[TOP_K_MAX];
    struct hotset_cache * cache;
    uint32_t slots[TOP_K_MAX]; int32_t ids[TOP_K_MAX];
    uint64_t seed = 1;
    const size_t slot_bytes = N_PARTS_MAX * part_bytes;
    uint8_t * arena = malloc((n_slots + 2) * slot_bytes), * staging = arena + n_slots * slot_bytes;
    if (arena == NULL) die("N_SLOTS", "more than there is memory for");
    check(hotset_cache_new(&params, &cache));
    for (uint32_t i = 0; i < n_tokens * n_layers; i++) {
        const uint32_t l = i % n_layers;
        size_t n_fills;
        if (n_experts[l] < top_k) continue; // none, or too few
        route(l, top_k, &seed, ids);
        check(hotset_cache_plan(cache, l, 1, ids, top_k, slots, fills, &n_fills)); // where is each, what is to be read?
        for (size_t f = 0; f < n_fills; f++) read_expert(l, fills[f].expert, arena + fills[f].slot * slot_bytes);
        check(hotset_cache_commit(cache)); // it has been read
        for (uint32_t k = 0; k < top_k; k++) {
            const uint8_t * expert = slots[k] == HOTSET_NO_SLOT ? staging : arena + slots[k] * slot_bytes;
            if (expert == staging) read_expert(l, (uint32_t) ids[k], staging);
            const size_t n_bytes = read_expert(l, (uint32_t) ids[k], staging + slot_bytes);
            if (memcmp(expert, staging + slot_bytes, n_bytes) != 0) die(policy, "a slot holds another expert");
        }
    }
    check(hotset_cache_counts(cache, &counts));
    printf("%-10s %6" PRIu64 " hits, %6" PRIu64 " misses, all bytes right\n", policy, counts.hits, counts.misses);
    hotset_cache_delete(cache);
    free(arena);
}

int main(int argc, char ** argv) {
    const uint32_t top_k = argc > 5 ? (uint32_t) atoi(argv[4]) : 0;
    if (top_k < 1 || top_k > TOP_K_MAX) die("usage", "engine MODEL.gguf N_SLOTS N_TOKENS TOP_K(1..64) POLICY...");
    open_model(argv[1]);
    for (int i = 5; i < argc; i++) generate((uint32_t) atoi(argv[2]), (uint32_t) atoi(argv[3]), top_k, argv[i]);
    return 0;
}
