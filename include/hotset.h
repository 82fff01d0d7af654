#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// hotset: decides which experts of a mixture-of-experts model stay in fast memory.
//
// Two ways to use it. hotset_llama_install() hooks a patched llama.cpp, which then reads experts
// through hotset. Any other engine makes a cache, asks it for a plan whenever a router has picked
// experts, moves the bytes itself, and commits.
//
// Ownership  whoever is given a cache calls hotset_free, once; a profile, hotset_profile_free. Nothing
//            else is owned; strings that are returned are static, except that of hotset_error.
// Threads    one call at a time per cache and per profile; different ones are independent. Calls that
//            take a profile as const may share it.
// Errors     0 is success, negative is failure. On failure no out-parameter is written, nothing
//            changes, and hotset_error() says why.
// Panics     HOTSET_STATUS_PANIC is a bug in hotset; afterwards only hotset_free and
//            hotset_profile_free are allowed.
// NULL       HOTSET_STATUS_INVALID_ARGUMENT, unless a parameter is said to allow it.

#define HOTSET_ABI_VERSION 1

// The slot of an expert that got none: read its weights without caching them.
#define HOTSET_NO_SLOT UINT32_MAX

struct hotset;

// What a workload picks of a model's experts, kept from one run to the next: apart for prompts and
// generation, and fading, so that a pick weighs half after 8192 tokens. Independent of quantisation.
struct hotset_profile;

// Values are ABI: append only, never renumber.
enum hotset_status {
    HOTSET_STATUS_OK               =  0,
    HOTSET_STATUS_INVALID_ARGUMENT = -1,
    HOTSET_STATUS_PANIC            = -2,
};

// The bytes of `expert` go to `slot`; its layer is that of the plan, or one that hotset_warm writes.
struct hotset_fill {
    uint32_t expert;
    uint32_t slot;
};

// What a model does when a router picks experts. Numbers are ABI, as those of all enums here.
enum hotset_phase {
    HOTSET_PHASE_GENERATION = 0, // up to 32 tokens at a time
    HOTSET_PHASE_PROMPT     = 1, // more
};

// Which visits of a layer count. A visit is one committed plan of it in one phase.
enum hotset_span {
    HOTSET_SPAN_LIFETIME      = 0, // all
    HOTSET_SPAN_WINDOW        = 1, // the last 256; of prompts, the last 32
    HOTSET_SPAN_HALF_LIFE_4   = 2, // all, each half as much for every 4 visits since
    HOTSET_SPAN_HALF_LIFE_16  = 3,
    HOTSET_SPAN_HALF_LIFE_64  = 4,
    HOTSET_SPAN_HALF_LIFE_256 = 5,
};

// What hotset_init_params makes. Set `size` and leave what you do not know at 0.
struct hotset_params {
    size_t           size;         // sizeof(struct hotset_params); later versions append members
    const uint32_t * n_experts;    // [n_layers] experts of each layer
    const uint64_t * expert_bytes; // [n_layers] bytes of one expert of each layer; NULL: all the same
    uint32_t         n_layers;
    uint32_t         n_slots;      // experts that fit, of all layers together
    const char     * policy;       // a name that hotset_policy returns, with a number where it takes
                                   // one: "decay:16"
};

// What hotset_profile_init makes. Set `size`.
struct hotset_profile_params {
    size_t           size;         // sizeof(struct hotset_profile_params)
    const char     * name;         // of the workload: 1 to 200 bytes, no control characters
    const char     * architecture; // as GGUF's general.architecture; NULL: not known
    const char     * model_name;   // as GGUF's general.name; NULL: not known
    const uint32_t * n_experts;    // [n_layers] as in hotset_params; layers without experts are left out
    uint32_t         n_layers;
    uint32_t         top_k;        // experts that a token picks in a layer
};

// Experts picked in committed plans: by up to 32 tokens at a time (generation), or more (prompts).
struct hotset_counts {
    uint64_t hits;
    uint64_t misses;
    uint64_t evictions;
    uint64_t bypassed;        // misses that got no slot
    uint64_t prompt_hits;
    uint64_t prompt_misses;
    uint64_t prompt_bypassed; // prompts never evict
};

