// Drives the policy ABI the way another engine would: abi TRACE. Exits with 0 if everything holds.
#include "check.h"

#define N_LAYERS 2
#define N_TOTAL  12

static const uint32_t n_experts[N_LAYERS] = { 4, 8 };

static struct hotset_cache_params params(void) {
    struct hotset_cache_params params = { 0 };
    params.size      = sizeof(params);
    params.n_experts = n_experts;
    params.n_layers  = N_LAYERS;
    params.n_slots   = 3;
    params.policy    = "lru";
    return params;
}

static void test_policies(void) {
    struct hotset_policy info = { 0 };
    size_t n = 0;
    info.size = sizeof(info);
    for (; hotset_policy_name(n) != NULL; n++) {
        assert(hotset_policy_info(n, &info) == HOTSET_STATUS_OK);
        assert(strcmp(info.name, hotset_policy_name(n)) == 0);
        assert(info.about[0] != 0 && info.when[0] != 0 && info.source[0] != 0);
        if (info.param == NULL) {
            assert(info.param_default == 0 && info.param_min == 0 && info.param_max == 0);
        } else {
            assert(info.param[0] != 0);
            assert(info.param_min <= info.param_default && info.param_default <= info.param_max);
        }
        if (strcmp(info.name, "decay") == 0) {
            assert(info.param_default == 16 && strstr(info.param, "half-life") != NULL);
        }
    }
    assert(n > 0 && n == hotset_policy_count() && hotset_policy_name(SIZE_MAX) == NULL);
    info.param_max = 77;
    failed(hotset_policy_info(n, &info), "policies");
    failed(hotset_policy_info(0, NULL), "`policy_out` is NULL");
    assert(info.param_max == 77);
}

static void new_fails(const struct hotset_cache_params * params, const char * why) {
    static char nobody;
    struct hotset_cache * cache = (struct hotset_cache *) &nobody;
    failed(hotset_cache_new(params, &cache), why);
    assert(cache == NULL);
}

static void test_new(void) {
    const uint64_t expert_bytes[] = { 100, 300 };
    const uint64_t bad_bytes[]    = { 100, 0 };
    const uint32_t too_many[]     = { UINT32_MAX, UINT32_MAX };
    struct hotset_cache_params p = params();

    p.expert_bytes = expert_bytes;
    struct hotset_cache * cache = NULL;
    succeeded(hotset_cache_new(&p, &cache));
    assert(cache != NULL);
    hotset_cache_delete(cache);
    hotset_cache_delete(NULL);
    failed(hotset_cache_new(&p, NULL), "`cache_out` is NULL");

    new_fails(NULL, "`params` is NULL");
    p = params(); p.n_experts = NULL;              new_fails(&p, "`n_experts` is NULL");
    p = params(); p.n_experts = too_many;          new_fails(&p, "at most 2097152");
    p = params(); p.n_layers = UINT32_MAX;
                  p.n_experts = NULL;              new_fails(&p, "`n_experts` is NULL");
    p = params(); p.expert_bytes = bad_bytes;      new_fails(&p, "layer 1 needs a size");
    p = params(); p.policy = NULL;                 new_fails(&p, "`policy` is NULL");
    p = params(); p.policy = "no-such-policy";     new_fails(&p, "no-such-policy");
    p = params(); p.policy = "decay:0";            new_fails(&p, "decay:0");
    p = params(); p.policy = "\xff";               new_fails(&p, "UTF-8");

    // more slots than experts are as many as experts
    p = params(); p.n_slots = UINT32_MAX;
    succeeded(hotset_cache_new(&p, &cache));
    size_t n_retired = 0;
    uint32_t retired[N_TOTAL];
    assert(hotset_cache_resize(cache, 0, retired, &n_retired) == HOTSET_STATUS_OK && n_retired == N_TOTAL);
    hotset_cache_delete(cache);
}

