// What llama.cpp uses of OpenMP's functions. The runtime is LLVM's, which brings no header in this form.
#ifndef OMP_H
#define OMP_H

#ifdef __cplusplus
extern "C" {
#endif

int omp_get_num_threads(void);
int omp_get_thread_num(void);

#ifdef __cplusplus
}
#endif

#endif