// The use of one expert in one phase.
struct hotset_usage {
    uint64_t n_tokens; // tokens that picked it
    uint64_t age;      // visits of its layer since the one that used it last; UINT64_MAX is never
};

// How unevenly the experts of one layer were picked. All 0 if none was.
struct hotset_heat {
    double n_tokens;        // tokens that count
    double hottest_tenth;   // share of the picks that the hottest tenth of the experts got, rounded up
    double hottest_quarter; // to whole experts
    double hottest_half;
    double entropy_bits;    // n experts picked alike give log2(n)
};

// Hits of other policies on the latest committed plans, prompts included. If plans came before those
// that are looked at, the first half of these only fills the caches and does not count.
struct hotset_regret {
    uint64_t picks;       // experts picked that count
    uint64_t warm_picks;  // experts picked before, which only filled the caches
    uint64_t policy_hits; // of the cache's policy, from an empty cache
    uint64_t lru_hits;    // of lru, likewise
    uint64_t belady_hits; // of the best possible policy, which knows the future
};

// A policy. Strings are static.
struct hotset_policy_info {
    const char * name;
    const char * about;  // what it evicts
    const char * when;   // when to use it
    const char * source; // where the algorithm comes from
    const char * param;  // what the number after its name is ("decay:16"); NULL if it takes none
    uint32_t     param_default;
    uint32_t     param_min;
    uint32_t     param_max;
};

struct hotset_tally {
    uint64_t hits;
    uint64_t misses;
    uint64_t evictions;
};

// What policies would have done with a recorded trace, prompts included.
struct hotset_replay_result {
    uint64_t n_tokens;  // tokens replayed
    uint64_t n_experts; // experts of the model, all layers together
    struct hotset_tally policy;
    struct hotset_tally lru;
    struct hotset_tally belady; // the best possible policy, which knows the future
};

// HOTSET_ABI_VERSION of the library.
uint32_t hotset_abi_version(void);

// Why the last call of this thread failed; "" if none has. Valid until the thread's next call.
const char * hotset_error(void);

// The name of policy `i`, counted from 0, or NULL after the last. Static.
const char * hotset_policy(size_t i);

// What policy `i` is. HOTSET_STATUS_INVALID_ARGUMENT: there is none.
enum hotset_status hotset_get_policy_info(size_t i, struct hotset_policy_info * info_out);

// An empty cache. Slots are numbered from 0, and any expert can be in any of them. There are no more
// slots than experts, whatever n_slots says. Up to 2^21 experts in 2^18 layers take less than a GiB of
// memory; more are refused.
//
// Returns NULL on failure.
struct hotset * hotset_init_params(const struct hotset_params * params);

// The same for experts of one size.
struct hotset * hotset_init(
        const uint32_t * n_experts,
        uint32_t         n_layers,
        uint32_t         n_slots,
        const char     * policy);

// NULL is allowed and does nothing.
void hotset_free(struct hotset * cache);

// What is known of the workload, before it begins or when it turns out to be another: as from
// hotset_get_frequencies of another cache. It orders the experts that generation has not used yet;
// policies that count add it to what they have counted.
//
//   frequencies    [n_frequencies] share of tokens that pick each expert, from 0 to 1: layer after layer
//   n_frequencies  experts of all layers
//   n_tokens       how many tokens of the live workload this is worth, above 0
//
// HOTSET_STATUS_INVALID_ARGUMENT: a value out of range, or a plan that is not committed.
enum hotset_status hotset_prime(
        struct hotset * cache,
        const float   * frequencies,
        size_t          n_frequencies,
        float           n_tokens);

// The router of `layer` picked `ids` for n_tokens tokens: where is each of them?
//
//   ids          n_ids values in [0, n_experts[layer]), repeats allowed; token after token, each token's
//                picks best first if the router ranks them; may be NULL when n_ids is 0
//   slots_out    [n_ids] slot of each id, or HOTSET_NO_SLOT
//   fills_out    [n_ids] what to read before the slots are used; slots of victims are reused
//   n_fills_out  number of fills
//
// The slots stay as they are until the next plan. A plan that was not committed is rolled back.
//
// HOTSET_STATUS_INVALID_ARGUMENT: a NULL pointer, a layer or an id out of range, or no tokens.
enum hotset_status hotset_plan(
        struct hotset      * cache,
        uint32_t             layer,
        uint32_t             n_tokens,
        const int32_t      * ids,
        size_t               n_ids,
        uint32_t           * slots_out,
        struct hotset_fill * fills_out,
        size_t             * n_fills_out);