static void test_plan(const char * policy) {
    const int32_t ids[]  = { 3, 1, 3, 0 };
    const int32_t many[] = { 0, 1, 2, 3 };
    struct hotset_cache * cache = cache_new(n_experts, N_LAYERS, 3, policy);
    struct hotset_counts counts = { 0 };
    counts.size = sizeof(counts);

    // three distinct experts fill three slots; a repeated id has the slot of its first
    assert(hotset_cache_plan(cache, 0, 2, ids, 4, slots, fills, &n_fills) == HOTSET_STATUS_OK);
    assert(n_fills == 3 && slots[0] == slots[2] && slots[0] != slots[1] && slots[1] != slots[3]);
    assert(hotset_cache_commit(cache) == HOTSET_STATUS_OK);
    fails(hotset_cache_commit(cache), HOTSET_STATUS_STATE, "there is no plan");
    fails(hotset_cache_rollback(cache), HOTSET_STATUS_STATE, "there is no plan");

    // a plan of another layer evicts; rolled back, everything is a hit again
    assert(hotset_cache_plan(cache, 1, 1, ids, 2, slots, fills, &n_fills) == HOTSET_STATUS_OK && n_fills == 2);
    assert(hotset_cache_rollback(cache) == HOTSET_STATUS_OK);
    assert(use(cache, 0, 2, ids, 4) == 0);

    // more distinct experts than slots: one is staged
    size_t n_staged = 0;
    assert(use(cache, 1, 1, many, 4) == 3);
    for (int i = 0; i < 4; i++) {
        n_staged += slots[i] == HOTSET_NO_SLOT;
        uint32_t slot = 77;
        assert(hotset_cache_slot(cache, 1, many[i], &slot) == HOTSET_STATUS_OK && slot == slots[i]);
    }
    assert(n_staged == 1);

    // bad input changes nothing and writes nothing
    const int32_t bad[]      = { 0, 9 };
    const int32_t negative[] = { -1 };
    slots[0] = 77;
    n_fills  = 77;
    failed(hotset_cache_plan(cache, 1, 1, bad, 2, slots, fills, &n_fills), "expert 9 is outside 0..8");
    failed(hotset_cache_plan(cache, 1, 1, negative, 1, slots, fills, &n_fills), "expert -1");
    failed(hotset_cache_plan(cache, 2, 1, ids, 1, slots, fills, &n_fills), "layer 2 is outside 0..2");
    failed(hotset_cache_plan(cache, 1, 0, ids, 1, slots, fills, &n_fills), "0 tokens");
    failed(hotset_cache_plan(cache, 1, 1, NULL, 1, slots, fills, &n_fills), "`ids` is NULL");
    failed(hotset_cache_plan(cache, 1, 1, ids, 1, NULL, fills, &n_fills), "`slots_out` is NULL");
    failed(hotset_cache_plan(cache, 1, 1, ids, 1, slots, NULL, &n_fills), "`fills_out` is NULL");
    failed(hotset_cache_plan(cache, 1, 1, ids, 1, slots, fills, NULL), "`n_fills_out` is NULL");
    failed(hotset_cache_plan(NULL, 1, 1, ids, 1, slots, fills, &n_fills), "`cache` is NULL");
    failed(hotset_cache_commit(NULL), "`cache` is NULL");
    failed(hotset_cache_rollback(NULL), "`cache` is NULL");
    assert(slots[0] == 77 && n_fills == 77);
    assert(hotset_cache_plan(cache, 1, 1, NULL, 0, NULL, NULL, &n_fills) == HOTSET_STATUS_OK && n_fills == 0);

    assert(hotset_cache_counts(cache, &counts) == HOTSET_STATUS_OK);
    assert(counts.hits == 3 && counts.misses == 7 && counts.evictions == 3 && counts.staged == 1);
    failed(hotset_cache_counts(NULL, &counts), "`cache` is NULL");
    failed(hotset_cache_counts(cache, NULL), "`counts_out` is NULL");
    hotset_cache_delete(cache);
}

