// Starts caches as profiles say, and has them recognise the workload: warm. Exits with 0 if everything holds.
#include "workload.h"

#include <math.h>
#include <stdbool.h>

static bool is_resident(const struct hotset_cache * cache, uint32_t layer, uint32_t expert) {
    uint32_t slot;
    assert(hotset_cache_slot(cache, layer, expert, &slot) == HOTSET_STATUS_OK);
    return slot != HOTSET_NO_SLOT;
}

// Warms up to n_max slots: the experts are these, { layer, expert }, in slots of their own.
static void warms(struct hotset_cache * cache, size_t n_max, const uint32_t (*expected)[2], size_t n_expected) {
    uint32_t           layers[N_TOTAL + 1];
    struct hotset_fill warm[N_TOTAL + 1];
    size_t             n = 77;
    warm[n_expected].slot = 77;
    assert(hotset_cache_warm(cache, n_max, layers, warm, &n) == HOTSET_STATUS_OK);
    assert(n == n_expected && warm[n].slot == 77);
    for (size_t i = 0; i < n; i++) {
        uint32_t slot;
        assert(layers[i] == expected[i][0] && warm[i].expert == expected[i][1]);
        assert(hotset_cache_slot(cache, layers[i], warm[i].expert, &slot) == HOTSET_STATUS_OK);
        assert(slot == warm[i].slot && slot < N_TOTAL);
        for (size_t j = 0; j < i; j++) {
            assert(warm[i].slot != warm[j].slot);
        }
    }
}

static void warms_one(struct hotset_cache * cache, uint32_t layer, uint32_t expert) {
    const uint32_t one[1][2] = { { layer, expert } };
    warms(cache, 1, one, 1);
}

static void test_warm(const profile * low) {
    const uint32_t hottest[][2] = { { 0, 0 }, { 2, 0 }, { 0, 1 }, { 0, 2 }, { 2, 1 }, { 2, 2 } };
    const int32_t one = 3;
    struct hotset_cache * cache = cache_of(6, "decay");
    struct hotset_counts counts = { 0 };
    counts.size = sizeof(counts);
    size_t n_retired;

    assert(hotset_cache_prime_profiles(cache, &low, NULL, 1) == HOTSET_STATUS_OK);
    warms(cache, 0, hottest, 0);
    warms(cache, 2, hottest, 2);
    assert(!is_resident(cache, 0, 1));

    // everything free again
    assert(hotset_cache_resize(cache, 0, slots, &n_retired) == HOTSET_STATUS_OK && n_retired == 6);
    assert(!is_resident(cache, 0, 0));
    assert(hotset_cache_resize(cache, 6, NULL, &n_retired) == HOTSET_STATUS_OK);
    warms(cache, 2, hottest, 2);
    warms(cache, SIZE_MAX, hottest + 2, 4);
    warms(cache, SIZE_MAX, hottest, 0);

    // a workload that is known hits from the first token
    generate(cache, LOW, 0);
    assert(hotset_cache_counts(cache, &counts) == HOTSET_STATUS_OK);
    assert(counts.hits == 4 && counts.misses == 0);

    assert(hotset_cache_resize(cache, 8, NULL, &n_retired) == HOTSET_STATUS_OK);
    assert(hotset_cache_plan(cache, 0, 1, &one, 1, slots, fills, &n_fills) == HOTSET_STATUS_OK);
    uint32_t layers[8];
    n_fills = 77;
    fails(hotset_cache_warm(cache, 1, layers, fills, &n_fills), HOTSET_STATUS_STATE, "plan=open");
    fails(hotset_cache_prime_profiles(cache, &low, NULL, 1), HOTSET_STATUS_STATE, "plan=open");
    assert(hotset_cache_commit(cache) == HOTSET_STATUS_OK);
    failed(hotset_cache_warm(NULL, 1, layers, fills, &n_fills), "`cache` is NULL");
    failed(hotset_cache_warm(cache, 1, NULL, fills, &n_fills), "`layers_out` is NULL");
    failed(hotset_cache_warm(cache, 1, layers, NULL, &n_fills), "`fills_out` is NULL");
    failed(hotset_cache_warm(cache, 1, layers, fills, NULL), "`n_fills_out` is NULL");
    assert(n_fills == 77);
    warms_one(cache, 2, 3);
    hotset_cache_delete(cache);
}