// The bytes of all fills have arrived. HOTSET_STATUS_INVALID_ARGUMENT: there is no plan.
enum hotset_status hotset_commit(struct hotset * cache);

// No byte of a slot was changed: the victims are resident again.
// HOTSET_STATUS_INVALID_ARGUMENT: there is no plan.
enum hotset_status hotset_rollback(struct hotset * cache);

// There are n_slots slots from now on. The last plan ends, as the next hotset_plan would end it.
//
//   retired_out    [number of slots - n_slots] those that are no longer used, whatever their numbers;
//                  may be NULL when there are not fewer slots than before
//   n_retired_out  how many
//
// Experts in retired slots are no longer resident; no other expert moves. More slots take retired ones
// back before they add new numbers.
enum hotset_status hotset_resize(
        struct hotset * cache,
        uint32_t        n_slots,
        uint32_t      * retired_out,
        size_t        * n_retired_out);

// Where `expert` of `layer` is: its slot, or HOTSET_NO_SLOT if it is not resident.
// HOTSET_STATUS_INVALID_ARGUMENT: there is no such expert.
enum hotset_status hotset_get_slot(
        const struct hotset * cache,
        uint32_t              layer,
        uint32_t              expert,
        uint32_t            * slot_out);

// What the committed plans add up to.
enum hotset_status hotset_get_counts(const struct hotset * cache, struct hotset_counts * counts_out);

// How often committed plans used `expert` of `layer`, and when last.
// HOTSET_STATUS_INVALID_ARGUMENT: there is no such expert or phase.
enum hotset_status hotset_get_usage(
        const struct hotset * cache,
        enum hotset_phase     phase,
        uint32_t              layer,
        uint32_t              expert,
        struct hotset_usage * usage_out);

// The share of the tokens of `layer` that picked each of its experts, from 0 to 1.
//
//   frequencies_out  [n_frequencies]
//   n_frequencies    experts of the layer
//
// HOTSET_STATUS_INVALID_ARGUMENT: there is no such layer, phase or span, or another number of experts.
enum hotset_status hotset_get_frequencies(
        const struct hotset * cache,
        enum hotset_phase     phase,
        enum hotset_span      span,
        uint32_t              layer,
        float               * frequencies_out,
        size_t                n_frequencies);

// How unevenly the experts of `layer` were picked.
// HOTSET_STATUS_INVALID_ARGUMENT: there is no such layer, phase or span.
enum hotset_status hotset_get_heat(
        const struct hotset * cache,
        enum hotset_phase     phase,
        enum hotset_span      span,
        uint32_t              layer,
        struct hotset_heat  * heat_out);

// What other policies would have done with the latest committed plans: those of up to n_picks_max
// experts, and as many as 8 MiB hold, some 800,000, are kept. Replays them, which takes a second or two per million.
enum hotset_status hotset_get_regret(
        const struct hotset  * cache,
        size_t                 n_picks_max,
        struct hotset_regret * regret_out);

// Replay a trace that was recorded with HOTSET_TRACE, from an empty cache. Needs no cache.
//
//   path          the file
//   policy        as in hotset_params
//   n_slots       experts that fit, of all layers together
//   n_tokens_max  replay only tokens below this number; UINT32_MAX: all
//
// HOTSET_STATUS_INVALID_ARGUMENT: a file that is damaged or no trace, no such policy.
enum hotset_status hotset_replay(
        const char                  * path,
        const char                  * policy,
        uint32_t                      n_slots,
        uint32_t                      n_tokens_max,
        struct hotset_replay_result * result_out);

// A profile that knows nothing yet. Returns NULL on failure.
struct hotset_profile * hotset_profile_init(const struct hotset_profile_params * params);

// The profile in a file, compressed if its name ends in .gz. Returns NULL on failure: there is none, or
// it is damaged.
struct hotset_profile * hotset_profile_read(const char * path);