static void test_resize(void) {
    const int32_t ids[] = { 0, 1, 2 };
    uint32_t retired[3] = { 77, 77, 77 };
    uint32_t slot       = 77;
    size_t   n_retired  = 77;
    struct hotset_cache * cache = cache_new(n_experts, N_LAYERS, 3, "lru");
    assert(use(cache, 0, 1, ids, 3) == 3);
    const uint32_t slot_of_2 = slots[2];

    failed(hotset_cache_resize(NULL, 1, retired, &n_retired), "`cache` is NULL");
    failed(hotset_cache_resize(cache, 1, NULL, &n_retired), "`retired_out` is NULL");
    failed(hotset_cache_resize(cache, 1, retired, NULL), "`n_retired_out` is NULL");
    assert(n_retired == 77 && retired[0] == 77);
    assert(use(cache, 0, 1, ids, 3) == 0);

    // the least recently used go, and of one event the smaller ones; the others stay where they are
    assert(hotset_cache_resize(cache, 1, retired, &n_retired) == HOTSET_STATUS_OK);
    assert(n_retired == 2 && retired[0] != slot_of_2 && retired[1] != slot_of_2 && retired[0] != retired[1]);
    assert(retired[2] == 77);
    assert(hotset_cache_slot(cache, 0, 2, &slot) == HOTSET_STATUS_OK && slot == slot_of_2);
    assert(hotset_cache_slot(cache, 0, 0, &slot) == HOTSET_STATUS_OK && slot == HOTSET_NO_SLOT);

    // growing takes the retired slots back
    assert(hotset_cache_resize(cache, 3, NULL, &n_retired) == HOTSET_STATUS_OK && n_retired == 0);
    assert(use(cache, 0, 1, ids, 3) == 2);
    for (int i = 0; i < 3; i++) {
        assert(slots[i] < 3);
    }
    assert(hotset_cache_resize(cache, UINT32_MAX, NULL, &n_retired) == HOTSET_STATUS_OK && n_retired == 0);

    // a plan that is not committed is rolled back
    assert(hotset_cache_plan(cache, 1, 1, ids, 3, slots, fills, &n_fills) == HOTSET_STATUS_OK && n_fills == 3);
    assert(hotset_cache_resize(cache, 3, (uint32_t[N_TOTAL]) { 0 }, &n_retired) == HOTSET_STATUS_OK);
    fails(hotset_cache_commit(cache), HOTSET_STATUS_STATE, "there is no plan");
    assert(use(cache, 0, 1, ids, 3) == 0);

    slot = 77;
    failed(hotset_cache_slot(NULL, 0, 0, &slot), "`cache` is NULL");
    failed(hotset_cache_slot(cache, 0, 0, NULL), "`slot_out` is NULL");
    failed(hotset_cache_slot(cache, 2, 0, &slot), "layer 2");
    failed(hotset_cache_slot(cache, 0, 4, &slot), "expert 4");
    assert(slot == 77);
    hotset_cache_delete(cache);
}

