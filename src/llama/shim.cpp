// C names for upstream's programs, which are C++ functions without a header.
//
// noexcept: an exception that upstream does not catch ends the program with upstream's own message
// and never unwinds into Rust.

int llama_cli(int argc, char ** argv);
int llama_server(int argc, char ** argv);
int llama_bench(int argc, char ** argv);
int llama_perplexity(int argc, char ** argv);
int llama_completion(int argc, char ** argv);

extern "C" {

int hotset_tool_cli(int argc, char ** argv) noexcept;
int hotset_tool_server(int argc, char ** argv) noexcept;
int hotset_tool_bench(int argc, char ** argv) noexcept;
int hotset_tool_perplexity(int argc, char ** argv) noexcept;
int hotset_tool_completion(int argc, char ** argv) noexcept;

int hotset_tool_cli(int argc, char ** argv) noexcept {
    return llama_cli(argc, argv);
}

int hotset_tool_server(int argc, char ** argv) noexcept {
    return llama_server(argc, argv);
}

int hotset_tool_bench(int argc, char ** argv) noexcept {
    return llama_bench(argc, argv);
}

int hotset_tool_perplexity(int argc, char ** argv) noexcept {
    return llama_perplexity(argc, argv);
}

int hotset_tool_completion(int argc, char ** argv) noexcept {
    return llama_completion(argc, argv);
}

}