// Replaces the file at once, compressed likewise: the old one is there or the new one, whatever happens.
// HOTSET_STATUS_INVALID_ARGUMENT: it cannot be written, and is as it was.
enum hotset_status hotset_profile_write(const struct hotset_profile * profile, const char * path);

// NULL is allowed and does nothing. No cache needs the profiles that it was given.
void hotset_profile_free(struct hotset_profile * profile);

// Adds what the committed plans of `cache` have picked since the last call for this cache. What it has
// taught once it does not teach again: a cache teaches one profile.
// HOTSET_STATUS_INVALID_ARGUMENT: their layers with experts have other numbers of them.
enum hotset_status hotset_profile_learn(struct hotset_profile * profile, struct hotset * cache);

// The profile `name` of all that `profiles` know. Each has its share, however much it has seen.
//
//   profiles  [n_profiles] at least one, all of one model
//   weights   [n_profiles] above 0, at most 1000; NULL: all the same
//
// Returns NULL on failure.
struct hotset_profile * hotset_profile_merge(
        const char                          * name,
        const struct hotset_profile * const * profiles,
        const double                        * weights,
        size_t                                n_profiles);

// How alike `a` and `b` are: 1 if both pick each expert equally often, 0 if they share none. The mean
// over layers of 1 less the Jensen-Shannon divergence, in bits.
//
// HOTSET_STATUS_INVALID_ARGUMENT: not of one model, no such phase, or no layer that both know in it.
enum hotset_status hotset_profile_similarity(
        const struct hotset_profile * a,
        const struct hotset_profile * b,
        enum hotset_phase             phase,
        double                      * similarity_out);

// hotset_prime with a mix of profiles: what they pick while generating, worth 64 tokens. Arguments are
// as for hotset_profile_merge.
//
// HOTSET_STATUS_INVALID_ARGUMENT: no profiles, not those of one model with the cache's numbers of
// experts, a weight out of range, or a plan that is not committed.
enum hotset_status hotset_prime_profiles(
        struct hotset                       * cache,
        const struct hotset_profile * const * profiles,
        const double                        * weights,
        size_t                                n_profiles);

// Gives free slots to the hottest experts that are not resident, by what the cache was told or has
// recognised last.
//
//   n_max        at most so many; SIZE_MAX: as many as there are free slots
//   layers_out   [n_max, or the number of slots if that is less] layer of each fill, hottest first
//   fills_out    [as layers_out] what to read before the next hotset_plan, which takes it for resident
//   n_fills_out  number of fills
//
// If one cannot be read, hotset_resize to 0 and back makes all slots free again.
//
// HOTSET_STATUS_INVALID_ARGUMENT: the cache was told nothing, or a plan is not committed.
enum hotset_status hotset_warm(
        struct hotset      * cache,
        size_t               n_max,
        uint32_t           * layers_out,
        struct hotset_fill * fills_out,
        size_t             * n_fills_out);

// Recognise, from now on, which of `profiles` the committed plans are like, and prime the cache with it;
// again when the workload changes. The first decision takes 24 tokens or more. Plans of one batch of
// tokens come in the order of their layers. Takes the place of an earlier call.
//
// HOTSET_STATUS_INVALID_ARGUMENT: no profiles, or those that hotset_prime_profiles refuses.
enum hotset_status hotset_follow(
        struct hotset                       * cache,
        const struct hotset_profile * const * profiles,
        size_t                                n_profiles);

// Which of the profiles of hotset_follow the workload is like.
//
//   index_out       its place among them; SIZE_MAX while none is recognised
//   confidence_out  how sure that was when it was recognised, 0 to 1
//
// HOTSET_STATUS_INVALID_ARGUMENT: no profiles are followed.
enum hotset_status hotset_get_followed(
        const struct hotset * cache,
        size_t              * index_out,
        double              * confidence_out);

// Install the hook of a patched llama.cpp with the settings of the environment (HOTSET_RAM and so
// on). Call it before a model is loaded; calls after the first do nothing. Settings that are not
// valid end the process with exit code 2 and one line that says what is.
// Only in a library built with the feature `hooks`.
void hotset_llama_install(void);

#ifdef __cplusplus
}
#endif