static void test_prime(void) {
    float frequencies[N_TOTAL] = { 0.1f, 0.1f, 0.1f, 0.9f };
    const int32_t two[] = { 2 }, three[] = { 3 }, zero[] = { 0 };
    struct hotset_cache * cache = cache_new(n_experts, N_LAYERS, 2, "lfu");

    failed(hotset_cache_prime(NULL, frequencies, N_TOTAL, 100), "`cache` is NULL");
    failed(hotset_cache_prime(cache, NULL, N_TOTAL, 100), "`frequencies` is NULL");
    failed(hotset_cache_prime(cache, frequencies, N_TOTAL - 1, 100), "there are 12 experts");
    failed(hotset_cache_prime(cache, frequencies, N_TOTAL, 0), "n_tokens=0");
    frequencies[5] = 1.5f;
    failed(hotset_cache_prime(cache, frequencies, N_TOTAL, 100), "1.5");
    frequencies[5] = 0;

    // expert 3 is known to be hot, so that 2 goes when 0 comes, though 3 was used longer ago
    assert(hotset_cache_prime(cache, frequencies, N_TOTAL, 100) == HOTSET_STATUS_OK);
    assert(use(cache, 0, 1, three, 1) == 1 && use(cache, 0, 1, two, 1) == 1 && use(cache, 0, 1, zero, 1) == 1);
    uint32_t slot;
    assert(hotset_cache_slot(cache, 0, 2, &slot) == HOTSET_STATUS_OK && slot == HOTSET_NO_SLOT);
    assert(hotset_cache_slot(cache, 0, 3, &slot) == HOTSET_STATUS_OK && slot != HOTSET_NO_SLOT);
    hotset_cache_delete(cache);

    // it is told so later, but not while a plan is open
    cache = cache_new(n_experts, N_LAYERS, 2, "lfu");
    assert(use(cache, 0, 1, three, 1) == 1);
    assert(hotset_cache_plan(cache, 0, 1, two, 1, slots, fills, &n_fills) == HOTSET_STATUS_OK);
    fails(hotset_cache_prime(cache, frequencies, N_TOTAL, 100), HOTSET_STATUS_STATE, "plan=open");
    assert(hotset_cache_commit(cache) == HOTSET_STATUS_OK);
    assert(hotset_cache_prime(cache, frequencies, N_TOTAL, 100) == HOTSET_STATUS_OK);
    assert(use(cache, 0, 1, zero, 1) == 1);
    assert(hotset_cache_slot(cache, 0, 2, &slot) == HOTSET_STATUS_OK && slot == HOTSET_NO_SLOT);
    hotset_cache_delete(cache);
}

static int near(double a, double b) {
    return a - b < 1e-6 && b - a < 1e-6;
}

