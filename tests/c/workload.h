// Two workloads and their profiles.
#include "check.h"

// The layer in the middle is dense.
#define N_LAYERS 3
#define N_TOTAL  24
#define N_TOKENS 40

static const uint32_t n_experts[N_LAYERS] = { 8, 0, 16 };

// Two workloads: what one generates with low experts, the other does with high ones. Their prompts are alike.
enum workload { LOW, HIGH };

typedef struct hotset_profile profile;

static struct hotset_profile_params params(const char * name) {
    struct hotset_profile_params params = { 0 };
    params.size         = sizeof(params);
    params.name         = name;
    params.architecture = "test";
    params.n_experts    = n_experts;
    params.n_layers     = N_LAYERS;
    params.top_k        = 2;
    return params;
}

static profile * empty(const char * name) {
    const struct hotset_profile_params p = params(name);
    profile * made = hotset_profile_init(&p);
    assert(made != NULL);
    return made;
}

// Generates token t. In the LOW workload, of 4 tokens the layers' experts 0, 1, 2 ... get
// 4 2 2 0 0 0 0 0 and 3 1 1 1 1 1 0 0 ...
static void generate(struct hotset * cache, enum workload workload, int t) {
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

static void read_prompt(struct hotset * cache) {
    int32_t ids[2 * N_TOKENS];
    for (int i = 0; i < 2 * N_TOKENS; i++) {
        ids[i] = 3 + i % 2;
    }
    use(cache, 0, N_TOKENS, ids, 2 * N_TOKENS);
    use(cache, 2, N_TOKENS, ids, 2 * N_TOKENS);
}

static struct hotset * cache_of(uint32_t n_slots, const char * policy) {
    struct hotset * cache = hotset_init(n_experts, N_LAYERS, n_slots, policy);
    assert(cache != NULL);
    return cache;
}

static profile * learnt(enum workload workload) {
    profile * made = empty(workload == LOW ? "low" : "high");
    struct hotset * cache = cache_of(6, "decay");
    read_prompt(cache);
    for (int t = 0; t < N_TOKENS; t++) {
        generate(cache, workload, t);
    }
    assert(hotset_profile_learn(made, cache) == HOTSET_STATUS_OK);
    hotset_free(cache);
    return made;
}
