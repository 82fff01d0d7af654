// Saves a tiny random model of an architecture, made of what upstream's own test of architectures knows of it.
//
//   save            prints the names of all architectures
//   save NAME FILE  prints which weights a router picks from, if the architecture has any, and writes the model then

#define main upstream_main
#include "test-llama-archs.cpp"
#undef main

#include "../src/llama-model.h"

#include <cstdlib>
#include <set>

// Upstream makes two of which two are picked: then routing decides nothing.
static const uint32_t N_EXPERTS_MIN = 8;
static const size_t   SEED          = 7;
static const float    SPREAD        = 0.1f;

static void set_n_experts(gguf_context * meta, llm_arch arch) {
    const std::string name = LLM_KV(arch)(LLM_KV_EXPERT_COUNT);
    const int64_t     key  = gguf_find_key(meta, name.c_str());
    if (key >= 0 && gguf_get_val_u32(meta, key) < N_EXPERTS_MIN) {
        gguf_set_val_u32(meta, name.c_str(), N_EXPERTS_MIN);
    }
}

static std::vector<ggml_tensor *> tensors(const llama_model * model) {
    std::set<std::string>      names;
    std::vector<ggml_tensor *> all;
    for (const auto & [name, tensor] : llama_internal_get_tensor_map(model)) {
        // An output that is the embedding is listed twice.
        if (names.insert(tensor->name).second) {
            all.push_back(tensor);
        }
    }
    return all;
}

static bool is_routed(ggml_tensor * node, bool ask, void * routed) {
    if (ask && node->op == GGML_OP_MUL_MAT_ID) {
        ((std::set<const ggml_tensor *> *) routed)->insert(node->src[0]);
    }
    return !ask;
}

// The weights of the graph that computes a token.
static std::set<const ggml_tensor *> routed_weights(llama_model * model) {
    std::set<const ggml_tensor *> routed;
    llama_context_params params = llama_context_default_params();
    params.n_ctx             = 64;
    params.cb_eval           = is_routed;
    params.cb_eval_user_data = &routed;
    llama_context_ptr context(llama_init_from_model(model, params));
    llama_token token = 1;
    if (!context || llama_decode(context.get(), llama_batch_get_one(&token, 1)) != 0) {
        throw std::runtime_error("it cannot compute a token");
    }
    return routed;
}

static void save(llm_arch arch, const char * file) {
    gguf_context_ptr meta = get_gguf_ctx(arch, true);
    set_n_experts(meta.get(), arch);
    llama_model_ptr model = get_model_and_ctx(meta.get(), nullptr, SEED, SPREAD, {}).first;

    const std::set<const ggml_tensor *> routed = routed_weights(model.get());
    for (const ggml_tensor * weight : routed) {
        printf("%s %zu\n", weight->name, ggml_nbytes(weight));
    }
    if (routed.empty()) {
        return;
    }

    // What the metadata names are tensors of no size, which stand for types.
    gguf_context_ptr all(gguf_init_empty());
    gguf_set_kv(all.get(), meta.get());
    for (const ggml_tensor * tensor : tensors(model.get())) {
        gguf_add_tensor(all.get(), tensor);
    }
    if (!gguf_write_to_file(all.get(), file, false)) {
        throw std::runtime_error("it cannot be written");
    }
}

int main(int argc, char ** argv) {
    llama_log_set([](ggml_log_level level, const char * text, void *) {
        if (level == GGML_LOG_LEVEL_ERROR) {
            fputs(text, stderr);
        }
    }, nullptr);
    ggml_backend_load_all();
    llama_backend_init();
    if (argc == 1) {
        for (const llm_arch & arch : llm_arch_all()) {
            if (arch != LLM_ARCH_UNKNOWN) {
                puts(llm_arch_name(arch));
            }
        }
        return 0;
    }
    try {
        save(llm_arch_from_string(argv[1]), argv[2]);
    } catch (const std::exception & error) {
        fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