static void test_prime(const profile * low, const profile * high) {
    const uint32_t alike[][2]  = { { 0, 0 }, { 0, 7 }, { 2, 0 }, { 2, 15 } };
    const uint32_t higher[][2] = { { 0, 7 }, { 2, 15 }, { 0, 5 }, { 0, 6 }, { 0, 0 } };
    const profile * both[2] = { low, high };
    double weights[2] = { 0.5, 1.5 };
    struct hotset_cache * cache = cache_of(6, "decay");
    struct hotset_profile_params p = params("three");
    p.top_k = 3;
    profile * three = profile_new(&p);
    p = params("flat");
    p.n_experts = (const uint32_t[]) { 8, 8, 8 };
    profile * flat = profile_new(&p);

    failed(hotset_cache_prime_profiles(NULL, both, weights, 2), "`cache` is NULL");
    failed(hotset_cache_prime_profiles(cache, NULL, weights, 2), "`profiles` is NULL");
    failed(hotset_cache_prime_profiles(cache, both, weights, 0), "n_profiles=0");
    failed(hotset_cache_prime_profiles(cache, (const profile *[]) { low, NULL }, NULL, 2), "`profiles[i]` is NULL");
    fails(hotset_cache_prime_profiles(cache, (const profile *[]) { low, three }, NULL, 2), HOTSET_STATUS_MISMATCH, "model.top_k is 2");
    fails(hotset_cache_prime_profiles(cache, (const profile *[]) { low, flat }, NULL, 2), HOTSET_STATUS_MISMATCH, "profile=flat: its layers");
    const double bad[] = { 0, -1, 1001, NAN, INFINITY };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        weights[1] = bad[i];
        failed(hotset_cache_prime_profiles(cache, both, weights, 2), "the weight of high");
        profile * none = three;
        failed(hotset_profile_merge("both", both, weights, 2, &none), "the weight of high");
        assert(none == NULL);
    }
    fails(hotset_cache_warm(cache, 6, slots, fills, &n_fills), HOTSET_STATUS_STATE, "prior=none");

    weights[1] = 1.5;
    assert(hotset_cache_prime_profiles(cache, both, NULL, 2) == HOTSET_STATUS_OK);
    warms(cache, 4, alike, 4);
    hotset_cache_delete(cache);
    cache = cache_of(6, "decay");
    assert(hotset_cache_prime_profiles(cache, both, weights, 2) == HOTSET_STATUS_OK);
    warms(cache, 5, higher, 5);
    hotset_cache_delete(cache);
    hotset_profile_delete(three);
    hotset_profile_delete(flat);
}

static void follows(const struct hotset_cache * cache, size_t expected) {
    size_t index      = 77;
    double confidence = 77;
    assert(hotset_cache_followed(cache, &index, &confidence) == HOTSET_STATUS_OK);
    assert(index == expected);
    assert(expected == SIZE_MAX ? confidence == 0 : confidence > 0.9 && confidence <= 1);
}

// With two slots: whether `cold` goes when `warm` comes, after `hot` and `cold` and with the ids of layer 0.
static void evicts(struct hotset_cache * cache, int32_t cold, int32_t hot, int32_t warm) {
    use(cache, 0, 1, &hot, 1);
    use(cache, 0, 1, &cold, 1);
    use(cache, 0, 1, &warm, 1);
    assert(is_resident(cache, 0, (uint32_t) hot) && !is_resident(cache, 0, (uint32_t) cold));
}

static void test_follow(const profile * low, const profile * high) {
    profile * gone = learnt(LOW);
    const profile * both[2] = { gone, high };
    struct hotset_cache * roomy = cache_of(N_TOTAL, "decay");
    struct hotset_cache * tight = cache_of(2, "static");
    size_t index      = 77;
    double confidence = 77;
    fails(hotset_cache_followed(roomy, &index, &confidence), HOTSET_STATUS_STATE, "no profiles are followed");
    assert(hotset_cache_follow(roomy, both, 2) == HOTSET_STATUS_OK);
    assert(hotset_cache_follow(tight, both, 2) == HOTSET_STATUS_OK);
    hotset_profile_delete(gone); // no cache needs it

    // a batch is judged when the next one begins
    for (int t = 0; t <= 24; t++) {
        follows(roomy, SIZE_MAX);
        generate(roomy, HIGH, 0);
        generate(tight, HIGH, 0);
    }
    follows(roomy, 1);
    // what its profile has hottest of what was not seen, and what it ranks higher
    warms_one(roomy, 2, 15);
    evicts(tight, 0, 7, 6);

    for (int t = 0; t < 24; t++) {
        generate(roomy, LOW, 0);
        generate(tight, LOW, 0);
    }
    follows(roomy, 0);
    warms_one(roomy, 2, 0);
    evicts(tight, 7, 0, 1);

    // a call that fails leaves what is followed as it was
    const profile * none[2] = { low, NULL };
    struct hotset_profile_params p = params("other");
    p.n_experts = (const uint32_t[]) { 8, 8, 8 };
    profile * other = profile_new(&p);
    const profile * other_shape[2] = { low, other };
    p = params("three");
    p.top_k = 3;
    profile * three = profile_new(&p);
    const profile * other_model[2] = { low, three };
    failed(hotset_cache_follow(NULL, both, 2), "`cache` is NULL");
    failed(hotset_cache_follow(roomy, NULL, 2), "`profiles` is NULL");
    failed(hotset_cache_follow(roomy, both, 0), "n_profiles=0");
    failed(hotset_cache_follow(roomy, none, 2), "`profiles[i]` is NULL");
    fails(hotset_cache_follow(roomy, other_shape, 2), HOTSET_STATUS_MISMATCH, "profile=other: its layers");
    fails(hotset_cache_follow(roomy, other_model, 2), HOTSET_STATUS_MISMATCH, "model.top_k is 2");
    failed(hotset_cache_followed(NULL, &index, &confidence), "`cache` is NULL");
    failed(hotset_cache_followed(roomy, NULL, &confidence), "`index_out` is NULL");
    failed(hotset_cache_followed(roomy, &index, NULL), "`confidence_out` is NULL");
    assert(index == 77 && confidence == 77);
    follows(roomy, 0);

    // one that succeeds begins anew
    assert(hotset_cache_follow(roomy, &high, 1) == HOTSET_STATUS_OK);
    follows(roomy, SIZE_MAX);
    hotset_profile_delete(other);
    hotset_profile_delete(three);
    hotset_cache_delete(roomy);
    hotset_cache_delete(tight);
}

int main(void) {
    profile * low  = learnt(LOW);
    profile * high = learnt(HIGH);
    test_warm(low);
    test_prime(low, high);
    test_follow(low, high);
    hotset_profile_delete(low);
    hotset_profile_delete(high);
    return 0;
}
