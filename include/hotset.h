#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// hotset: decides which experts of a mixture-of-experts model stay in fast memory.
//
// An engine makes a cache, asks it for a plan whenever a router has picked experts, moves the bytes itself, and
// commits: examples/engine.c does it in 150 lines. A patched llama.cpp is hooked by hotset_llama_install() instead.
//
// Ownership  What a hotset_*_new, _read or _merge gives, its caller gives to hotset_*_delete, once. Nothing else is
//            owned: strings that are returned are static, except that of hotset_last_error.
// Errors     0 is success, negative is failure: see hotset_status. A call that fails changes nothing and writes no
//            out-parameter; only those that make a cache or a profile set *cache_out or *profile_out to NULL then.
//            hotset_last_error() says in words what was wrong with which value.
// Pointers   None may be NULL, unless its comment says so; one that is NULL all the same is HOTSET_STATUS_ARGUMENT.
//            An array of no entries may always be NULL. Arrays and structs that are passed to one call do not overlap.
//            Places that are written to may hold anything before, but for the size of a struct.
// Structs    Those that begin with `size` grow: later versions append members. Set `size` to the sizeof of the struct
//            and, where it goes in, all you do not use to 0. A size is accepted from that of the members above the line
//            `may be left out`, or of one member after `size` where a struct comes out, up to 4096, in multiples of
//            the struct's alignment; any other is HOTSET_STATUS_ARGUMENT.
//              in   members beyond a smaller size are 0; bytes beyond the library's own must be 0
//              out  no byte beyond `size` is written; members that the library does not know are 0; `size` stays
//            hotset_fill and hotset_tally have no size and never change.
// Threads    One call at a time for each cache, whatever it does, and for each profile; different ones are independent,
//            and any thread may use or delete them. Calls that take a profile as const may share it. All calls without
//            a cache or a profile may come from any thread at any time.
// Process    No call ends the process for what it is given. The memory of a new cache, a new profile and the ids of a plan
//            is asked for beforehand (HOTSET_STATUS_NO_MEMORY). Where the system breaks its promise, or has none left for
//            smaller things, the process ends, as that of any Rust program.
// Numbers    Those of all constants are ABI: later versions append, and never renumber.

#define HOTSET_ABI_VERSION 2

// Comes before every function. An engine that passes them on in a library of its own may define it otherwise.
#ifndef HOTSET_API
#    if defined(__GNUC__)
#        define HOTSET_API __attribute__((visibility("default")))
#    else
#        define HOTSET_API
#    endif
#endif

// The slot of an expert that got none: read its weights without caching them.
#define HOTSET_NO_SLOT UINT32_MAX

// Which experts are in which slots.
struct hotset_cache;

// What a workload picks of a model's experts, kept from one run to the next: apart for prompts and
// generation, and fading, so that a pick weighs half after 8192 tokens. Independent of quantisation.
struct hotset_profile;

// How a call ended.
typedef int32_t hotset_status;

enum {
    HOTSET_STATUS_OK        =  0,
    HOTSET_STATUS_ARGUMENT  = -1, // NULL, out of range, no such name: a bug of the caller, or a setting of its user
    HOTSET_STATUS_PANIC     = -2, // a bug in hotset; what the call was given may only be deleted now
    HOTSET_STATUS_MISMATCH  = -3, // a profile is of another model: start without it
    HOTSET_STATUS_IO        = -4, // the system does not read or write a file: it is not there, the disk is full ...
    HOTSET_STATUS_CORRUPT   = -5, // a file is damaged or of another kind: another try will not help
    HOTSET_STATUS_STATE     = -6, // the call comes too early or too late; the same call may be right another time
    HOTSET_STATUS_NO_MEMORY = -7, // try with less
};

// What a model does when a router picks experts.
typedef uint32_t hotset_phase;

enum {
    HOTSET_PHASE_DECODE = 0, // up to 32 tokens at a time
    HOTSET_PHASE_PREFILL     = 1, // more
};

// Which visits of a layer count. A visit is one committed plan of it in one phase.
typedef uint32_t hotset_span;