static void test_queries(void) {
    const int32_t both[] = { 0, 3, 3 }, one[] = { 3 };
    struct hotset_cache * cache = cache_new(n_experts, N_LAYERS, 3, "lru");
    struct hotset_usage usage = { sizeof(usage), 77, 77 };
    struct hotset_heat  heat  = { 0 };
    heat.size = sizeof(heat);
    float f[4] = { 77, 77, 77, 77 };

    use(cache, 0, 2, both, 3);
    for (int i = 0; i < 4; i++) {
        use(cache, 0, 1, one, 1);
    }
    use(cache, 0, 40, both, 3);
    assert(hotset_cache_plan(cache, 0, 1, both, 1, slots, fills, &n_fills) == HOTSET_STATUS_OK);
    assert(hotset_cache_rollback(cache) == HOTSET_STATUS_OK); // does not count

    const hotset_phase generation = HOTSET_PHASE_DECODE, prompt = HOTSET_PHASE_PREFILL;
    assert(hotset_cache_usage(cache, generation, 0, 0, &usage) == HOTSET_STATUS_OK);
    assert(usage.n_tokens == 1 && usage.age == 4);
    assert(hotset_cache_usage(cache, generation, 0, 3, &usage) == HOTSET_STATUS_OK);
    assert(usage.n_tokens == 6 && usage.age == 0);
    assert(hotset_cache_usage(cache, prompt, 0, 3, &usage) == HOTSET_STATUS_OK);
    assert(usage.n_tokens == 2 && usage.age == 0);
    assert(hotset_cache_usage(cache, prompt, 0, 1, &usage) == HOTSET_STATUS_OK);
    assert(usage.n_tokens == 0 && usage.age == UINT64_MAX);

    // 6 tokens, of which one picked expert 0; half as much with a half-life of 4 visits
    for (int span = HOTSET_SPAN_LIFETIME; span <= HOTSET_SPAN_WINDOW; span++) {
        assert(hotset_cache_frequencies(cache, generation, (hotset_span) span, 0, f, 4) == HOTSET_STATUS_OK);
        assert(near(f[0], 1.0 / 6) && f[1] == 0 && f[2] == 0 && f[3] == 1);
        assert(hotset_cache_frequencies(cache, prompt, (hotset_span) span, 0, f, 4) == HOTSET_STATUS_OK);
        assert(near(f[0], 1.0 / 40) && near(f[3], 2.0 / 40));
    }
    const double after[] = { 1, 0.840896415, 0.707106781, 0.594603557 };
    const double picks = 2 * 0.5 + after[0] + after[1] + after[2] + after[3];
    assert(hotset_cache_frequencies(cache, generation, HOTSET_SPAN_HALF_LIFE_4, 0, f, 4) == HOTSET_STATUS_OK);
    assert(near(f[0], 0.5 / picks) && f[3] == 1);

    // one expert, the hottest, got 6 of 7 picks
    assert(hotset_cache_heat(cache, generation, HOTSET_SPAN_LIFETIME, 0, &heat) == HOTSET_STATUS_OK);
    assert(heat.n_tokens == 6 && near(heat.hottest_tenth, 6.0 / 7) && heat.hottest_half == 1);
    assert(near(heat.hottest_quarter, 6.0 / 7) && near(heat.entropy_bits, 0.591672778582327));
    assert(hotset_cache_heat(cache, generation, HOTSET_SPAN_HALF_LIFE_256, 1, &heat) == HOTSET_STATUS_OK);
    assert(heat.n_tokens == 0 && heat.hottest_half == 0 && heat.entropy_bits == 0);

    const hotset_phase no_phase = (hotset_phase) 2;
    const hotset_span  no_span  = (hotset_span) 6;
    usage.age     = 77;
    heat.n_tokens = 77;
    f[0]          = 77;
    failed(hotset_cache_usage(NULL, generation, 0, 0, &usage), "`cache` is NULL");
    failed(hotset_cache_usage(cache, generation, 0, 0, NULL), "`usage_out` is NULL");
    failed(hotset_cache_usage(cache, no_phase, 0, 0, &usage), "phase=2");
    failed(hotset_cache_usage(cache, generation, 2, 0, &usage), "layer 2");
    failed(hotset_cache_usage(cache, generation, 0, 4, &usage), "expert 4");
    failed(hotset_cache_frequencies(NULL, generation, HOTSET_SPAN_WINDOW, 0, f, 4), "`cache` is NULL");
    failed(hotset_cache_frequencies(cache, no_phase, HOTSET_SPAN_WINDOW, 0, f, 4), "phase=2");
    failed(hotset_cache_frequencies(cache, generation, no_span, 0, f, 4), "span=6");
    failed(hotset_cache_frequencies(cache, generation, HOTSET_SPAN_WINDOW, 2, f, 4), "layer 2");
    failed(hotset_cache_frequencies(cache, generation, HOTSET_SPAN_WINDOW, 0, f, 3), "layer 0 has 4 experts");
    failed(hotset_cache_frequencies(cache, generation, HOTSET_SPAN_WINDOW, 0, NULL, 4), "`frequencies_out`");
    failed(hotset_cache_heat(NULL, generation, HOTSET_SPAN_WINDOW, 0, &heat), "`cache` is NULL");
    failed(hotset_cache_heat(cache, generation, HOTSET_SPAN_WINDOW, 0, NULL), "`heat_out` is NULL");
    failed(hotset_cache_heat(cache, no_phase, HOTSET_SPAN_WINDOW, 0, &heat), "phase=2");
    failed(hotset_cache_heat(cache, generation, no_span, 0, &heat), "span=6");
    failed(hotset_cache_heat(cache, generation, HOTSET_SPAN_WINDOW, 2, &heat), "layer 2");
    assert(usage.age == 77 && heat.n_tokens == 77 && f[0] == 77);
    hotset_cache_delete(cache);
}

