"""Facts read out of prose: what its plain sentences tell, and what is asked of that, by rule and without a parser.

Reading a header is a skill of its own, and a deck by hand is too small to learn it from; any plain sentence is a fact
that somebody may ask about (questions out of statements: Heilman and Smith 2010, "Good Question! Statistical Ranking
for Question Generation", section 2). Only sentences that are wholly understood are taken, some 3 in 100.
"""
