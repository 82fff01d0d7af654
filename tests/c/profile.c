// Makes, teaches, writes, compares and merges profiles, as another engine would: profile FOLDER. Exits with 0 if
// everything holds.
#include "workload.h"

#include <math.h>

static const char * folder;

// FOLDER/name, until the next call.
static const char * path_of(const char * name) {
    static char path[4096];
    assert((size_t) snprintf(path, sizeof(path), "%s/%s", folder, name) < sizeof(path));
    return path;
}

// What a file holds; returns the number of bytes.
static size_t content(const char * name, char * text, size_t n_max) {
    FILE * file = fopen(path_of(name), "rb");
    assert(file != NULL);
    const size_t n = fread(text, 1, n_max - 1, file);
    text[n] = 0;
    fclose(file);
    return n;
}

static double similarity(const profile * a, const profile * b, hotset_phase phase) {
    double similarity = -1;
    assert(hotset_profile_similarity(a, b, phase, &similarity) == HOTSET_STATUS_OK);
    return similarity;
}

// What a constructor sets to NULL when it fails.
static char nobody;
static profile * nothing_made;

static profile ** place(void) {
    assert(nothing_made == NULL);
    nothing_made = (profile *) &nobody;
    return &nothing_made;
}

static void new_fails(const struct hotset_profile_params * params, const char * why) {
    failed(hotset_profile_new(params, place()), why);
}

static void test_new(void) {
    const uint32_t dense[N_LAYERS]    = { 0, 0, 0 };
    const uint32_t too_many[N_LAYERS] = { UINT32_MAX, UINT32_MAX, 1 };
    char long_name[202];
    memset(long_name, 'x', sizeof(long_name));
    long_name[201] = 0;

    struct hotset_profile_params p = params(long_name + 1);
    p.architecture = NULL;
    p.top_k        = 16;
    hotset_profile_delete(profile_new(&p));
    hotset_profile_delete(NULL);

    failed(hotset_profile_new(&p, NULL), "`profile_out` is NULL");
    new_fails(NULL, "`params` is NULL");
    p = params(long_name);                             new_fails(&p, "must have 1 to 200 bytes");
    p = params(NULL);                                  new_fails(&p, "`name` is NULL");
    p = params("");                                    new_fails(&p, "name=:");
    p = params("a\nb");                                new_fails(&p, "no control characters");
    p = params("x"); p.architecture = "\xff";          new_fails(&p, "architecture");
    p = params("x"); p.model_name = "\xff";            new_fails(&p, "model_name");
    p = params("x"); p.n_experts = NULL;               new_fails(&p, "`n_experts` is NULL");
    p = params("x"); p.n_layers = 0;                   new_fails(&p, "n_experts=0: 1 to 1048576");
    p = params("x"); p.n_experts = dense;              new_fails(&p, "n_experts=0");
    p = params("x"); p.n_experts = too_many;           new_fails(&p, "n_experts=8589934591");
    p = params("x"); p.top_k = 0;                      new_fails(&p, "top_k=0: must be in 1..=16");
    p = params("x"); p.top_k = 17;                     new_fails(&p, "top_k=17");
}

