// Two workloads and their profiles. Inline: not every program uses all of it.
#include "check.h"

// The layer in the middle is dense.
#define N_LAYERS 3
#define N_TOTAL  24
#define N_TOKENS 40

static const uint32_t n_experts[N_LAYERS] = { 8, 0, 16 };

// Two workloads: what one generates with low experts, the other does with high ones. Their prompts are alike.
enum workload { LOW, HIGH };

typedef struct hotset_profile profile;

static inline struct hotset_profile_params params(const char * name) {
    struct hotset_profile_params params = { 0 };
    params.size         = sizeof(params);
    params.name         = name;
    params.architecture = "test";
    params.n_experts    = n_experts;
    params.n_layers     = N_LAYERS;
    params.top_k        = 2;
    return params;
}

static inline profile * profile_new(const struct hotset_profile_params * params) {
    profile * made = NULL;
    succeeded(hotset_profile_new(params, &made));
    assert(made != NULL);
    return made;
}

static inline profile * empty(const char * name) {
    const struct hotset_profile_params p = params(name);
    return profile_new(&p);
}

// Generates token t. In the LOW workload, of 4 tokens the layers' experts 0, 1, 2 ... get
// 4 2 2 0 0 0 0 0 and 3 1 1 1 1 1 0 0 ...
static inline void generate(struct hotset_cache * cache, enum workload workload, int t) {
    const int32_t picks[2][2] = { { 0, 1 + t % 2 }, { t % 4 == 0, 2 + t % 4 } };
    for (int i = 0; i < 2; i++) {
        const uint32_t layer = i == 0 ? 0 : 2;
        const int32_t  last  = (int32_t) n_experts[layer] - 1;
        int32_t ids[2];
        for (int k = 0; k < 2; k++) {
            ids[k] = workload == LOW ? picks[i][k] : last - picks[i][k];
        }
        use(cache, layer, 1, ids, 2);
    }
}

static inline void read_prompt(struct hotset_cache * cache) {
    int32_t ids[2 * N_TOKENS];
    for (int i = 0; i < 2 * N_TOKENS; i++) {
        ids[i] = 3 + i % 2;
    }
    use(cache, 0, N_TOKENS, ids, 2 * N_TOKENS);
    use(cache, 2, N_TOKENS, ids, 2 * N_TOKENS);
}

static inline struct hotset_cache * cache_of(uint32_t n_slots, const char * policy) {
    return cache_new(n_experts, N_LAYERS, n_slots, policy);
}

static inline profile * learnt(enum workload workload) {
    profile * made = empty(workload == LOW ? "low" : "high");
    struct hotset_cache * cache = cache_of(6, "decay");
    read_prompt(cache);
    for (int t = 0; t < N_TOKENS; t++) {
        generate(cache, workload, t);
    }
    assert(hotset_profile_learn(made, cache) == HOTSET_STATUS_OK);
    hotset_cache_delete(cache);
    return made;
}
