// Passes each struct that begins with its size in all sizes, as older and newer callers do. Exits with 0 if everything
// holds.
#include "workload.h"

#include <stdlib.h>

#define SIZE_LIMIT 4096
#define UNTOUCHED  0x5a

// What a call does with a struct in `bytes`; a call that makes something deletes it again.
struct subject {
    const char  * name;
    size_t        size;     // of this version
    size_t        size_min; // of the members that every version has
    hotset_status (*call)(void * bytes);
};

static struct hotset_cache * cache;
static const char          * trace;

static hotset_status call_cache_new(void * bytes) {
    struct hotset_cache * made = NULL;
    const hotset_status status = hotset_cache_new(bytes, &made);
    hotset_cache_delete(made);
    return status;
}

static hotset_status call_profile_new(void * bytes) {
    profile * made = NULL;
    const hotset_status status = hotset_profile_new(bytes, &made);
    hotset_profile_delete(made);
    return status;
}

static hotset_status call_policy(void * bytes)    { return hotset_policy_info(0, bytes); }
static hotset_status call_counts(void * bytes)    { return hotset_cache_counts(cache, bytes); }
static hotset_status call_usage(void * bytes)     { return hotset_cache_usage(cache, HOTSET_PHASE_DECODE, 0, 0, bytes); }
static hotset_status call_heat(void * bytes)      {
    return hotset_cache_heat(cache, HOTSET_PHASE_DECODE, HOTSET_SPAN_LIFETIME, 0, bytes);
}
static hotset_status call_hindsight(void * bytes) { return hotset_cache_hindsight(cache, SIZE_MAX, bytes); }
static hotset_status call_replay(void * bytes)    { return hotset_trace_replay(trace, "lru", 64, 20, bytes); }

#define OUT(type, call) { #type, sizeof(struct type), sizeof(size_t) + 8, call }

static const struct subject outs[] = {
    OUT(hotset_policy,        call_policy),
    OUT(hotset_counts,        call_counts),
    OUT(hotset_usage,         call_usage),
    OUT(hotset_heat,          call_heat),
    OUT(hotset_hindsight,     call_hindsight),
    OUT(hotset_replay_result, call_replay),
};

static int is_accepted(const struct subject * subject, size_t size) {
    return size >= subject->size_min && size <= SIZE_LIMIT && size % sizeof(size_t) == 0;
}

// A size that nobody can mean is refused before anything else of the struct is looked at, or written.
static void refuses(const struct subject * subject, void * bytes) {
    char why[64];
    snprintf(why, sizeof(why), "must be sizeof(struct %s)", subject->name);
    failed(subject->call(bytes), why);
}

static void test_out(const struct subject * subject) {
    unsigned char * whole = malloc(subject->size);
    memcpy(whole, &subject->size, sizeof(size_t));
    succeeded(subject->call(whole));
    for (size_t size = 0; size <= SIZE_LIMIT + 16; size++) {
        // No more than what it says: a tool that watches memory sees each byte beyond it.
        const size_t n = size < sizeof(size_t) ? sizeof(size_t) : size;
        unsigned char * bytes = malloc(n);
        memset(bytes, UNTOUCHED, n);
        memcpy(bytes, &size, sizeof(size_t));
        if (!is_accepted(subject, size)) {
            refuses(subject, bytes);
            for (size_t i = sizeof(size_t); i < n; i++) {
                assert(bytes[i] == UNTOUCHED);
            }
        } else {
            size_t stays;
            succeeded(subject->call(bytes));
            memcpy(&stays, bytes, sizeof(stays));
            assert(stays == size);
            for (size_t i = sizeof(size_t); i < size; i++) {
                assert(bytes[i] == (i < subject->size ? whole[i] : 0));
            }
        }
        free(bytes);
    }
    const size_t absurd = SIZE_MAX - 7;
    memcpy(whole, &absurd, sizeof(absurd));
    refuses(subject, whole);
    free(whole);
}

// `params` is right and says nothing that may be left out.
static void test_in(const struct subject * subject, const void * params) {
    for (size_t size = 0; size <= SIZE_LIMIT + 16; size++) {
        const size_t n = size < sizeof(size_t) ? sizeof(size_t) : size;
        unsigned char * bytes = calloc(1, n);
        memcpy(bytes, params, n < subject->size ? n : subject->size);
        memcpy(bytes, &size, sizeof(size_t));
        if (!is_accepted(subject, size)) {
            refuses(subject, bytes);
        } else {
            succeeded(subject->call(bytes));
            // what a newer caller wants cannot be done, and is not passed over
            if (size > subject->size) {
                bytes[size - 1] = 1;
                failed(subject->call(bytes), "is not 0");
                bytes[size - 1] = 0;
                bytes[subject->size] = 1;
                failed(subject->call(bytes), "is not 0");
            }
        }
        free(bytes);
    }
}

// A member beyond the size is not looked at.
static void test_left_out(void) {
    const uint64_t bad_bytes[N_LAYERS] = { 0 };
    struct hotset_cache_params   c = { 0 };
    struct hotset_profile_params p = params("left out");
    c.size         = sizeof(c);
    c.n_experts    = n_experts;
    c.n_layers     = N_LAYERS;
    c.policy       = "lru";
    c.expert_bytes = bad_bytes;
    failed(call_cache_new(&c), "needs a size above 0");
    c.size = offsetof(struct hotset_cache_params, expert_bytes);
    succeeded(call_cache_new(&c));

    p.architecture = p.model_name = "\xff";
    failed(call_profile_new(&p), "architecture");
    p.size = offsetof(struct hotset_profile_params, architecture);
    succeeded(call_profile_new(&p));
}

int main(int argc, char ** argv) {
    assert(argc == 2);
    trace = argv[1];
    cache = cache_of(6, "adaptive");
    for (int t = 0; t < N_TOKENS; t++) {
        generate(cache, LOW, t);
    }
    for (size_t i = 0; i < sizeof(outs) / sizeof(outs[0]); i++) {
        test_out(&outs[i]);
    }

    struct hotset_cache_params   c = { 0 };
    struct hotset_profile_params p = params("some");
    c.n_experts = n_experts;
    c.n_layers  = N_LAYERS;
    c.n_slots   = 3;
    c.policy    = "lru";
    p.architecture = NULL;
    const struct subject cache_params = {
        "hotset_cache_params", sizeof(c), offsetof(struct hotset_cache_params, expert_bytes), call_cache_new
    };
    const struct subject profile_params = {
        "hotset_profile_params", sizeof(p), offsetof(struct hotset_profile_params, architecture), call_profile_new
    };
    test_in(&cache_params, &c);
    test_in(&profile_params, &p);
    test_left_out();
    hotset_cache_delete(cache);
    return 0;
}
