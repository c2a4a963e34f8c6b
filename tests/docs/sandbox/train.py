import rankguard

rank = rankguard.this_rank()
rank.status("step 1", done=1, total=1)
print("step 1 of 1")
