# Read by cmake when it comes to ggml's own project: ggml is made of shared libraries, which those that are loaded at run
# time need, and what is outside of ggml is not.
set(BUILD_SHARED_LIBS ON)