enum {
    HOTSET_SPAN_LIFETIME      = 0, // all
    HOTSET_SPAN_WINDOW        = 1, // the last 256; of prompts, the last 32
    HOTSET_SPAN_HALF_LIFE_4   = 2, // all, each half as much for every 4 visits since
    HOTSET_SPAN_HALF_LIFE_16  = 3,
    HOTSET_SPAN_HALF_LIFE_64  = 4,
    HOTSET_SPAN_HALF_LIFE_256 = 5,
};

// The bytes of `expert` go to `slot`; its layer is that of the plan, or one that hotset_cache_warm writes.
struct hotset_fill {
    uint32_t expert;
    uint32_t slot;
};

// What hotset_cache_new makes.
struct hotset_cache_params {
    size_t           size;
    const uint32_t * n_experts;    // [n_layers] experts of each layer
    uint32_t         n_layers;
    uint32_t         n_slots;      // experts that fit, of all layers together
    const char     * policy;       // a name that hotset_policy_name returns, with a number where it takes one: "decay:16"
    // may be left out
    const uint64_t * expert_bytes; // [n_layers] bytes of one expert of each layer; NULL: all the same
};

// What hotset_profile_new makes.
struct hotset_profile_params {
    size_t           size;
    const char     * name;         // of the workload: 1 to 200 bytes, no control characters
    const uint32_t * n_experts;    // [n_layers] as in hotset_cache_params; layers without experts are left out
    uint32_t         n_layers;
    uint32_t         top_k;        // experts that a token picks in a layer
    // may be left out
    const char     * architecture; // as GGUF's general.architecture; NULL: not known
    const char     * model_name;   // as GGUF's general.name; NULL: not known
};

// Experts picked in committed plans: by up to 32 tokens at a time (generation), or more (prompts).
struct hotset_counts {
    size_t   size;
    uint64_t hits;
    uint64_t misses;
    uint64_t evictions;
    uint64_t staged;        // misses that got no slot
    uint64_t prefill_hits;
    uint64_t prefill_misses;
    uint64_t prefill_staged;
};

// The use of one expert in one phase.
struct hotset_usage {
    size_t   size;
    uint64_t n_tokens; // tokens that picked it
    uint64_t age;      // visits of its layer since the one that picked it last; UINT64_MAX is never
};

// How unevenly the experts of one layer were picked. All 0 if none was.
struct hotset_heat {
    size_t size;
    double n_tokens;        // tokens that count
    double hottest_tenth;   // share of the picks that the hottest tenth of the experts got, rounded up
    double hottest_quarter; // to whole experts
    double hottest_half;
    double entropy_bits;    // n experts picked alike give log2(n)
};

// Hits of other policies on the latest committed plans, prompts included. If plans came before those
// that are looked at, the first half of these only fills the caches and does not count.
struct hotset_hindsight {
    size_t   size;
    uint64_t picks;       // experts picked that count
    uint64_t warm_picks;  // experts picked before, which only filled the caches
    uint64_t policy_hits; // of the cache's policy, from an empty cache
    uint64_t lru_hits;    // of lru, likewise
    uint64_t belady_hits; // of the best possible policy, which knows the future
};

// A policy. Strings are static.
struct hotset_policy {
    size_t       size;
    const char * name;
    const char * about;  // what it evicts
    const char * when;   // when to use it
    const char * source; // where the algorithm comes from
    const char * param;  // what the number after its name is ("decay:16"); NULL if it takes none
    uint32_t     param_default;
    uint32_t     param_min;
    uint32_t     param_max;
    uint32_t     reserved; // 0
};

struct hotset_tally {
    uint64_t hits;
    uint64_t misses;
    uint64_t evictions;
};

// What policies would have done with a recorded trace, prompts included.
struct hotset_replay_result {
    size_t   size;
    uint64_t n_tokens;  // tokens replayed
    uint64_t n_experts; // experts of the model, all layers together
    struct hotset_tally policy;
    struct hotset_tally lru;
    struct hotset_tally belady; // the best possible policy, which knows the future
};

// --- the library ---

// HOTSET_ABI_VERSION of the library. Check it before anything else where the library may be another one.
HOTSET_API uint32_t hotset_abi_version(void);

