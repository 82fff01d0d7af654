// C names for upstream's programs, which are C++ functions without a header.
//
// They log from a thread of their own; what is still queued when they return is written before the
// process ends, or the last words of a text would be lost now and then.
//
// noexcept: an exception that upstream does not catch ends the program with upstream's own message
// and never unwinds into Rust.

#include <cstdio>

struct common_log;
struct common_log * common_log_main();
void common_log_flush(struct common_log * log);

#ifdef HOTSET_NO_SERVER
static int is_missing(const char * program) {
    fprintf(stderr, "%s is not in this build: the package of this llama.cpp lacks the server's sources; build with HOTSET_LLAMA_CPP_DIR=checkout\n", program);
    return 2;
}

static int llama_cli(int, char **) { return is_missing("llama-cli"); }
static int llama_server(int, char **) { return is_missing("llama-server"); }
#else
int llama_cli(int argc, char ** argv);
int llama_server(int argc, char ** argv);
#endif
int llama_bench(int argc, char ** argv);
int llama_perplexity(int argc, char ** argv);
int llama_completion(int argc, char ** argv);

static int flushed(int status) {
    common_log_flush(common_log_main());
    return status;
}

extern "C" {

int hotset_tool_cli(int argc, char ** argv) noexcept;
int hotset_tool_server(int argc, char ** argv) noexcept;
int hotset_tool_bench(int argc, char ** argv) noexcept;
int hotset_tool_perplexity(int argc, char ** argv) noexcept;
int hotset_tool_completion(int argc, char ** argv) noexcept;

int hotset_tool_cli(int argc, char ** argv) noexcept {
    return flushed(llama_cli(argc, argv));
}

int hotset_tool_server(int argc, char ** argv) noexcept {
    return flushed(llama_server(argc, argv));
}

int hotset_tool_bench(int argc, char ** argv) noexcept {
    return flushed(llama_bench(argc, argv));
}

int hotset_tool_perplexity(int argc, char ** argv) noexcept {
    return flushed(llama_perplexity(argc, argv));
}

int hotset_tool_completion(int argc, char ** argv) noexcept {
    return flushed(llama_completion(argc, argv));
}

}