static void test_learn(void) {
    static char first[1 << 16], again[1 << 16];
    profile * p = empty("learnt twice");
    struct hotset_cache * cache = cache_of(6, "lru");
    read_prompt(cache);
    for (int t = 0; t < N_TOKENS; t++) {
        generate(cache, LOW, t);
    }
    const int32_t last = 15;
    assert(hotset_cache_plan(cache, 2, 1, &last, 1, slots, fills, &n_fills) == HOTSET_STATUS_OK);
    assert(hotset_profile_learn(p, cache) == HOTSET_STATUS_OK); // without the open plan
    assert(hotset_cache_rollback(cache) == HOTSET_STATUS_OK);
    assert(hotset_profile_write(p, path_of("first.json")) == HOTSET_STATUS_OK);
    const size_t n_bytes = content("first.json", first, sizeof(first));
    assert(strstr(first, "\"name\":\"learnt twice\"") != NULL);
    assert(strstr(first, "\"tokens\":{\"prompt\":40,\"generation\":40}") != NULL);
    assert(strstr(first, "\"n_layers\":2,\"n_experts\":16,\"top_k\":2") != NULL);
    assert(strstr(first, "\"count\":[0,0,0,40,40,0,0,0]") != NULL);
    assert(strstr(first, "\"count\":[40,20,20,0,0,0,0,0]") != NULL);
    assert(strstr(first, "\"count\":[30,10,10,10,10,10,0,0,0,0,0,0,0,0,0,0]") != NULL);

    // what was learnt is not learnt again
    assert(hotset_profile_learn(p, cache) == HOTSET_STATUS_OK);
    assert(hotset_profile_write(p, path_of("first.json")) == HOTSET_STATUS_OK);
    assert(content("first.json", again, sizeof(again)) == n_bytes && memcmp(first, again, n_bytes) == 0);
    generate(cache, LOW, 0);
    assert(hotset_profile_learn(p, cache) == HOTSET_STATUS_OK);
    assert(hotset_profile_write(p, path_of("first.json")) == HOTSET_STATUS_OK);
    content("first.json", again, sizeof(again));
    assert(strstr(again, "\"tokens\":{\"prompt\":40,\"generation\":41}") != NULL);
    assert(strstr(again, "\"count\":[41,21,20,0,0,0,0,0]") != NULL);

    // what a profile of another shape is refused is not lost
    struct hotset_profile_params other = params("other");
    other.n_experts = (const uint32_t[]) { 8, 16, 16 };
    profile * wrong = profile_new(&other);
    generate(cache, LOW, 0);
    fails(hotset_profile_learn(wrong, cache), HOTSET_STATUS_MISMATCH, "profile=other: its layers");
    failed(hotset_profile_learn(NULL, cache), "`profile` is NULL");
    failed(hotset_profile_learn(p, NULL), "`cache` is NULL");
    assert(hotset_profile_learn(p, cache) == HOTSET_STATUS_OK);
    assert(hotset_profile_write(p, path_of("first.json")) == HOTSET_STATUS_OK);
    content("first.json", again, sizeof(again));
    assert(strstr(again, "\"count\":[42,22,20,0,0,0,0,0]") != NULL);
    hotset_profile_delete(wrong);
    hotset_profile_delete(p);
    hotset_cache_delete(cache);
}

static void read_fails(const char * path, hotset_status status, const char * why) {
    fails(hotset_profile_read(path, place()), status, why);
}

// In these bytes.
static void file_of(const char * name, const void * bytes, size_t n) {
    FILE * file = fopen(path_of(name), "wb");
    assert(file != NULL && fwrite(bytes, 1, n, file) == n);
    assert(fclose(file) == 0);
}

static void test_files(const profile * low) {
    char text[1 << 16];
    for (int i = 0; i < 2; i++) {
        const char * name = i == 0 ? "low.json" : "low.json.gz";
        assert(hotset_profile_write(low, path_of(name)) == HOTSET_STATUS_OK);
        profile * read = NULL;
        succeeded(hotset_profile_read(path_of(name), &read));
        assert(similarity(low, read, HOTSET_PHASE_DECODE) == 1);
        hotset_profile_delete(read);
    }
    failed(hotset_profile_read(path_of("low.json"), NULL), "`profile_out` is NULL");
    read_fails(NULL, HOTSET_STATUS_ARGUMENT, "`path` is NULL");
    read_fails(path_of("none.json"), HOTSET_STATUS_IO, "none.json");
    read_fails(folder, HOTSET_STATUS_CORRUPT, "not a regular file");
    const size_t n = content("low.json", text, sizeof(text));
    file_of("cut.json", text, n / 2);
    read_fails(path_of("cut.json"), HOTSET_STATUS_CORRUPT, "cut.json");
    file_of("plain.json.gz", text, n);
    read_fails(path_of("plain.json.gz"), HOTSET_STATUS_CORRUPT, "the gzip data is damaged");
    failed(hotset_profile_write(NULL, path_of("low.json")), "`profile` is NULL");
    failed(hotset_profile_write(low, NULL), "`path` is NULL");
    fails(hotset_profile_write(low, path_of("none/low.json")), HOTSET_STATUS_IO, "none/low.json");
}