// Version 1.2.3 is 1002003, and "1.2.3". Static.
HOTSET_API uint32_t hotset_version(void);
HOTSET_API const char * hotset_version_string(void);

// What a status means, in a few words; static, also for numbers that are none.
HOTSET_API const char * hotset_status_text(hotset_status status);

// Why the last call of this thread that returns a status failed; "" if it succeeded, or there was none. Valid until the
// thread's next such call.
HOTSET_API const char * hotset_last_error(void);

// --- policies ---

HOTSET_API size_t hotset_policy_count(void);

// The name of policy `i`, counted from 0; NULL after the last. Static.
HOTSET_API const char * hotset_policy_name(size_t i);

// What policy `i` is. HOTSET_STATUS_ARGUMENT: there is none.
HOTSET_API hotset_status hotset_policy_info(size_t i, struct hotset_policy * policy_out);

// --- caches ---

// An empty cache. Slots are numbered from 0, and any expert can be in any of them. There are no more
// slots than experts, whatever n_slots says. Up to 2^21 experts in 2^18 layers take less than a GiB of
// memory; more are refused.
HOTSET_API hotset_status hotset_cache_new(
        const struct hotset_cache_params * params,
        struct hotset_cache             ** cache_out);

// cache  NULL is allowed and does nothing
HOTSET_API void hotset_cache_delete(struct hotset_cache * cache);

// The router of `layer` picked `ids` for n_tokens tokens: where is each of them?
//
//   ids          [n_ids] values in [0, n_experts[layer]), repeats allowed; token after token, each token's
//                picks best first if the router ranks them
//   slots_out    [n_ids] slot of each id, or HOTSET_NO_SLOT
//   fills_out    [n_ids] what to read before the slots are used; slots of victims are reused
//   n_fills_out  number of fills
//
// The slots stay as they are until the next plan. A plan that was not committed is rolled back.
//
// HOTSET_STATUS_ARGUMENT: a layer or an id out of range, or no tokens.
HOTSET_API hotset_status hotset_cache_plan(
        struct hotset_cache * cache,
        uint32_t              layer,
        uint32_t              n_tokens,
        const int32_t       * ids,
        size_t                n_ids,
        uint32_t            * slots_out,
        struct hotset_fill  * fills_out,
        size_t              * n_fills_out);

// The bytes of all fills have arrived. HOTSET_STATUS_STATE: there is no plan.
HOTSET_API hotset_status hotset_cache_commit(struct hotset_cache * cache);

// No byte of a slot was changed: the victims are resident again. HOTSET_STATUS_STATE: there is no plan.
HOTSET_API hotset_status hotset_cache_rollback(struct hotset_cache * cache);

// There are n_slots slots from now on. The last plan ends, as the next hotset_cache_plan would end it.
//
//   retired_out    [number of slots - n_slots] those that are no longer used, whatever their numbers;
//                  may be NULL when there are not fewer slots than before
//   n_retired_out  how many
//
// Experts in retired slots are no longer resident; no other expert moves. More slots take retired ones
// back before they add new numbers.
HOTSET_API hotset_status hotset_cache_resize(
        struct hotset_cache * cache,
        uint32_t              n_slots,
        uint32_t            * retired_out,
        size_t              * n_retired_out);

// What is known of the workload, before it begins or when it turns out to be another: as from
// hotset_cache_frequencies of another cache. It orders the experts that decoding has not picked yet;
// policies that count add it to what they have counted.
//
//   frequencies    [n_frequencies] share of tokens that pick each expert, from 0 to 1: layer after layer
//   n_frequencies  experts of all layers
//   n_tokens       how many tokens of the live workload this is worth, above 0
//
// HOTSET_STATUS_ARGUMENT: a value out of range. HOTSET_STATUS_STATE: a plan is not committed.
HOTSET_API hotset_status hotset_cache_prime(
        struct hotset_cache * cache,
        const float         * frequencies,
        size_t                n_frequencies,
        float                 n_tokens);

