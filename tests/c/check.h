// What the programs that drive the ABI share.
#include "hotset.h"

#undef NDEBUG
#include <assert.h>
#include <stdio.h>
#include <string.h>

static uint32_t           slots[128];
static struct hotset_fill fills[128];
static size_t             n_fills;

// The last call failed with this status, and hotset_last_error() says why in these words.
static void fails(hotset_status status, hotset_status expected, const char * why) {
    if (status != expected || strstr(hotset_last_error(), why) == NULL) {
        fprintf(stderr, "status %d (%s), no '%s' in: %s\n", (int) status, hotset_status_text(status), why, hotset_last_error());
        assert(!"fails and says why");
    }
}

// The last call broke a rule of the header.
static void failed(hotset_status status, const char * why) {
    fails(status, HOTSET_STATUS_ARGUMENT, why);
}

// The last call succeeded, and no error of an earlier one is left.
static void succeeded(hotset_status status) {
    if (status != HOTSET_STATUS_OK || hotset_last_error()[0] != 0) {
        fprintf(stderr, "status %d: %s\n", (int) status, hotset_last_error());
        assert(!"succeeds");
    }
}

static inline struct hotset_cache * cache_new(
        const uint32_t * n_experts, uint32_t n_layers, uint32_t n_slots, const char * policy) {
    struct hotset_cache_params params = { 0 };
    struct hotset_cache * cache = NULL;
    params.size      = sizeof(params);
    params.n_experts = n_experts;
    params.n_layers  = n_layers;
    params.n_slots   = n_slots;
    params.policy    = policy;
    succeeded(hotset_cache_new(&params, &cache));
    assert(cache != NULL);
    return cache;
}

// Plans and commits; returns the number of fills.
static inline size_t use(struct hotset_cache * cache, uint32_t layer, uint32_t n_tokens, const int32_t * ids, size_t n_ids) {
    succeeded(hotset_cache_plan(cache, layer, n_tokens, ids, n_ids, slots, fills, &n_fills));
    succeeded(hotset_cache_commit(cache));
    return n_fills;
}