// Twelve rounds over four experts with three slots: lru never hits, the best policy does.
static void test_hindsight(void) {
    struct hotset_cache * cache = cache_new(n_experts, N_LAYERS, 3, "lfu");
    struct hotset_counts    counts    = { 0 };
    struct hotset_hindsight hindsight = { 0 };
    counts.size    = sizeof(counts);
    hindsight.size = sizeof(hindsight);
    for (int i = 0; i < 48; i++) {
        const int32_t id = i % 4;
        use(cache, 0, 1, &id, 1);
    }
    assert(hotset_cache_counts(cache, &counts) == HOTSET_STATUS_OK);
    assert(hotset_cache_hindsight(cache, SIZE_MAX, &hindsight) == HOTSET_STATUS_OK);
    assert(hindsight.picks == 48 && hindsight.warm_picks == 0 && hindsight.lru_hits == 0);
    assert(hindsight.policy_hits == counts.hits && hindsight.belady_hits == 30);

    // of the last 24, 12 count
    assert(hotset_cache_hindsight(cache, 24, &hindsight) == HOTSET_STATUS_OK);
    assert(hindsight.picks == 12 && hindsight.warm_picks == 12 && hindsight.lru_hits == 0);
    assert(hindsight.belady_hits >= 8 && hindsight.belady_hits <= 9);

    hindsight.picks = 77;
    failed(hotset_cache_hindsight(NULL, 1, &hindsight), "`cache` is NULL");
    failed(hotset_cache_hindsight(cache, 1, NULL), "`hindsight_out` is NULL");
    assert(hindsight.picks == 77);
    hotset_cache_delete(cache);
}

static void test_replay(const char * path) {
    struct hotset_replay_result all = { 0 }, part = { 0 };
    all.size = part.size = sizeof(all);
    assert(hotset_trace_replay(path, "decay:16", 115, UINT32_MAX, &all) == HOTSET_STATUS_OK);
    assert(all.n_tokens == 3000 && all.n_experts == 6 * 64);
    const uint64_t picks = 3000 * 6 * 8;
    assert(all.lru.hits + all.lru.misses == picks && all.belady.hits + all.belady.misses == picks);
    assert(all.lru.hits < all.policy.hits && all.policy.hits < all.belady.hits);
    assert(all.belady.evictions == all.belady.misses - 115);

    assert(hotset_trace_replay(path, "lru", 115, 100, &part) == HOTSET_STATUS_OK);
    assert(part.n_tokens == 100 && part.policy.hits + part.policy.misses == 100 * 6 * 8);
    assert(memcmp(&part.policy, &part.lru, sizeof(part.lru)) == 0);
    assert(hotset_trace_replay(path, "lru", UINT32_MAX, 100, &part) == HOTSET_STATUS_OK && part.lru.evictions == 0);

    part.n_tokens = 77;
    failed(hotset_trace_replay(NULL, "lru", 115, 100, &part), "`path` is NULL");
    failed(hotset_trace_replay(path, NULL, 115, 100, &part), "`policy` is NULL");
    failed(hotset_trace_replay(path, "lru", 115, 100, NULL), "`result_out` is NULL");
    failed(hotset_trace_replay(path, "mru", 115, 100, &part), "mru");
    fails(hotset_trace_replay("/no/such/file", "lru", 115, 100, &part), HOTSET_STATUS_IO, "/no/such/file");
    fails(hotset_trace_replay(__FILE__, "lru", 115, 100, &part), HOTSET_STATUS_CORRUPT, "abi.c");
    assert(part.n_tokens == 77);
}

int main(int argc, char ** argv) {
    assert(argc == 2);
    assert(hotset_abi_version() == HOTSET_ABI_VERSION);
    assert(strcmp(hotset_last_error(), "") == 0);
    test_policies();
    test_new();
    for (size_t i = 0; i < hotset_policy_count(); i++) {
        test_plan(hotset_policy_name(i));
    }
    test_resize();
    test_prime();
    test_queries();
    test_hindsight();
    test_replay(argv[1]);
    return 0;
}
