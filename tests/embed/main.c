// Prints the tokens that a model generates greedily: embed MODEL N_TOKENS
//
// Knows nothing of hotset: llama_backend_init() installs it.

#include "llama.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_PROMPT_MAX 64

static llama_token greedy(struct llama_context * ctx, int n_vocab) {
    const float * logits = llama_get_logits_ith(ctx, -1);
    llama_token best = 0;
    for (llama_token i = 1; i < n_vocab; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return best;
}

int main(int argc, char ** argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL N_TOKENS\n", argv[0]);
        return 2;
    }
    llama_backend_init();

    struct llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    // Repacked weights are summed in another order than streamed ones.
    model_params.use_extra_bufts = false;
    struct llama_model * model = llama_model_load_from_file(argv[1], model_params);
    if (!model) {
        return 1;
    }
    struct llama_context_params ctx_params = llama_context_default_params();
    ctx_params.n_ctx = 256;
    struct llama_context * ctx = llama_init_from_model(model, ctx_params);
    if (!ctx) {
        return 1;
    }

    const struct llama_vocab * vocab = llama_model_get_vocab(model);
    const char * prompt = "The kernel reads the file and";
    llama_token tokens[N_PROMPT_MAX];
    int n_tokens = llama_tokenize(vocab, prompt, (int) strlen(prompt), tokens, N_PROMPT_MAX, true, false);
    if (n_tokens <= 0) {
        return 1;
    }
    struct llama_batch batch = llama_batch_get_one(tokens, n_tokens);
    llama_token next;
    for (int i = atoi(argv[2]); i > 0; i--) {
        if (llama_decode(ctx, batch) != 0) {
            return 1;
        }
        next = greedy(ctx, llama_vocab_n_tokens(vocab));
        printf("%d%c", next, i > 1 ? ' ' : '\n');
        batch = llama_batch_get_one(&next, 1);
    }

    llama_free(ctx);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
