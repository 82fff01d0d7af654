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
// Ownership  whoever calls hotset_init calls hotset_free, once. Nothing else is owned.
// Threads    one call at a time per cache; different caches are independent.
// Errors     0 is success, negative is failure. On failure no out-parameter is written, nothing
//            changes, and hotset_error() says why.
// Panics     HOTSET_STATUS_PANIC is a bug in hotset; afterwards only hotset_free is allowed.

#define HOTSET_ABI_VERSION 1

// The slot of an expert that got none: read its weights without caching them.
#define HOTSET_NO_SLOT UINT32_MAX

struct hotset;

// Values are ABI: append only, never renumber.
enum hotset_status {
    HOTSET_STATUS_OK               =  0,
    HOTSET_STATUS_INVALID_ARGUMENT = -1,
    HOTSET_STATUS_PANIC            = -2,
};

// The bytes of `expert` of the planned layer go to `slot`.
struct hotset_fill {
    uint32_t expert;
    uint32_t slot;
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

// HOTSET_ABI_VERSION of the library.
uint32_t hotset_abi_version(void);

// Why the last call of this thread failed; "" if none has. Valid until the thread's next call.
const char * hotset_error(void);

// The name of policy `i`, counted from 0, or NULL after the last. Static.
const char * hotset_policy(size_t i);

// An empty cache.
//
//   n_experts  experts of each of the n_layers layers
//   n_slots    experts that fit, of all layers together
//   policy     a name that hotset_policy returns, with a number where it takes one: "decay:16"
//
// Returns NULL on failure.
struct hotset * hotset_init(
        const uint32_t * n_experts,
        uint32_t         n_layers,
        uint32_t         n_slots,
        const char     * policy);

// NULL is allowed and does nothing.
void hotset_free(struct hotset * cache);

// The router of `layer` picked `ids` for n_tokens tokens: where is each of them?
//
//   ids          n_ids values in [0, n_experts[layer]), repeats allowed; may be NULL when n_ids is 0
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

// What the committed plans add up to.
enum hotset_status hotset_get_counts(const struct hotset * cache, struct hotset_counts * counts_out);

// Install the hook of a patched llama.cpp with the settings of the environment (HOTSET_RAM and so
// on). Call it before a model is loaded; calls after the first do nothing. Settings that are not
// valid end the process with exit code 2 and one line that says what is.
// Only in a library built with the feature `hooks`.
void hotset_llama_install(void);

#ifdef __cplusplus
}
#endif