// hotset_cache_prime with a mix of profiles: what they pick while generating, worth 64 tokens.
//
//   profiles  [n_profiles] at least one, none NULL
//   weights   [n_profiles] above 0, at most 1000; NULL: all the same
//
// HOTSET_STATUS_ARGUMENT: no profiles, or a weight out of range. HOTSET_STATUS_MISMATCH: they are not of one model with
// the cache's numbers of experts. HOTSET_STATUS_STATE: a plan is not committed.
HOTSET_API hotset_status hotset_cache_prime_profiles(
        struct hotset_cache                 * cache,
        const struct hotset_profile * const * profiles,
        const double                        * weights,
        size_t                                n_profiles);

// Gives free slots to the hottest experts that are not resident, by what the cache was told or has
// recognised last.
//
//   n_max        at most so many; SIZE_MAX: as many as there are free slots
//   layers_out   [n_max, or the number of slots if that is less] layer of each fill, hottest first
//   fills_out    [as layers_out] what to read before the next hotset_cache_plan, which takes it for resident
//   n_fills_out  number of fills
//
// If one cannot be read, hotset_cache_resize to 0 and back makes all slots free again.
//
// HOTSET_STATUS_STATE: the cache was told nothing, or a plan is not committed.
HOTSET_API hotset_status hotset_cache_warm(
        struct hotset_cache * cache,
        size_t                n_max,
        uint32_t            * layers_out,
        struct hotset_fill  * fills_out,
        size_t              * n_fills_out);

// Recognise, from now on, which of `profiles` the committed plans are like, and prime the cache with it;
// again when the workload changes. The first decision takes 24 tokens or more. Plans of one batch of
// tokens come in the order of their layers. Takes the place of an earlier call.
//
//   profiles  [n_profiles] at least one, none NULL
//
// HOTSET_STATUS_ARGUMENT: no profiles. HOTSET_STATUS_MISMATCH: as for hotset_cache_prime_profiles.
HOTSET_API hotset_status hotset_cache_follow(
        struct hotset_cache                 * cache,
        const struct hotset_profile * const * profiles,
        size_t                                n_profiles);

// Which of the profiles of hotset_cache_follow the workload is like.
//
//   index_out       its place among them; SIZE_MAX while none is recognised
//   confidence_out  how sure that was when it was recognised, 0 to 1
//
// HOTSET_STATUS_STATE: no profiles are followed.
HOTSET_API hotset_status hotset_cache_followed(
        const struct hotset_cache * cache,
        size_t                    * index_out,
        double                    * confidence_out);

// Where `expert` of `layer` is: its slot, or HOTSET_NO_SLOT if it is not resident.
// HOTSET_STATUS_ARGUMENT: there is no such expert.
HOTSET_API hotset_status hotset_cache_slot(
        const struct hotset_cache * cache,
        uint32_t                    layer,
        uint32_t                    expert,
        uint32_t                  * slot_out);

// What the committed plans add up to.
HOTSET_API hotset_status hotset_cache_counts(
        const struct hotset_cache * cache,
        struct hotset_counts      * counts_out);

// How often committed plans picked `expert` of `layer`, and when last.
// HOTSET_STATUS_ARGUMENT: there is no such expert or phase.
HOTSET_API hotset_status hotset_cache_usage(
        const struct hotset_cache * cache,
        hotset_phase                phase,
        uint32_t                    layer,
        uint32_t                    expert,
        struct hotset_usage       * usage_out);

// The share of the tokens of `layer` that picked each of its experts, from 0 to 1.
//
//   frequencies_out  [n_frequencies]
//   n_frequencies    experts of the layer
//
// HOTSET_STATUS_ARGUMENT: there is no such layer, phase or span, or another number of experts.
HOTSET_API hotset_status hotset_cache_frequencies(
        const struct hotset_cache * cache,
        hotset_phase                phase,
        hotset_span                 span,
        uint32_t                    layer,
        float                     * frequencies_out,
        size_t                      n_frequencies);

// How unevenly the experts of `layer` were picked.
// HOTSET_STATUS_ARGUMENT: there is no such layer, phase or span.
HOTSET_API hotset_status hotset_cache_heat(
        const struct hotset_cache * cache,
        hotset_phase                phase,
        hotset_span                 span,
        uint32_t                    layer,
        struct hotset_heat        * heat_out);