static void test_merge(const profile * low, const profile * high) {
    const hotset_phase generation = HOTSET_PHASE_DECODE, prompt = HOTSET_PHASE_PREFILL;
    const profile * both[2] = { low, high };
    const double weights[2] = { 1, 3 };
    char text[1 << 16];
    profile * nothing = empty("nothing");
    struct hotset_profile_params p = params("three");
    p.top_k = 3;
    profile * three = profile_new(&p);

    assert(similarity(low, high, generation) == 0 && similarity(low, high, prompt) == 1);
    profile * alike = NULL;
    succeeded(hotset_profile_merge("alike", both, NULL, 2, &alike));
    profile * higher = NULL;
    succeeded(hotset_profile_merge("higher", both, weights, 2, &higher));
    assert(fabs(similarity(low, alike, generation) - similarity(high, alike, generation)) < 1e-9);
    assert(similarity(low, higher, generation) < similarity(low, alike, generation));
    assert(similarity(high, higher, generation) > similarity(high, alike, generation));
    assert(similarity(low, higher, prompt) == 1);
    assert(hotset_profile_write(higher, path_of("higher.json")) == HOTSET_STATUS_OK);
    content("higher.json", text, sizeof(text));
    assert(strstr(text, "\"name\":\"higher\"") != NULL);
    assert(strstr(text, "\"tokens\":{\"prompt\":80,\"generation\":80}") != NULL);

    failed(hotset_profile_merge("x", both, NULL, 2, NULL), "`profile_out` is NULL");
    failed(hotset_profile_merge(NULL, both, NULL, 2, place()), "`name` is NULL");
    failed(hotset_profile_merge("", both, NULL, 2, place()), "name=:");
    failed(hotset_profile_merge("x", NULL, NULL, 2, place()), "`profiles` is NULL");
    failed(hotset_profile_merge("x", both, NULL, 0, place()), "n_profiles=0");
    failed(hotset_profile_merge("x", (const profile *[]) { NULL, low }, NULL, 2, place()), "`profiles[i]` is NULL");
    fails(hotset_profile_merge("x", (const profile *[]) { low, three }, NULL, 2, place()), HOTSET_STATUS_MISMATCH, "model.top_k is 2");

    double out = 77;
    failed(hotset_profile_similarity(NULL, low, prompt, &out), "`a` is NULL");
    failed(hotset_profile_similarity(low, NULL, prompt, &out), "`b` is NULL");
    failed(hotset_profile_similarity(low, high, prompt, NULL), "`similarity_out` is NULL");
    failed(hotset_profile_similarity(low, high, 2, &out), "phase=2");
    fails(hotset_profile_similarity(low, nothing, prompt, &out), HOTSET_STATUS_STATE, "profile=low: there is no layer");
    fails(hotset_profile_similarity(low, three, prompt, &out), HOTSET_STATUS_MISMATCH, "model.top_k is 2");
    assert(out == 77);
    hotset_profile_delete(nothing);
    hotset_profile_delete(three);
    hotset_profile_delete(alike);
    hotset_profile_delete(higher);
}

int main(int argc, char ** argv) {
    assert(argc == 2);
    folder = argv[1];
    profile * low  = learnt(LOW);
    profile * high = learnt(HIGH);
    test_new();
    test_learn();
    test_files(low);
    test_merge(low, high);
    assert(nothing_made == NULL);
    hotset_profile_delete(low);
    hotset_profile_delete(high);
    return 0;
}
