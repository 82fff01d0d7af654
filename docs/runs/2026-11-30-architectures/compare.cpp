#include "llama.h"
#include "ggml-backend.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cmath>
#include <vector>
#include <cstdint>
extern "C" int hotset_llama_install(const char*const* a, size_t n);
extern "C" void hotset_llama_install_or_exit();
int main(int argc,char**argv){
  llama_log_set([](ggml_log_level l,const char*t,void*){ if(l==GGML_LOG_LEVEL_ERROR) fputs(t,stderr); },nullptr);
  ggml_backend_load_all();
  llama_backend_init();
  if(strcmp(argv[2],"off")) hotset_llama_install_or_exit();
  auto mp=llama_model_default_params(); mp.n_gpu_layers=0; mp.use_extra_bufts=false;
  auto*m=llama_model_load_from_file(argv[1],mp); if(!m) return 3;
  int nv=llama_vocab_n_tokens(llama_model_get_vocab(m));
  struct S{int nb,nt,ns;} shapes[]={{1,8,1},{64,128,1},{4,16,2}};
  for(auto s:shapes){
    auto cp=llama_context_default_params(); cp.n_ctx=512; cp.n_batch=64; cp.n_ubatch=64; cp.n_seq_max=s.ns; cp.kv_unified=true; cp.n_threads=cp.n_threads_batch=2;
    auto*c=llama_init_from_model(m,cp); if(!c) return 4;
    uint64_t h=1469598103934665603ull, x=0x9e3779b97f4a7c15ull; int past[4]={0}; bool fin=true;
    for(int b=0;b<s.nt;b+=s.nb){
      auto bt=llama_batch_init(s.nb,0,1); bt.n_tokens=s.nb;
      for(int i=0;i<s.nb;i++){ x^=x<<13;x^=x>>7;x^=x<<17; int q=i%s.ns; bt.token[i]=x%(nv-1); bt.pos[i]=past[q]++; bt.n_seq_id[i]=1; bt.seq_id[i][0]=q; bt.logits[i]=1; }
      if(llama_decode(c,bt)) return 5;
      for(int i=0;i<s.nb;i++){ float*l=llama_get_logits_ith(c,i); for(int j=0;j<nv;j++){ uint32_t u; memcpy(&u,l+j,4); h=(h^u)*1099511628211ull; fin&=std::isfinite(l[j]); } }
      llama_batch_free(bt);
    }
    llama_free(c);
    printf("%016lx%s ",h,fin?"":"!NONFINITE");
  }
  llama_model_free(m); puts(""); return 0; }
