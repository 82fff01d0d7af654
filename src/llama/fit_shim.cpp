// Where llama.cpp decides what goes to devices, hotset is asked first.
//
// Two of its functions are wrapped by the linker (build/link.rs): the one that fits a model to the memory of devices, which
// programs call with exactly what they will load, and the one that loads a model. With nobody to ask both are upstream's.

#include "fit.h"
#include "llama.h"

#include <algorithm>
#include <exception>
#include <regex>

extern "C" {

// What a model is about to be loaded with. What the pointers point to may be changed.
struct hotset_fit {
    const char                       * path;
    llama_model_params               * mparams;
    llama_context_params             * cparams;
    float                            * tensor_split;
    llama_model_tensor_buft_override * overrides; // room for at least two
    const size_t                     * margins;   // of each device
    uint32_t                           n_ctx_min;
    const common_fit_extra_model     * extra;
};

// What a device has free, and what a model would take of it.
struct hotset_need {
    ggml_backend_dev_t device;
    uint64_t           free;
    uint64_t           model;
    uint64_t           context;
    uint64_t           compute;
};

struct hotset_shape {
    uint32_t n_ctx_train;
    uint32_t n_expert;
    uint32_t n_layer;
    uint64_t host; // bytes of weights in host memory
};

// Returns whether it has decided.
typedef bool (*hotset_place)(const hotset_fit * fit);
// May change how a model is loaded.
typedef void (*hotset_load)(const char * path, llama_model_params * mparams);

void hotset_fit_ask(hotset_place place, hotset_load load);
bool hotset_fit_names(const char * pattern, const char * tensor);
int  hotset_fit_measure(const hotset_fit * fit, hotset_need * needs, size_t n_max, hotset_shape * shape);

}

static hotset_place ask_place = nullptr;
static hotset_load  ask_load  = nullptr;

extern "C" void hotset_fit_ask(hotset_place place, hotset_load load) {
    ask_place = place;
    ask_load  = load;
}

// Whether an override of this pattern is of this tensor, as the loader of models sees it.
extern "C" bool hotset_fit_names(const char * pattern, const char * tensor) {
    try {
        return std::regex_search(tensor, std::regex(pattern));
    } catch (const std::regex_error &) {
        return false;
    }
}

static void add(hotset_need & need, const common_device_memory_data & data, bool with_model) {
    need.model   += with_model ? data.model : 0;
    need.context += data.context;
    need.compute += data.compute;
}

// Measures as upstream does, without allocating. Returns the number of devices, or -1.
extern "C" int hotset_fit_measure(const hotset_fit * fit, hotset_need * needs, size_t n_max, hotset_shape * shape) {
    try {
        std::vector<ggml_backend_dev_t> devices;
        const auto all = common_get_device_memory_data(fit->path, fit->mparams, fit->cparams, devices,
            shape->n_layer, shape->n_ctx_train, shape->n_expert, GGML_LOG_LEVEL_ERROR);
        const size_t n = devices.size();
        if (n > n_max) {
            return -1;
        }
        shape->host = all.back().model;
        for (size_t i = 0; i < n; i++) {
            needs[i] = { devices[i], (uint64_t) std::max<int64_t>(all[i].free, 0), 0, 0, 0 };
            add(needs[i], all[i], true);
        }
        // a draft model is on the same devices, with a context of the same size
        if (const auto * extra = fit->extra) {
            std::vector<ggml_backend_dev_t> others;
            hotset_shape of_extra;
            extra->cparams->n_ctx = fit->cparams->n_ctx;
            const auto more = common_get_device_memory_data(extra->path_model, extra->mparams, extra->cparams, others,
                of_extra.n_layer, of_extra.n_ctx_train, of_extra.n_expert, GGML_LOG_LEVEL_ERROR);
            for (size_t j = 0; j < others.size(); j++) {
                for (size_t i = 0; i < n; i++) {
                    if (devices[i] == others[j]) {
                        add(needs[i], more[j], !extra->shares_model);
                    }
                }
            }
        }
        return (int) n;
    } catch (const std::exception &) {
        // upstream meets the same, and says it
        return -1;
    }
}

#ifndef __APPLE__ // whose linker wraps nothing

#define FIT_SYMBOL "_Z17common_fit_paramsPKcP18llama_model_paramsP20llama_context_paramsPfP32llama_model_tensor_buft_override" \
    "PmjPK22common_fit_extra_model14ggml_log_level"

common_params_fit_status real_fit(const char *, llama_model_params *, llama_context_params *, float *,
    llama_model_tensor_buft_override *, size_t *, uint32_t, const common_fit_extra_model *, ggml_log_level) asm("__real_" FIT_SYMBOL);
common_params_fit_status asked_fit(const char *, llama_model_params *, llama_context_params *, float *,
    llama_model_tensor_buft_override *, size_t *, uint32_t, const common_fit_extra_model *, ggml_log_level) asm("__wrap_" FIT_SYMBOL);

common_params_fit_status asked_fit(const char * path, llama_model_params * mparams, llama_context_params * cparams,
        float * tensor_split, llama_model_tensor_buft_override * overrides, size_t * margins, uint32_t n_ctx_min,
        const common_fit_extra_model * extra, ggml_log_level log_level) {
    const hotset_fit fit = { path, mparams, cparams, tensor_split, overrides, margins, n_ctx_min, extra };
    if (ask_place && ask_place(&fit)) {
        return COMMON_PARAMS_FIT_STATUS_SUCCESS;
    }
    return real_fit(path, mparams, cparams, tensor_split, overrides, margins, n_ctx_min, extra, log_level);
}

extern "C" {

llama_model * __real_llama_model_load_from_file(const char * path, llama_model_params mparams);
llama_model * __wrap_llama_model_load_from_file(const char * path, llama_model_params mparams);

llama_model * __wrap_llama_model_load_from_file(const char * path, llama_model_params mparams) {
    if (ask_load) {
        ask_load(path, &mparams);
    }
    return __real_llama_model_load_from_file(path, mparams);
}

}

#endif
