import gzip,json,sys
# side.py OUT N LIMIT TRACE...
out,n,limit=sys.argv[1],int(sys.argv[2]),int(sys.argv[3])
toks=[];hd=None
for p in sys.argv[4:]:
    with gzip.open(p,'rt') as f:
        h=json.loads(next(f)); hd=hd or h
        assert (h['n_layers'],h['n_experts'],h['top_k'])==(hd['n_layers'],hd['n_experts'],hd['top_k'])
        cur={}
        for l in f:
            t,ly,ids=l.split(); t=int(t)
            if t>=limit: break
            cur.setdefault(t,{})[int(ly)]=ids
        toks+=[cur[t] for t in sorted(cur)]
S=len(toks)//n
with gzip.open(out,'wt',compresslevel=1) as f:
    f.write(json.dumps(dict(n_layers=hd['n_layers'],n_experts=hd['n_experts'],top_k=hd['top_k'],batched=True,ranked=hd.get('ranked',False)))+'\n')
    for s in range(S):
        for ly in range(hd['n_layers']):
            for q in range(n):
                f.write(f"{s*n+q} {ly} {toks[q*S+s][ly]}\n")
            f.write("\n")