// What other policies would have done with the latest committed plans: those of up to n_picks_max experts, and as many
// as 8 MiB hold, some 800,000, are kept. Replays them, which takes a second or two per million.
HOTSET_API hotset_status hotset_cache_hindsight(
        const struct hotset_cache * cache,
        size_t                      n_picks_max,
        struct hotset_hindsight   * hindsight_out);

// --- profiles ---

// A profile that knows nothing yet.
HOTSET_API hotset_status hotset_profile_new(
        const struct hotset_profile_params * params,
        struct hotset_profile             ** profile_out);

// The profile in a file, compressed if its name ends in .gz.
// HOTSET_STATUS_IO: there is none, or it is not to be read. HOTSET_STATUS_CORRUPT: it holds something else.
HOTSET_API hotset_status hotset_profile_read(const char * path, struct hotset_profile ** profile_out);

// Replaces the file at once, compressed likewise: the old one is there or the new one, whatever happens.
// HOTSET_STATUS_IO: it cannot be written, and is as it was.
HOTSET_API hotset_status hotset_profile_write(const struct hotset_profile * profile, const char * path);

// The profile `name` of all that `profiles` know. Each has its share, however much it has seen.
//
//   profiles  [n_profiles] at least one, none NULL
//   weights   [n_profiles] above 0, at most 1000; NULL: all the same
//
// HOTSET_STATUS_MISMATCH: they are not all of one model.
HOTSET_API hotset_status hotset_profile_merge(
        const char                          * name,
        const struct hotset_profile * const * profiles,
        const double                        * weights,
        size_t                                n_profiles,
        struct hotset_profile              ** profile_out);

// profile  NULL is allowed and does nothing. No cache needs the profiles that it was given.
HOTSET_API void hotset_profile_delete(struct hotset_profile * profile);

// Adds what the committed plans of `cache` have picked since the last call for this cache. What was
// learnt of it once is not learnt again: one profile learns from a cache.
// HOTSET_STATUS_MISMATCH: their layers with experts have other numbers of them.
HOTSET_API hotset_status hotset_profile_learn(struct hotset_profile * profile, struct hotset_cache * cache);

// How alike `a` and `b` are: 1 if both pick each expert equally often, 0 if they share none. The mean
// over layers of 1 less the Jensen-Shannon divergence, in bits.
//
// HOTSET_STATUS_MISMATCH: they are not of one model. HOTSET_STATUS_ARGUMENT: there is no such phase.
// HOTSET_STATUS_STATE: there is no layer that both know in it.
HOTSET_API hotset_status hotset_profile_similarity(
        const struct hotset_profile * a,
        const struct hotset_profile * b,
        hotset_phase                  phase,
        double                      * similarity_out);

// --- traces ---

// Replay a trace that was recorded with HOTSET_TRACE, from an empty cache.
//
//   path          the file
//   policy        as in hotset_cache_params
//   n_slots       experts that fit, of all layers together
//   n_tokens_max  replay only tokens below this number; UINT32_MAX: all
//
// HOTSET_STATUS_IO: there is no such file, or it is not to be read. HOTSET_STATUS_CORRUPT: it is damaged or no trace.
// HOTSET_STATUS_ARGUMENT: there is no such policy.
HOTSET_API hotset_status hotset_trace_replay(
        const char                  * path,
        const char                  * policy,
        uint32_t                      n_slots,
        uint32_t                      n_tokens_max,
        struct hotset_replay_result * result_out);

// --- llama.cpp ---

// Install the hook of a patched llama.cpp with the settings of the environment (HOTSET_RAM and so on), before a model is
// loaded and before llama_backend_init(). Calls after the first change nothing and end as it did.
// Only in a library built with the feature `hooks`.
//
// A tree with patches/0003 need not call it: its llama_backend_init() does so in its own way, and ends a program whose
// settings are not valid with exit code 2 and one line that says what is.
HOTSET_API hotset_status hotset_llama_install(void);

#ifdef __cplusplus
}
#endif
