"""Translation scores: sacreBLEU's BLEU and chrF with bootstrap intervals and signatures.

Nothing is computed here that sacrebleu, jiwer or COMET compute: this package chooses the tokeniser,
groups the sentences, and keeps the signature beside every number. The scores equal the command
line's, `sacrebleu REF -i PRED -m bleu chrf --confidence`, on the same sentences;
`slam_potsa.evaluation.dump` prints that command for each of them.

A group of languages ("seen", "zero-shot", "all") has two scores that differ, and both are given:

* **pooled**: all sentences of the group are one corpus, so an interval exists. It takes recordings
  for independent; where a sentence recurs in several languages it is narrower than it should be;
* **mean of languages**: the unweighted mean of the languages' scores, which is what the papers
  average (POTSA, Tables 1 to 3). sacrebleu has no interval for it, so it has none here.
"""

from slam_potsa.evaluation.scores.conventions import TOKENIZERS, Convention, ErrorRate
from slam_potsa.evaluation.scores.corpora import Corpus, corpora
from slam_potsa.evaluation.scores.metrics import metrics_for, sacrebleu_seed
from slam_potsa.evaluation.scores.rows import Score, ScoreRow, ScoreTable, aligned
from slam_potsa.evaluation.scores.scoring import score

__all__ = [
    "TOKENIZERS",
    "Convention",
    "Corpus",
    "ErrorRate",
    "Score",
    "ScoreRow",
    "ScoreTable",
    "aligned",
    "corpora",
    "metrics_for",
    "sacrebleu_seed",
    "score",
]
