// What the programs that drive the ABI share.
#include "hotset.h"

#undef NDEBUG
#include <assert.h>
#include <stdio.h>
#include <string.h>

static uint32_t           slots[128];
static struct hotset_fill fills[128];
static size_t             n_fills;

// The last call failed, and hotset_error() says why in these words.
static void failed(enum hotset_status status, const char * why) {
    if (status != HOTSET_STATUS_INVALID_ARGUMENT || strstr(hotset_error(), why) == NULL) {
        fprintf(stderr, "status %d, no '%s' in: %s\n", (int) status, why, hotset_error());
        assert(!"fails and says why");
    }
}

// Plans and commits; returns the number of fills.
static size_t use(struct hotset * cache, uint32_t layer, uint32_t n_tokens, const int32_t * ids, size_t n_ids) {
    assert(hotset_plan(cache, layer, n_tokens, ids, n_ids, slots, fills, &n_fills) == HOTSET_STATUS_OK);
    assert(hotset_commit(cache) == HOTSET_STATUS_OK);
    return n_fills;
}
