// Makes calls fail for every cause that C can bring about: statuses FOLDER [watched]. Exits with 0 if everything holds.
#define _POSIX_C_SOURCE 200809L

#include "workload.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>

static void test_texts(void) {
    const hotset_status all[] = {
        HOTSET_STATUS_OK, HOTSET_STATUS_ARGUMENT, HOTSET_STATUS_PANIC, HOTSET_STATUS_MISMATCH, HOTSET_STATUS_IO,
        HOTSET_STATUS_CORRUPT, HOTSET_STATUS_STATE, HOTSET_STATUS_NO_MEMORY,
    };
    const size_t n = sizeof(all) / sizeof(all[0]);
    const char * none = hotset_status_text(1);
    assert(none[0] != 0 && strcmp(none, hotset_status_text(INT32_MIN)) == 0);
    for (size_t i = 0; i < n; i++) {
        assert(all[i] == -(hotset_status) i);
        for (size_t j = 0; j < i; j++) {
            assert(strcmp(hotset_status_text(all[i]), hotset_status_text(all[j])) != 0);
        }
        assert(strcmp(hotset_status_text(all[i]), none) != 0);
    }
}

static void test_version(void) {
    unsigned major, minor, patch;
    char text[64];
    assert(sscanf(hotset_version_string(), "%u.%u.%u", &major, &minor, &patch) == 3);
    assert(snprintf(text, sizeof(text), "%u.%u.%u", major, minor, patch) > 0);
    assert(strcmp(text, hotset_version_string()) == 0);
    assert(hotset_version() == 1000000 * major + 1000 * minor + patch);
}

// Each cause, between calls that succeed and leave no word of it.
static void test_causes(const char * folder) {
    static const uint32_t others[] = { 8, 8, 8 };
    char path[4096];
    uint32_t slot;
    struct hotset_cache * cache = cache_of(4, "lru");
    struct hotset_profile_params p = params("other");
    p.n_experts = others;
    profile * other = profile_new(&p);
    profile * read  = NULL;

    fails(hotset_cache_slot(cache, 99, 0, &slot), HOTSET_STATUS_ARGUMENT, "layer 99");
    succeeded(hotset_cache_slot(cache, 0, 0, &slot));
    fails(hotset_cache_commit(cache), HOTSET_STATUS_STATE, "there is no plan");
    succeeded(hotset_cache_slot(cache, 0, 0, &slot));
    fails(hotset_profile_learn(other, cache), HOTSET_STATUS_MISMATCH, "profile=other");
    succeeded(hotset_cache_slot(cache, 0, 0, &slot));

    assert((size_t) snprintf(path, sizeof(path), "%s/some.json", folder) < sizeof(path));
    fails(hotset_profile_read(path, &read), HOTSET_STATUS_IO, "No such file");
    FILE * file = fopen(path, "wb");
    assert(file != NULL && fputs("{}", file) >= 0 && fclose(file) == 0);
    fails(hotset_profile_read(path, &read), HOTSET_STATUS_CORRUPT, "some.json");
    succeeded(hotset_profile_write(other, path));
    succeeded(hotset_profile_read(path, &read));
    hotset_profile_delete(read);

    // calls that return no status leave the words alone
    failed(hotset_cache_slot(NULL, 0, 0, &slot), "`cache` is NULL");
    hotset_cache_delete(NULL);
    hotset_profile_delete(other);
    assert(hotset_abi_version() == HOTSET_ABI_VERSION && hotset_policy_name(0) != NULL);
    assert(strcmp(hotset_last_error(), "`cache` is NULL") == 0);
    hotset_cache_delete(cache);
}

static void * fail_elsewhere(void * unused) {
    assert(hotset_last_error()[0] == 0);
    fails(hotset_cache_commit(NULL), HOTSET_STATUS_ARGUMENT, "`cache` is NULL");
    return unused;
}

// Words are of the thread that made the call.
static void test_threads(void) {
    pthread_t thread;
    uint32_t slot;
    struct hotset_cache * cache = cache_of(4, "lru");
    fails(hotset_cache_slot(cache, 99, 0, &slot), HOTSET_STATUS_ARGUMENT, "layer 99");
    assert(pthread_create(&thread, NULL, fail_elsewhere, NULL) == 0 && pthread_join(thread, NULL) == 0);
    assert(strstr(hotset_last_error(), "layer 99") != NULL);
    hotset_cache_delete(cache);
}

// A process that gets no more memory than it has does not end. Not for tools that watch memory, which need some.
static void test_no_memory(void) {
    enum { N_LARGE = 64 };
    uint32_t large[N_LARGE];
    struct rlimit before, limit;
    struct hotset_cache_params   c = { 0 };
    struct hotset_profile_params p = params("large");
    struct hotset_cache * cache = NULL;
    profile * made = NULL;
    for (int i = 0; i < N_LARGE; i++) {
        large[i] = (1 << 20) / N_LARGE;
    }
    c.size      = sizeof(c);
    c.n_experts = p.n_experts = large;
    c.n_layers  = p.n_layers  = N_LARGE;
    c.n_slots   = 10;
    c.policy    = "adaptive";
    assert(getrlimit(RLIMIT_AS, &before) == 0);
    limit          = before;
    limit.rlim_cur = 40 << 20;
    assert(setrlimit(RLIMIT_AS, &limit) == 0);
    fails(hotset_cache_new(&c, &cache), HOTSET_STATUS_NO_MEMORY, "a cache of 1048576 experts");
    assert(cache == NULL);
    fails(hotset_profile_new(&p, &made), HOTSET_STATUS_NO_MEMORY, "a profile of 1048576 experts");
    assert(made == NULL);
    // a small one finds its place
    hotset_cache_delete(cache_of(4, "adaptive"));
    assert(setrlimit(RLIMIT_AS, &before) == 0);
    succeeded(hotset_cache_new(&c, &cache));

    // a plan of more ids than there is memory for
    enum { N_IDS = 4 << 20 };
    int32_t            * ids   = calloc(N_IDS, sizeof(*ids));
    uint32_t           * found = calloc(N_IDS, sizeof(*found));
    struct hotset_fill * read  = calloc(N_IDS, sizeof(*read));
    size_t n = 77;
    assert(ids != NULL && found != NULL && read != NULL);
    assert(setrlimit(RLIMIT_AS, &limit) == 0);
    fails(hotset_cache_plan(cache, 0, 1, ids, N_IDS, found, read, &n), HOTSET_STATUS_NO_MEMORY, "a plan of 4194304 ids");
    assert(n == 77);
    assert(setrlimit(RLIMIT_AS, &before) == 0);
    succeeded(hotset_cache_plan(cache, 0, 1, ids, N_IDS, found, read, &n));
    assert(n == 1);
    free(ids);
    free(found);
    free(read);
    hotset_cache_delete(cache);
}

int main(int argc, char ** argv) {
    assert(argc == 2 || (argc == 3 && strcmp(argv[2], "watched") == 0));
    test_texts();
    test_version();
    test_causes(argv[1]);
    test_threads();
    if (argc == 2) {
        test_no_memory();
    }
    return 0;
}
