// Drives the policy ABI the way another engine would. Exits with 0 if everything holds.
#include "hotset.h"

#undef NDEBUG
#include <assert.h>
#include <string.h>

int main(void) {
    assert(hotset_abi_version() == HOTSET_ABI_VERSION);
    assert(hotset_policy(0) != NULL);
    assert(hotset_policy(10000) == NULL);

    const uint32_t n_experts[] = { 4, 8 };
    const int32_t  ids[]       = { 3, 1, 3, 0 };
    uint32_t           slots[4];
    struct hotset_fill fills[4];
    size_t             n_fills = 77;

    assert(hotset_init(n_experts, 2, 3, "no-such-policy") == NULL);
    assert(strstr(hotset_error(), "no-such-policy") != NULL);
    assert(hotset_init(NULL, 2, 3, hotset_policy(0)) == NULL);

    for (size_t p = 0; hotset_policy(p) != NULL; p++) {
        struct hotset * cache = hotset_init(n_experts, 2, 3, hotset_policy(p));
        struct hotset_counts counts;
        assert(cache != NULL);

        // three distinct experts fill three slots; a repeated id has the slot of its first
        assert(hotset_plan(cache, 0, 2, ids, 4, slots, fills, &n_fills) == HOTSET_STATUS_OK);
        assert(n_fills == 3 && slots[0] == slots[2] && slots[0] != slots[1] && slots[1] != slots[3]);
        assert(hotset_commit(cache) == HOTSET_STATUS_OK);
        assert(hotset_commit(cache) == HOTSET_STATUS_INVALID_ARGUMENT);

        // a plan of another layer evicts; rolled back, everything is a hit again
        assert(hotset_plan(cache, 1, 1, ids, 2, slots, fills, &n_fills) == HOTSET_STATUS_OK && n_fills == 2);
        assert(hotset_rollback(cache) == HOTSET_STATUS_OK);
        assert(hotset_plan(cache, 0, 2, ids, 4, slots, fills, &n_fills) == HOTSET_STATUS_OK && n_fills == 0);
        assert(hotset_commit(cache) == HOTSET_STATUS_OK);

        // more distinct experts than slots: one is bypassed
        const int32_t many[] = { 0, 1, 2, 3 };
        size_t n_bypassed = 0;
        assert(hotset_plan(cache, 1, 1, many, 4, slots, fills, &n_fills) == HOTSET_STATUS_OK && n_fills == 3);
        for (int i = 0; i < 4; i++) {
            n_bypassed += slots[i] == HOTSET_NO_SLOT;
        }
        assert(n_bypassed == 1);
        assert(hotset_commit(cache) == HOTSET_STATUS_OK);

        // bad input changes nothing and writes nothing
        const int32_t bad[]      = { 0, 9 };
        const int32_t negative[] = { -1 };
        slots[0] = 77;
        n_fills  = 77;
        assert(hotset_plan(cache, 1, 1, bad, 2, slots, fills, &n_fills) == HOTSET_STATUS_INVALID_ARGUMENT);
        assert(hotset_plan(cache, 1, 1, negative, 1, slots, fills, &n_fills) == HOTSET_STATUS_INVALID_ARGUMENT);
        assert(hotset_plan(cache, 2, 1, ids, 1, slots, fills, &n_fills) == HOTSET_STATUS_INVALID_ARGUMENT);
        assert(hotset_plan(cache, 1, 0, ids, 1, slots, fills, &n_fills) == HOTSET_STATUS_INVALID_ARGUMENT);
        assert(hotset_plan(cache, 1, 1, NULL, 1, slots, fills, &n_fills) == HOTSET_STATUS_INVALID_ARGUMENT);
        assert(hotset_plan(NULL, 1, 1, ids, 1, slots, fills, &n_fills) == HOTSET_STATUS_INVALID_ARGUMENT);
        assert(slots[0] == 77 && n_fills == 77);
        assert(hotset_plan(cache, 1, 1, NULL, 0, NULL, NULL, &n_fills) == HOTSET_STATUS_OK && n_fills == 0);

        assert(hotset_get_counts(cache, &counts) == HOTSET_STATUS_OK);
        assert(counts.hits == 3 && counts.misses == 7 && counts.evictions == 3 && counts.bypassed == 1);
        hotset_free(cache);
    }
    hotset_free(NULL);
    return 0;
}
