// Installs the hook of llama.cpp with settings that are not valid: install [backend]. There is no llama.cpp in this
// program: nothing is called that needs it.

// As the llama.cpp of patches/0003 has it.
void hotset_llama_install_or_exit(void);
static void llama_backend_init(void) {
    hotset_llama_install_or_exit();
}

#include "check.h"

int main(int argc, char ** argv) {
    (void) argv;
    // the process goes on, hears of it each time, and can use the rest of the library
    for (int i = 0; i < 2; i++) {
        failed(hotset_llama_install(), "HOTSET_NO_SUCH");
    }
    const uint32_t n_experts[] = { 8 };
    const int32_t  ids[]       = { 3, 1 };
    struct hotset_cache * cache = cache_new(n_experts, 1, 4, "lru");
    assert(use(cache, 0, 1, ids, 2) == 2);
    hotset_cache_delete(cache);

    // a program that knows nothing of hotset ends
    if (argc == 2) {
        llama_backend_init();
        assert(!"comes back");
    }
    return 0;
}
