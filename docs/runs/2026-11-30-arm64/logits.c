// Writes the logits of each token that a model generates greedily: logits MODEL N_TOKENS REPACK OUT
//
// REPACK is 1 for what llama.cpp does by default, 0 for --no-repack. Standard output has the tokens.
// Knows nothing of hotset: llama_backend_init() installs it.

#include "llama.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_PROMPT_MAX 128

int main(int argc, char ** argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s MODEL N_TOKENS REPACK OUT\n", argv[0]);
        return 2;
    }
    llama_backend_init();
    struct llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    model_params.use_extra_bufts = atoi(argv[3]) != 0;
    struct llama_model * model = llama_model_load_from_file(argv[1], model_params);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 256;
    params.n_threads = params.n_threads_batch = 2;
    struct llama_context * ctx = model ? llama_init_from_model(model, params) : NULL;
    FILE * out = fopen(argv[4], "wb");
    if (!ctx || !out) {
        return 1;
    }

    const struct llama_vocab * vocab = llama_model_get_vocab(model);
    const int n_vocab = llama_vocab_n_tokens(vocab);
    // Longer than 32 tokens, so that it is read as a prompt.
    const char * prompt =
        "The kernel reads the file and returns the number of bytes that it has read, or an error. Il sistema di "
        "avvio legge il file di configurazione e restituisce il numero di byte.";
    llama_token tokens[N_PROMPT_MAX];
    int n_tokens = llama_tokenize(vocab, prompt, (int) strlen(prompt), tokens, N_PROMPT_MAX, true, false);
    if (n_tokens <= 32) { // A model without words of its own.
        for (n_tokens = 0; n_tokens < 40; n_tokens++) {
            tokens[n_tokens] = (7 * n_tokens + 3) % n_vocab;
        }
    }
    struct llama_batch batch = llama_batch_get_one(tokens, n_tokens);
    llama_token next = 0;
    for (int i = atoi(argv[2]); i > 0; i--) {
        if (llama_decode(ctx, batch) != 0) {
            return 1;
        }
        const float * logits = llama_get_logits_ith(ctx, -1);
        fwrite(logits, sizeof(float), n_vocab, out);
        next = 0;
        for (llama_token t = 1; t < n_vocab; t++) {
            next = logits[t] > logits[next] ? t : next;
        }
        printf("%d%c", next, i > 1 ? ' ' : '\n');
        batch = llama_batch_get_one(&next, 1);
    }
    fclose(out);
    llama_free(ctx);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
